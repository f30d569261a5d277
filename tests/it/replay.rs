//! The spool is replayed exactly once, whenever the process is killed.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Proxy, RedisServer, Service, Weather, eventually, healthy_again, key_of};

const WRITES: u64 = 3_000;
const ARRAY: u64 = 500;
/// The start of the ids of the last third of the occurrences.
const LATE: &str = "late-";
/// Rate of the replay: slow enough for a test to act meanwhile.
const REPLAY_PER_SECOND: &str = "1000";

/// Returns a service with `WRITES` occurrences in its spool, then a repair and a mark, and a Redis
/// that is back.
async fn with_a_full_spool() -> (RedisServer, Proxy, Service) {
    let mut redis = RedisServer::start();
    let proxy = Proxy::to(redis.port()).await;
    let options =
        [("REDIS__URL", &*proxy.url()), ("DEGRADED__REPLAY_PER_SECOND", REPLAY_PER_SECOND)];
    let service = Service::with(&options).await;
    redis.kill();
    for first in (0..WRITES).step_by(ARRAY as usize) {
        let array: Vec<Value> = (first..first + ARRAY)
            .map(|id| {
                let prefix = if id < WRITES / 3 * 2 { "early-" } else { LATE };
                let event_id = format!("{prefix}{id}");
                json!({"alert_name": format!("Alert{}", id % 3), "event_id": event_id})
            })
            .collect();
        assert_eq!(service.post("/anomalies", &json!(array)).await.status, 202);
    }
    let key = key_of("Alert0").to_string();
    let repair = json!({"anomaly_key": key, "action": "restart", "success": true});
    assert_eq!(service.post("/repairs", &repair).await.status, 202);
    let fix = json!({"anomaly_key": key, "fix_description": "raised the limit"});
    assert_eq!(service.put("/permanent-fix", &fix).await.status, 202);
    redis.restart();
    (redis, proxy, service)
}

async fn everything_is_counted_once(redis: &RedisServer, service: &Service) {
    healthy_again(service).await;
    for anomaly in 0..3 {
        let path = format!("/anomalies/{}", key_of(&format!("Alert{anomaly}")));
        let known = service.get(&path).await.ok();
        assert_eq!(known["frequency"]["count_1h"], WRITES / 3);
        let repairs = u64::from(anomaly == 0);
        assert_eq!(known["frequency"]["auto_repair_count"], repairs);
        assert_eq!(known["frequency"]["permanent_fix_applied"], anomaly == 0);
    }
    let timeline = format!("anomaly:timeline:{}", key_of("Alert0"));
    let counted = redis.client().await.number(&["ZCARD", &timeline]).await;
    assert_eq!(counted, i64::try_from(WRITES / 3).unwrap());
}

async fn waiting(service: &Service) -> u64 {
    service.get("/readyz").await.ok()["spool"]["operations"].as_u64().unwrap()
}

#[tokio::test]
async fn a_replay_that_is_killed_again_and_again_counts_everything_once() {
    let (redis, _proxy, mut service) = with_a_full_spool().await;
    let mut was_within = 0;
    for pause_ms in [0, 10, 40, 90, 120, 60, 30, 150] {
        service = service.restart().await;
        eventually("it has begun", || async {
            (pause_ms == 0 || waiting(&service).await < WRITES + 2).then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        was_within += u64::from((1..WRITES).contains(&waiting(&service).await));
    }
    assert!(was_within > 2, "killed within the replay {was_within} times");
    let service = service.restart().await;
    everything_is_counted_once(&redis, &service).await;
}

#[tokio::test]
async fn a_replay_that_is_killed_before_its_answer_counts_everything_once() {
    let (redis, proxy, service) = with_a_full_spool().await;
    eventually("it is well under way", || async {
        (waiting(&service).await < WRITES - 600).then_some(())
    })
    .await;
    // From here on Redis applies the first page of late occurrences, and the service does not get
    // the reply. (If others were lost too, one between two pages might be the reason that no page
    // follows: early occurrences may be sent again after a connection was reset.)
    proxy.set(Weather::NoRepliesTo(LATE));
    let other = redis.client().await;
    eventually("Redis has applied more than it could say", || async {
        let mut applied = 0;
        for anomaly in 0..3 {
            let timeline = format!("anomaly:timeline:{}", key_of(&format!("Alert{anomaly}")));
            applied += other.number(&["ZCARD", &timeline]).await;
        }
        let answered = WRITES + 2 - waiting(&service).await;
        (u64::try_from(applied).unwrap() > answered).then_some(())
    })
    .await;
    let service = service.restart().await;
    proxy.set(Weather::Fair);
    everything_is_counted_once(&redis, &service).await;
}

#[tokio::test]
async fn new_calls_are_served_during_a_long_replay() {
    let (_redis, _proxy, service) = with_a_full_spool().await;
    eventually("it has begun", || async { (waiting(&service).await < WRITES).then_some(()) }).await;
    // An anomaly without waiting writes goes to Redis directly; one with waiting writes queues.
    let fresh = service.post("/anomalies", &json!({"alert_name": "Fresh"})).await;
    assert_eq!(fresh.status, 200);
    assert_eq!(fresh.body["count_1h"], 1);
    let queued = service.post("/anomalies", &json!({"alert_name": "Alert1"})).await;
    assert_eq!(queued.status, 202);
    // Callers have given the ids, so the waiting writes may be the same that Redis has: the larger
    // of the two numbers is answered, which is no less than half of all.
    let (all, count) = (WRITES / 3, queued.body["count_1h"].as_u64().unwrap());
    assert!((all / 2 + 1..=all + 1).contains(&count), "{count}");
    healthy_again(&service).await;
}

#[tokio::test]
async fn a_mark_that_has_waited_does_not_undo_later_changes_by_another_instance() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.port()).await;
    let cut_off = Service::with(&[("REDIS__URL", &proxy.url())]).await;
    let other = Service::on_redis(&redis).await;
    let key = key_of("HighCPU");
    other.post("/anomalies", &json!({"alert_name": "HighCPU"})).await.ok();
    proxy.set(Weather::BlackHole);
    let fix = json!({"anomaly_key": key.to_string(), "fix_description": "raised the limit"});
    assert_eq!(cut_off.put("/permanent-fix", &fix).await.status, 202);
    other.put("/permanent-fix", &fix).await.ok();
    other.delete(&format!("/permanent-fix/{key}")).await.ok();
    proxy.set(Weather::Fair);
    healthy_again(&cut_off).await;
    let read = other.get(&format!("/anomalies/{key}/frequency")).await.ok();
    assert_eq!(read["permanent_fix_applied"], false);
    // A later mark holds.
    cut_off.put("/permanent-fix", &fix).await.ok();
    let read = other.get(&format!("/anomalies/{key}/frequency")).await.ok();
    assert_eq!(read["permanent_fix_applied"], true);
}

#[tokio::test]
async fn large_writes_are_replayed_in_calls_of_a_bounded_size() {
    let mut redis = RedisServer::start_with(&["--client-query-buffer-limit", "1500000"]);
    let options = [("REDIS__URL", &redis.url()[..]), ("ANOMALY__MAX_METADATA_BYTES", "1000000")];
    let service = Service::with(&options).await;
    service.post("/anomalies", &json!({"alert_name": "Large0"})).await.ok();
    redis.kill();
    let pad = "x".repeat(900_000);
    for number in 0..25 {
        let name = format!("Large{}", number % 5);
        let answer = service.post("/anomalies", &json!({"alert_name": name, "pad": pad})).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
    }
    redis.restart();
    healthy_again(&service).await;
    for (number, expected) in [(0, 6), (1, 5), (4, 5)] {
        let path = format!("/anomalies/{}/frequency", key_of(&format!("Large{number}")));
        let frequency = service.get(&path).await.ok();
        // The writes that were acknowledged before are sent again.
        assert_eq!(frequency["count_1h"], expected, "{number}");
    }
    assert!(service.memory_bytes("VmHWM:") < 150 << 20, "{}", service.memory_bytes("VmHWM:"));
}

/// The network holds the call back, and delivers it when its caller has given it up.
#[tokio::test]
async fn a_mark_that_arrives_late_does_not_undo_a_later_removal_by_another_instance() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.port()).await;
    let slow = Service::with(&[("REDIS__URL", &proxy.url())]).await;
    let other = Service::on_redis(&redis).await;
    let key = key_of("HighCPU");
    other.post("/anomalies", &json!({"alert_name": "HighCPU"})).await.ok();
    let fix = json!({"anomaly_key": key.to_string(), "fix_description": "raised the limit"});
    // From here on Redis knows the scripts.
    other.put("/permanent-fix", &fix).await.ok();
    other.delete(&format!("/permanent-fix/{key}")).await.ok();
    let delay = Duration::from_secs(2);
    proxy.set(Weather::Slow(delay));
    assert_eq!(slow.put("/permanent-fix", &fix).await.status, 202);
    other.put("/permanent-fix", &fix).await.ok();
    other.delete(&format!("/permanent-fix/{key}")).await.ok();
    proxy.set(Weather::Fair);
    tokio::time::sleep(delay).await;
    healthy_again(&slow).await;
    let read = other.get(&format!("/anomalies/{key}/frequency")).await.ok();
    assert_eq!(read["permanent_fix_applied"], false);
}
