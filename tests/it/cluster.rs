//! A Redis Cluster: an unavailable master degrades its own anomalies only, and nothing is lost when
//! its replica takes over or slots move.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{
    OtherClient, RedisCluster, RedisServer, Service, eventually, healthy_again, key_of,
};

const ANOMALIES: usize = 24;
const CALLERS: usize = 6;

async fn on(cluster: &RedisCluster) -> Arc<Service> {
    Arc::new(Service::with(&[("REDIS__URL", &cluster.url_of_all())]).await)
}

fn name(anomaly: usize) -> String {
    format!("Alert{anomaly}")
}

/// Returns the master of each anomaly at the beginning.
async fn masters_of(cluster: &RedisCluster) -> Vec<usize> {
    let client = cluster.masters()[0].client().await;
    let mut masters = Vec::new();
    for anomaly in 0..ANOMALIES {
        masters.push(cluster.master_of(&client, &key_of(&name(anomaly)).to_string()).await);
    }
    for master in 0..cluster.masters().len() {
        assert!(masters.contains(&master), "anomalies on every master");
    }
    masters
}

/// A write as its caller sees it.
struct Write {
    anomaly: usize,
    is_degraded: bool,
    /// Number of writes of all callers that were answered before it.
    position: usize,
}

/// Callers that write without a pause, each round over all anomalies.
struct Load {
    must_end: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    callers: JoinSet<Vec<Write>>,
}

impl Load {
    fn begin(service: &Arc<Service>) -> Self {
        let must_end = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let (service, must_end) = (Arc::clone(service), Arc::clone(&must_end));
            let answered = Arc::clone(&answered);
            callers.spawn(async move {
                let mut writes = Vec::new();
                while !must_end.load(Ordering::Relaxed) {
                    let anomaly = (writes.len() + caller) % ANOMALIES;
                    let body = json!({"alert_name": name(anomaly)});
                    let answer = service.post("/anomalies", &body).await;
                    assert!(answer.status.is_success(), "{} {}", answer.status, answer.body);
                    let is_degraded = answer.body["degraded"] == true;
                    assert_eq!(answer.status == 202, is_degraded);
                    let position = answered.fetch_add(1, Ordering::Relaxed);
                    writes.push(Write { anomaly, is_degraded, position });
                }
                writes
            });
        }
        Self { must_end, answered, callers }
    }

    /// Returns the number of writes that were answered so far.
    fn position(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until each caller has written each anomaly about once more.
    async fn goes_on(&self) {
        let enough = self.position() + ANOMALIES * CALLERS;
        eventually("the callers go on", || async { (self.position() > enough).then_some(()) })
            .await;
    }

    async fn end(self) -> Vec<Write> {
        self.must_end.store(true, Ordering::Relaxed);
        self.callers.join_all().await.into_iter().flatten().collect()
    }
}

async fn every_write_is_counted_once(service: &Service, writes: &[Write]) {
    for anomaly in 0..ANOMALIES {
        let sent = writes.iter().filter(|write| write.anomaly == anomaly).count();
        let path = format!("/anomalies/{}/frequency", key_of(&name(anomaly)));
        let read = service.get(&path).await.ok();
        assert_eq!(read["count_1h"], sent, "{}", name(anomaly));
        assert_eq!(read["degraded"], false);
    }
}

#[tokio::test]
async fn all_of_an_anomalys_keys_share_a_slot() {
    let cluster = RedisCluster::of_masters(3).await;
    let service = Service::with(&[("REDIS__URL", &cluster.url())]).await;
    for anomaly in 0..ANOMALIES {
        let key = key_of(&name(anomaly)).to_string();
        service.post("/anomalies", &json!({"alert_name": name(anomaly)})).await.ok();
        let repair = json!({"anomaly_key": key, "action": "restart", "success": true});
        service.post("/repairs", &repair).await.ok();
        let fix = json!({"anomaly_key": key, "fix_description": "raised the limit"});
        service.put("/permanent-fix", &fix).await.ok();
        let known = service.get(&format!("/anomalies/{key}")).await.ok();
        assert_eq!(known["frequency"]["auto_repair_count"], 1);
        let master = cluster.master_of(&cluster.masters()[0].client().await, &key).await;
        let client = cluster.masters()[master].client().await;
        let mut names = client.texts(&["KEYS", &format!("*{key}*")]).await;
        names.sort();
        let kinds = [
            "audit",
            "metadata",
            "operation_ids",
            "permanent_fix",
            "repair_count",
            "repair_history",
            "timeline",
        ];
        assert_eq!(names, kinds.map(|kind| format!("anomaly:{kind}:{{{key}}}")));
    }
    // An array of all of them is answered in its order.
    let array: Vec<_> =
        (0..ANOMALIES).map(|anomaly| json!({"alert_name": name(anomaly)})).collect();
    let answers = service.post("/anomalies", &json!(array)).await.ok();
    for anomaly in 0..ANOMALIES {
        assert_eq!(answers[anomaly]["anomaly_key"], key_of(&name(anomaly)).to_string());
        assert_eq!(answers[anomaly]["count_1h"], 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_lost_for_good_degrades_only_its_own_anomalies_until_its_replica_takes_over() {
    let mut cluster = RedisCluster::with_replicas(3).await;
    let masters = masters_of(&cluster).await;
    let service = on(&cluster).await;
    let load = Load::begin(&service);
    load.goes_on().await;
    cluster.node(1).kill();
    let replica = cluster.node(4).client().await;
    let lost_at = load.position();
    promoted(&replica).await;
    let promoted_at = load.position();
    healthy_again(&service).await;
    load.goes_on().await;
    let writes = load.end().await;
    healthy_again(&service).await;

    every_write_is_counted_once(&service, &writes).await;
    let (lost, others): (Vec<&Write>, Vec<&Write>) =
        writes.iter().partition(|write| masters[write.anomaly] == 1);
    assert!(lost.iter().any(|write| write.is_degraded), "the outage was seen");
    assert!(!others.iter().any(|write| write.is_degraded), "the others were never degraded");
    // Callers take turns through all anomalies: if they had to wait for the lost master, all of
    // them would stop.
    let meanwhile = lost_at..promoted_at;
    let went_on = |writes: &[&Write]| {
        writes.iter().filter(|write| meanwhile.contains(&write.position)).count()
    };
    assert!(went_on(&lost) > CALLERS, "{meanwhile:?}");
    assert!(went_on(&others) > CALLERS, "{meanwhile:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_a_lost_master_had_not_replicated_are_sent_again_to_its_replica() {
    let mut cluster = RedisCluster::with_replicas(3).await;
    let masters = masters_of(&cluster).await;
    let service = on(&cluster).await;
    let anomaly = masters.iter().position(|master| *master == 2).unwrap();
    let alert = json!({"alert_name": name(anomaly)});
    // From here on the replica receives nothing: acknowledged writes are on the master alone.
    cluster.node(5).pause();
    for count in 1..=35 {
        let answer = service.post("/anomalies", &alert).await.ok();
        assert_eq!(answer["count_1h"], count);
        assert_eq!(answer["degraded"], false);
    }
    cluster.node(2).kill();
    cluster.node(5).resume();
    let during = service.post("/anomalies", &alert).await;
    assert_eq!(during.status, 202, "{}", during.body);
    let key = key_of(&name(anomaly));
    let timeline = format!("anomaly:timeline:{{{key}}}");
    let replica = cluster.node(5).client().await;
    promoted(&replica).await;
    eventually("the replica has all of it", || async {
        (replica.number(&["ZCARD", &timeline]).await == 36).then_some(())
    })
    .await;
    healthy_again(&service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_a_lost_master_had_not_replicated_survive_a_restart_of_the_service() {
    let mut cluster = RedisCluster::with_replicas(3).await;
    let masters = masters_of(&cluster).await;
    let mut service = Service::with(&[("REDIS__URL", &cluster.url_of_all())]).await;
    let of_master = |master| masters.iter().position(|m| *m == master).unwrap();
    let (lost, other) = (of_master(2), of_master(0));
    cluster.node(5).pause();
    for anomaly in [lost, other] {
        for _ in 0..30 {
            service.post("/anomalies", &json!({"alert_name": name(anomaly)})).await.ok();
        }
    }
    cluster.node(2).kill();
    let during = service.post("/anomalies", &json!({"alert_name": name(lost)})).await;
    assert_eq!(during.status, 202, "{}", during.body);
    service.terminate();
    assert!(service.ended_well().await, "{}", service.log());
    let service = service.successor().await;
    cluster.node(5).resume();
    promoted(&cluster.node(5).client().await).await;
    healthy_again(&service).await;
    for (anomaly, expected) in [(lost, 31), (other, 30)] {
        let path = format!("/anomalies/{}/frequency", key_of(&name(anomaly)));
        let frequency = service.get(&path).await.ok();
        assert_eq!(frequency["count_1h"], expected, "{}", service.log());
        assert_eq!(frequency["degraded"], false);
    }
}

async fn promoted(replica: &OtherClient) {
    eventually("the replica is promoted", || async {
        let info = replica.text(&["INFO", "replication"]).await?;
        info.contains("role:master").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_hangs_and_comes_back_as_a_replica_loses_nothing() {
    let mut cluster = RedisCluster::with_replicas(3).await;
    let masters = masters_of(&cluster).await;
    let service = on(&cluster).await;
    let load = Load::begin(&service);
    load.goes_on().await;
    cluster.node(0).pause();
    let replica = cluster.node(3).client().await;
    promoted(&replica).await;
    healthy_again(&service).await;
    cluster.node(0).resume();
    let resumed = cluster.node(0).client().await;
    eventually("the master that stood still is a replica", || async {
        let info = resumed.text(&["INFO", "replication"]).await?;
        info.contains("role:slave").then_some(())
    })
    .await;
    load.goes_on().await;
    let writes = load.end().await;
    healthy_again(&service).await;
    every_write_is_counted_once(&service, &writes).await;
    let others = writes.iter().filter(|write| masters[write.anomaly] != 0);
    assert!(!others.clone().any(|write| write.is_degraded), "the others were never degraded");
}

/// A slot that moves from one server to another.
struct MovingSlot {
    slot: String,
    source: OtherClient,
    target: OtherClient,
    target_id: String,
    target_port: String,
}

impl MovingSlot {
    async fn begin(slot: &str, source: &RedisServer, target: &RedisServer) -> Self {
        let target_port = target.port().to_string();
        let (source, target) = (source.client().await, target.client().await);
        let source_id = source.text(&["CLUSTER", "MYID"]).await.unwrap();
        let target_id = target.text(&["CLUSTER", "MYID"]).await.unwrap();
        target.run(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &source_id]).await;
        source.run(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &target_id]).await;
        Self { slot: slot.to_owned(), source, target, target_id, target_port }
    }

    /// Moves up to `count` keys, and returns whether there were any.
    async fn move_keys(&self, count: &str) -> bool {
        let names = self.source.texts(&["CLUSTER", "GETKEYSINSLOT", &self.slot, count]).await;
        for name in &names {
            let to = ["MIGRATE", "127.0.0.1", &self.target_port, name, "0", "1000"];
            self.source.run(&to).await;
        }
        !names.is_empty()
    }

    async fn end(self) {
        for client in [&self.target, &self.source] {
            client.run(&["CLUSTER", "SETSLOT", &self.slot, "NODE", &self.target_id]).await;
        }
    }
}

/// Moves all keys of a slot, one at a time. Meanwhile some are on each side, and for a while all
/// are on the target, although the source still serves the slot.
async fn move_slot(slot: &str, source: &RedisServer, target: &RedisServer) {
    let moving = MovingSlot::begin(slot, source, target).await;
    while moving.move_keys("1").await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    moving.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_that_move_degrade_at_most_their_own_anomalies() {
    let cluster = RedisCluster::with_a_newcomer(3).await;
    let masters = masters_of(&cluster).await;
    let service = on(&cluster).await;
    let load = Load::begin(&service);
    load.goes_on().await;
    let client = cluster.masters()[0].client().await;
    for anomaly in (0..ANOMALIES).filter(|anomaly| masters[*anomaly] == 0) {
        let key = key_of(&name(anomaly)).to_string();
        let slot = client.number(&["CLUSTER", "KEYSLOT", &key]).await.to_string();
        move_slot(&slot, &cluster.masters()[0], cluster.newcomer()).await;
    }
    healthy_again(&service).await;
    let writes = load.end().await;
    every_write_is_counted_once(&service, &writes).await;
    let others = writes.iter().filter(|write| masters[write.anomaly] != 0);
    assert!(!others.clone().any(|write| write.is_degraded), "the others were never degraded");
    let log = service.log();
    assert!(!log.contains("does not answer"), "a slot that moves is no outage: {log}");
}

#[tokio::test]
async fn a_probe_follows_slots_that_have_moved_without_a_write() {
    let cluster = RedisCluster::with_a_newcomer(3).await;
    let service = on(&cluster).await;
    service.get("/readyz").await.ok();
    let (source, target) = (&cluster.masters()[0], cluster.newcomer());
    let client = source.client().await;
    // The probe's keys have small numbers in braces.
    for tag in 0..40 {
        if cluster.master_of(&client, &tag.to_string()).await == 0 {
            let slot = client.number(&["CLUSTER", "KEYSLOT", &tag.to_string()]).await;
            let moving = MovingSlot::begin(&slot.to_string(), source, target).await;
            moving.move_keys("100").await;
            moving.end().await;
        }
    }
    assert_eq!(service.get("/readyz").await.ok()["status"], "ready");
    assert!(!service.log().contains("does not answer"), "{}", service.log());
}

#[tokio::test]
async fn an_anomaly_with_all_its_keys_is_written_by_ask_redirects_while_its_slot_moves() {
    let cluster = RedisCluster::with_a_newcomer(3).await;
    let masters = masters_of(&cluster).await;
    // With so few exact events the keys of rolled-up events exist too.
    let options =
        [("REDIS__URL", cluster.url_of_all()), ("TIMELINE__EXACT_EVENTS", "2".to_owned())];
    let options = options.each_ref().map(|(name, value)| (*name, value.as_str()));
    let service = Service::with(&options).await;
    let anomaly = masters.iter().position(|master| *master == 0).unwrap();
    let (alert, key) = (json!({"alert_name": name(anomaly)}), key_of(&name(anomaly)).to_string());
    for _ in 0..4 {
        service.post("/anomalies", &alert).await.ok();
    }
    let repair = json!({"anomaly_key": key, "action": "restart", "success": true});
    service.post("/repairs", &repair).await.ok();
    let fix = json!({"anomaly_key": key, "fix_description": "raised the limit"});
    service.put("/permanent-fix", &fix).await.ok();

    let source = &cluster.masters()[0];
    let slot = source.client().await.number(&["CLUSTER", "KEYSLOT", &key]).await.to_string();
    let moving = MovingSlot::begin(&slot, source, cluster.newcomer()).await;
    moving.move_keys("100").await;
    // The target has all keys, and the source still serves the slot: each write is redirected by
    // ASK.
    for count in 5..8 {
        let answer = service.post("/anomalies", &alert).await.ok();
        assert_eq!(answer["count_1h"], count);
        assert_eq!(answer["degraded"], false);
    }
    moving.end().await;
    assert_eq!(service.post("/anomalies", &alert).await.ok()["count_1h"], 8);
}

#[tokio::test]
async fn a_server_that_comes_back_without_its_cluster_is_not_trusted() {
    let mut cluster = RedisCluster::of_masters(3).await;
    let masters = masters_of(&cluster).await;
    let service = on(&cluster).await;
    // The first server of the URL has lost everything.
    cluster.node(0).restart_empty();
    let alert = |anomaly: usize| json!({"alert_name": name(anomaly)});
    let degraded = masters.iter().position(|master| *master == 0).unwrap();
    assert_eq!(service.post("/anomalies", &alert(degraded)).await.status, 202);
    tokio::time::sleep(Duration::from_secs(1)).await;
    for anomaly in (0..ANOMALIES).filter(|anomaly| masters[*anomaly] != 0) {
        service.post("/anomalies", &alert(anomaly)).await.ok();
    }
    let service = Service::with(&[("REDIS__URL", &cluster.url_of_all())]).await;
    for anomaly in (0..ANOMALIES).filter(|anomaly| masters[*anomaly] != 0) {
        service.post("/anomalies", &alert(anomaly)).await.ok();
    }
}

#[tokio::test]
async fn a_cluster_that_is_unavailable_at_the_start_is_found_later() {
    let mut cluster = RedisCluster::of_masters(3).await;
    for node in 0..3 {
        cluster.node(node).kill();
    }
    let service = on(&cluster).await;
    for anomaly in 0..ANOMALIES {
        let answer = service.post("/anomalies", &json!({"alert_name": name(anomaly)})).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
    }
    for node in 0..3 {
        cluster.node(node).restart();
    }
    healthy_again(&service).await;
    for anomaly in 0..ANOMALIES {
        let path = format!("/anomalies/{}/frequency", key_of(&name(anomaly)));
        assert_eq!(service.get(&path).await.ok()["count_1h"], 1);
    }
}
