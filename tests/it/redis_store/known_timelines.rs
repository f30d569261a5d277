//! The answers that a store on Redis gives from remembered timelines equal those after reading
//! everything: with random writes through two instances, an older writer beside them, restarts, and
//! deletions of keys and events by hand.

use std::sync::Arc;

use anomaly_counter::{
    domain::{Action, AnomalyKey, AnomalyStats, EventId, Moment, RepairAttempt, Timestamp},
    store::{RecordOutcome, Recorded, Store},
};
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    runtime::Runtime,
};

use crate::support::{
    EXACT_EVENTS, OtherClient, RedisServer, actor, connect, fix_mark, fix_removal, keeping,
    occurrence, start_of_tests,
};

const ANOMALIES: u64 = 3;
const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400;
/// The timeline of the anomaly 1.
const TIMELINE: &str = "anomaly:timeline:0000000000000001";

#[derive(Clone, Debug)]
enum Step {
    /// A batch through one of the instances: anomaly, id, microseconds before now.
    Record(usize, Vec<(u64, u16, i64)>),
    /// The older writer adds an event: anomaly, microseconds before now.
    OlderWriter(u64, i64),
    /// The older writer removes events that are older than 30 days.
    OlderWriterPrunes(u64),
    /// Somebody deletes a key of an anomaly.
    Delete(u64, &'static str),
    /// Somebody removes the event of this rank.
    RemoveEvent(u64, i64),
    Repair(usize, u64),
    Mark(usize, u64),
    Unmark(usize, u64),
    Forget(usize, u64),
    /// Moves the clock forward, in microseconds.
    Wait(i64),
    Restart(usize),
    /// Reads all anomalies through one of the instances.
    Read(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let anomaly = 0..ANOMALIES;
    let instance = 0..2_usize;
    let ages = || {
        prop_oneof![
            8 => Just(0),
            2 => -2 * SECOND..5 * SECOND,
            1 => 0..2 * DAY * SECOND,
            1 => 0..32 * DAY * SECOND,
        ]
    };
    let wait = prop_oneof![
        12 => 0..2 * SECOND,
        2 => 0..2 * 3_600 * SECOND,
        1 => 0..8 * DAY * SECOND,
    ];
    let kinds = vec!["timeline", "metadata", "permanent_fix", "repair_count"];
    let event = (0..ANOMALIES, any::<u16>(), ages());
    prop_oneof![
        24 => (instance.clone(), vec(event, 1..4)).prop_map(|(i, batch)| Step::Record(i, batch)),
        4 => (anomaly.clone(), ages()).prop_map(|(a, age)| Step::OlderWriter(a, age)),
        1 => anomaly.clone().prop_map(Step::OlderWriterPrunes),
        2 => (anomaly.clone(), prop::sample::select(kinds))
            .prop_map(|(a, kind)| Step::Delete(a, kind)),
        2 => (anomaly.clone(), -1..2_i64).prop_map(|(a, rank)| Step::RemoveEvent(a, rank)),
        1 => (instance.clone(), anomaly.clone()).prop_map(|(i, a)| Step::Repair(i, a)),
        1 => (instance.clone(), anomaly.clone()).prop_map(|(i, a)| Step::Mark(i, a)),
        1 => (instance.clone(), anomaly.clone()).prop_map(|(i, a)| Step::Unmark(i, a)),
        1 => (instance.clone(), anomaly).prop_map(|(i, a)| Step::Forget(i, a)),
        8 => wait.prop_map(Step::Wait),
        1 => instance.clone().prop_map(Step::Restart),
        8 => instance.prop_map(Step::Read),
    ]
}

/// Two instances on the same servers, and an observer that reads the details of anomalies, and so
/// everything.
struct Instances {
    url: String,
    both: [Arc<dyn Store>; 2],
    observer: Arc<dyn Store>,
}

impl Instances {
    async fn on(url: String) -> Self {
        let store = || connect(&url, keeping(EXACT_EVENTS));
        let (both, observer) = ([store().await, store().await], store().await);
        Self { url, both, observer }
    }

    async fn restart(&mut self, instance: usize) {
        self.both[instance].close().await;
        self.both[instance] = connect(&self.url, keeping(EXACT_EVENTS)).await;
    }

    /// Reads anomalies in full.
    async fn observe(&self, now: Moment, keys: &[AnomalyKey]) -> Vec<Option<AnomalyStats>> {
        let mut observed = Vec::new();
        for key in keys {
            let details = self.observer.details(now, *key).await.unwrap();
            observed.push(details.map(|details| details.stats));
        }
        observed
    }

    /// Reads all anomalies, and compares the answers.
    async fn read(&self, instance: usize, now: Moment) {
        let observed = self.observe(now, &all_keys()).await;
        let read = self.both[instance].stats(now, all_keys()).await;
        for (read, observed) in read.into_iter().zip(&observed) {
            assert_same(read.unwrap().as_ref(), observed.as_ref());
        }
    }

    /// Records a batch, and compares each answer that is the last of its anomaly.
    async fn record(&self, instance: usize, now: Moment, batch: &[(u64, u16, i64)]) {
        let mut before = self.observe(now, &all_keys()).await;
        let occurrences = batch.iter().map(|(anomaly, id, age)| {
            let at = Timestamp::from_micros(now.now.as_micros() - age);
            occurrence(*anomaly, &format!("e{}", id % 2_000), at)
        });
        let occurrences: Vec<_> = occurrences.collect();
        let keys: Vec<_> = occurrences.iter().map(|occurrence| occurrence.key).collect();
        let recorded = self.both[instance].record(now, occurrences).await;
        let after = self.observe(now, &keys).await;
        for (index, (recorded, read)) in recorded.into_iter().zip(after).enumerate() {
            let recorded = recorded.unwrap();
            let is_last = !keys[index + 1..].contains(&keys[index]);
            if is_last {
                assert_same(Some(&recorded.stats), read.as_ref());
            }
            let (anomaly, _, age) = batch[index];
            let before = &mut before[usize::try_from(anomaly).unwrap()];
            compare_with_before(&recorded, before.as_ref(), age);
            *before = Some(recorded.stats);
        }
    }
}

/// A mark without a time is dated by its TTL in whole seconds, one of which may end between two
/// readings.
fn assert_same(stats: Option<&AnomalyStats>, observed: Option<&AnomalyStats>) {
    let (mut stats, observed) = (stats.cloned(), observed.cloned());
    if let (Some(stats), Some(observed)) = (&mut stats, &observed)
        && let (Some(at), Some(observed_at)) = (stats.fixed_at, observed.fixed_at)
        && (at.as_micros() - observed_at.as_micros()).abs() <= SECOND
    {
        stats.fixed_at = observed.fixed_at;
    }
    assert_eq!(stats, observed);
}

fn all_keys() -> Vec<AnomalyKey> {
    (0..ANOMALIES).map(AnomalyKey::from_bits).collect()
}

/// Compares an answer to an occurrence of so many microseconds ago with the stats before it: those
/// that a reader saw, or the answer to the occurrence before it in the batch.
fn compare_with_before(recorded: &Recorded, before: Option<&AnomalyStats>, age: i64) {
    let counted = recorded.outcome == RecordOutcome::Counted && age <= 30 * DAY * SECOND;
    let month = before.map_or(0, |stats| stats.counts.month) + u64::from(counted);
    assert_eq!(recorded.stats.counts.month, month);
    assert_eq!(recorded.previous_count_24h, before.map_or(0, |stats| stats.counts.day));
    if recorded.stats.fixed_at.is_some() {
        assert_eq!(recorded.previous_last_seen, before.and_then(|stats| stats.last_seen));
    }
}

/// Gives the steps to both instances, and to the other writers.
async fn run(instances: &mut Instances, other: &OtherClient, steps: &[Step]) {
    other.run(&["FLUSHALL"]).await;
    let mut micros = start_of_tests().as_micros();
    let name = |kind: &str, anomaly: &u64| format!("anomaly:{kind}:{anomaly:016x}");
    for (number, step) in steps.iter().enumerate() {
        let now = Timestamp::from_micros(micros);
        let id = EventId::parse(&format!("step-{number}")).unwrap();
        let score = |age: &i64| format!("{:.6}", (micros - age) as f64 / 1e6);
        match step {
            Step::Record(instance, batch) => {
                instances.record(*instance, now.into(), batch).await;
            }
            Step::OlderWriter(anomaly, age) => {
                let score = score(age);
                other.run(&["ZADD", &name("timeline", anomaly), &score, &score]).await;
            }
            Step::OlderWriterPrunes(anomaly) => {
                let start = score(&(30 * DAY * SECOND));
                let timeline = name("timeline", anomaly);
                other.run(&["ZREMRANGEBYSCORE", &timeline, "-inf", &format!("({start}")]).await;
            }
            Step::Delete(anomaly, kind) => {
                other.run(&["DEL", &name(kind, anomaly)]).await;
            }
            Step::RemoveEvent(anomaly, rank) => {
                let (timeline, rank) = (name("timeline", anomaly), rank.to_string());
                other.run(&["ZREMRANGEBYRANK", &timeline, &rank, &rank]).await;
            }
            Step::Repair(instance, anomaly) => {
                let (key, action) = (AnomalyKey::from_bits(*anomaly), "restart_pod");
                let action = Action::parse(action).unwrap();
                let attempt =
                    RepairAttempt { key, id, action, success: true, at: now, actor: actor() };
                instances.both[*instance].record_repairs(now.into(), vec![attempt]).await;
            }
            Step::Mark(instance, anomaly) => {
                let mark = fix_mark(*anomaly, id.as_str(), now);
                instances.both[*instance].mark_fixed(now.into(), mark).await.unwrap();
            }
            Step::Unmark(instance, anomaly) => {
                let removal = fix_removal(*anomaly, id.as_str(), now);
                instances.both[*instance].unmark_fixed(now.into(), removal).await.unwrap();
            }
            Step::Forget(instance, anomaly) => {
                let key = AnomalyKey::from_bits(*anomaly);
                instances.both[*instance].forget(now.into(), key).await.unwrap();
            }
            Step::Wait(micros_more) => micros += micros_more,
            Step::Restart(instance) => instances.restart(*instance).await,
            Step::Read(instance) => instances.read(*instance, now.into()).await,
        }
        // No two batches are of the same microsecond.
        micros += 1;
    }
}

#[test]
fn remembered_timelines_change_no_answer() {
    let runtime = Runtime::new().unwrap();
    let server = RedisServer::start();
    let mut instances = runtime.block_on(Instances::on(server.url()));
    let other = runtime.block_on(server.client());
    let config = ProptestConfig { cases: 60, max_shrink_iters: 300, ..ProptestConfig::default() };
    let instances = std::cell::RefCell::new(&mut instances);
    TestRunner::new(config)
        .run(&vec(step(), 1..120), |steps| {
            runtime.block_on(run(&mut instances.borrow_mut(), &other, &steps));
            Ok(())
        })
        .unwrap();
}

/// Returns the number of keys of each script call that a server receives while `work` runs.
async fn keys_of_calls(server: &RedisServer, work: impl Future<Output = ()>) -> Vec<u32> {
    let mut monitor = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    monitor.write_all(b"MONITOR\r\n").await.unwrap();
    let mut lines = BufReader::new(monitor).lines();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "+OK");
    work.await;
    server.client().await.run(&["ECHO", "the end"]).await;
    let mut keys = Vec::new();
    loop {
        let line = lines.next_line().await.unwrap().unwrap();
        let words: Vec<&str> = line.split('"').collect();
        if words.contains(&"the end") {
            return keys;
        }
        if words.get(1) == Some(&"EVALSHA") {
            keys.push(words[5].parse().unwrap());
        }
    }
}

#[tokio::test]
async fn an_anomaly_whose_oldest_event_is_known_is_not_read_in_full() {
    let server = RedisServer::start();
    let store = connect(&server.url(), keeping(EXACT_EVENTS)).await;
    let now = start_of_tests();
    let record = |id: &'static str| {
        let store = Arc::clone(&store);
        async move {
            store.record(now.into(), vec![occurrence(1, id, now)]).await.pop().unwrap().unwrap()
        }
    };
    // The first ones teach the server the scripts.
    for id in ["a", "b"] {
        record(id).await;
    }
    let work = async {
        assert_eq!(record("c").await.stats.counts.month, 3);
        // A duplicate needs the other script.
        assert_eq!(record("c").await.stats.counts.month, 3);
        server.client().await.run(&["ZREM", TIMELINE, "a"]).await;
        assert_eq!(record("d").await.stats.counts.month, 3);
        assert_eq!(record("e").await.stats.counts.month, 4);
    };
    let keys = Box::pin(keys_of_calls(&server, work)).await;
    assert_eq!(keys, [5, 5, 7, 5, 7, 5]);

    let reader = connect(&server.url(), keeping(EXACT_EVENTS)).await;
    let read = || async {
        let stats = reader.stats(now.into(), vec![AnomalyKey::from_bits(1)]).await.pop().unwrap();
        stats.unwrap().unwrap().counts.month
    };
    // It learns from what it reads.
    assert_eq!((read().await, read().await), (4, 4));
    let work = async {
        assert_eq!(read().await, 4);
        server.client().await.run(&["ZREMRANGEBYRANK", TIMELINE, "0", "0"]).await;
        assert_eq!((read().await, read().await), (3, 3));
    };
    let keys = Box::pin(keys_of_calls(&server, work)).await;
    assert_eq!(keys, [5, 5, 8, 5]);
}
