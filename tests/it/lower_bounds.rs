//! Estimates against a naive model under concurrency: while Redis applies writes and its replies
//! are lost, no answer has more than was posted until then, each id once; and in the end everything
//! counts.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use crate::support::{Proxy, RedisCluster, RedisServer, Service, Weather, healthy_again, key_of};

const ANOMALIES: usize = 4;
const CALLERS: usize = 8;

fn name(anomaly: usize) -> String {
    format!("Alert{anomaly}")
}

/// The posted occurrences of one anomaly.
#[derive(Debug, Default)]
struct Posted {
    event_ids: HashSet<u64>,
    events_without_id: u64,
    repair_ids: HashSet<u64>,
    repairs_without_id: u64,
}

impl Posted {
    fn events(&self) -> u64 {
        self.event_ids.len() as u64 + self.events_without_id
    }

    fn repairs(&self) -> u64 {
        self.repair_ids.len() as u64 + self.repairs_without_id
    }
}

#[derive(Debug, Default)]
struct Model {
    posted: [Mutex<Posted>; ANOMALIES],
    estimates: Mutex<u64>,
}

impl Model {
    /// Checks an answer that has just arrived.
    fn check(&self, anomaly: usize, answer: &Value) {
        let posted = self.posted[anomaly].lock().unwrap();
        if let Some(count) = answer["count_24h"].as_u64() {
            assert!(count <= posted.events(), "{count} of {}: {answer}", posted.events());
        }
        if let Some(count) = answer["auto_repair_count"].as_u64() {
            assert!(count <= posted.repairs(), "{count} of {}: {answer}", posted.repairs());
        }
        if let Some(attempts) = answer["attempts"].as_array() {
            let (count, most) = (attempts.len() as u64, posted.repairs().min(100));
            assert!(count <= most, "{count} attempts of {most}");
        }
        *self.estimates.lock().unwrap() += u64::from(answer["degraded"] == true);
    }
}

/// Writes and reads without a pause. Each of the numbers that stand for ids is used several times.
async fn call(service: &Service, model: &Model, caller: u64, must_end: &AtomicBool) {
    let mut random = caller * 7_919 + 1;
    while !must_end.load(Ordering::Relaxed) {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let draw = random >> 33;
        let anomaly = (draw % ANOMALIES as u64) as usize;
        let (kind, id) = (draw / 16 % 8, draw / 128 % 400);
        let key = key_of(&name(anomaly)).to_string();
        let answer = match kind {
            0..=2 => {
                model.posted[anomaly].lock().unwrap().events_without_id += 1;
                service.post("/anomalies", &json!({"alert_name": name(anomaly)})).await
            }
            3..=4 => {
                model.posted[anomaly].lock().unwrap().event_ids.insert(id);
                let event = json!({"alert_name": name(anomaly), "event_id": id.to_string()});
                service.post("/anomalies", &event).await
            }
            5 => {
                let with_id = id % 2 == 0;
                let mut repair = json!({"anomaly_key": key, "action": "a", "success": id % 3 == 0});
                {
                    let mut posted = model.posted[anomaly].lock().unwrap();
                    match with_id {
                        true => {
                            posted.repair_ids.insert(id);
                            repair["event_id"] = id.to_string().into();
                        }
                        false => posted.repairs_without_id += 1,
                    }
                }
                service.post("/repairs", &repair).await
            }
            6 => service.get(&format!("/anomalies/{key}/frequency")).await,
            _ => service.get(&format!("/anomalies/{key}/repairs")).await,
        };
        let is_read = kind >= 6;
        assert!(answer.status.is_success() || is_read && answer.status == 503, "{answer:?}");
        model.check(anomaly, &answer.body);
    }
}

/// Lets callers write and read while `trouble` lasts. In the end, everything counts once.
async fn check(service: Service, trouble: impl Future<Output = ()>) {
    // On a busy machine it may listen before it has reached Redis.
    healthy_again(&service).await;
    let (service, model) = (Arc::new(service), Arc::new(Model::default()));
    for anomaly in 0..ANOMALIES {
        model.posted[anomaly].lock().unwrap().events_without_id += 1;
        service.post("/anomalies", &json!({"alert_name": name(anomaly)})).await.ok();
    }
    let must_end = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (service, model) = (Arc::clone(&service), Arc::clone(&model));
        let must_end = Arc::clone(&must_end);
        callers.spawn(async move { call(&service, &model, caller as u64, &must_end).await });
    }
    trouble.await;
    must_end.store(true, Ordering::Relaxed);
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
    healthy_again(&service).await;
    for anomaly in 0..ANOMALIES {
        let path = format!("/anomalies/{}/frequency", key_of(&name(anomaly)));
        let frequency = service.get(&path).await.ok();
        let posted = model.posted[anomaly].lock().unwrap();
        assert_eq!(frequency["count_24h"], posted.events());
        assert_eq!(frequency["auto_repair_count"], posted.repairs());
        assert_eq!(frequency["degraded"], false);
    }
    let estimates = *model.estimates.lock().unwrap();
    assert!(estimates > 100, "{estimates} estimates");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_estimate_is_too_high_while_redis_applies_writes_and_replies_are_lost() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.port()).await;
    let options = [
        ("REDIS__URL", &*proxy.url()),
        ("REDIS__COMMAND_TIMEOUT_MS", "100"),
        ("DEGRADED__REPLAY_PER_SECOND", "2000"),
    ];
    let service = Service::with(&options).await;
    check(service, async {
        for round in 0..8 {
            sleep(Duration::from_millis(400)).await;
            proxy.set(Weather::NoReplies);
            sleep(Duration::from_millis(150 + 100 * round)).await;
            if round % 2 == 0 {
                proxy.set(Weather::BlackHole);
                sleep(Duration::from_millis(200)).await;
            }
            proxy.set(Weather::Fair);
            proxy.cut();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_estimate_is_too_high_while_a_master_of_a_cluster_hangs() {
    let mut cluster = RedisCluster::of_masters(3).await;
    let url = cluster.url_of_all();
    let options = [("REDIS__URL", &*url), ("REDIS__COMMAND_TIMEOUT_MS", "100")];
    let service = Service::with(&options).await;
    check(service, async {
        for round in 0..6 {
            sleep(Duration::from_millis(400)).await;
            // Writes that were sent to it are applied when it continues.
            cluster.node(round % 3).pause();
            sleep(Duration::from_millis(500)).await;
            cluster.node(round % 3).resume();
        }
    })
    .await;
}
