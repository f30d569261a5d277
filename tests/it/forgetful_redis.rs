//! A Redis that has lost acknowledged writes: those that are still known are sent again, also by
//! the next process, and only then; a loss is reported.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    OtherClient, RedisServer, Service, eventually, healthy_again, key_of, metric, wall_clock,
};

const WRITES: u64 = 200;

async fn post_all(service: &Service, status: u16) {
    for name in ["Alert0", "Alert1"] {
        let array: Vec<Value> = (0..WRITES / 2)
            .map(|id| json!({"alert_name": name, "event_id": format!("{status}-{id}")}))
            .collect();
        assert_eq!(service.post("/anomalies", &json!(array)).await.status, status);
    }
}

async fn becomes(service: &Service, name: &str, expected: u64) {
    let path = format!("/anomalies/{}/frequency", key_of(name));
    eventually(&format!("{name} is counted {expected} times"), || async {
        let body = service.get(&path).await.body;
        (body["degraded"] == false && body["count_1h"] == expected).then_some(())
    })
    .await;
}

async fn counts_are(service: &Service, expected: u64) {
    for name in ["Alert0", "Alert1"] {
        becomes(service, name, expected).await;
    }
}

async fn resent(service: &Service) -> f64 {
    metric(service, "anomaly_counter_resent_operations_total").await
}

/// Writes 200 events, then 200 that wait, and ends the service by `end` during the outage. Redis
/// comes back empty.
async fn restarted_in_an_outage(end: impl AsyncFnOnce(&mut Service)) {
    let mut redis = RedisServer::start();
    let mut service = Service::on_redis(&redis).await;
    post_all(&service, 200).await;
    redis.kill();
    post_all(&service, 202).await;
    end(&mut service).await;
    let service = service.successor().await;
    redis.restart();
    healthy_again(&service).await;
    counts_are(&service, WRITES).await;
}

#[tokio::test]
async fn acknowledged_writes_survive_a_sigterm_in_an_outage() {
    restarted_in_an_outage(async |service: &mut Service| {
        service.terminate();
        assert!(service.ended_well().await);
    })
    .await;
}

#[tokio::test]
async fn acknowledged_writes_survive_a_kill_9_in_an_outage() {
    restarted_in_an_outage(async |service: &mut Service| {
        // The writes that are held when the breaker opens are on disk within a moment.
        tokio::time::sleep(Duration::from_millis(500)).await;
        service.kill();
    })
    .await;
}

#[tokio::test]
async fn acknowledged_writes_survive_a_restart_of_both() {
    let mut redis = RedisServer::start();
    let mut service = Service::on_redis(&redis).await;
    post_all(&service, 200).await;
    service.terminate();
    assert!(service.ended_well().await);
    redis.restart();
    let service = service.successor().await;
    counts_are(&service, WRITES / 2).await;
}

#[tokio::test]
async fn re_sent_writes_survive_a_second_failover_right_after_the_first() {
    let mut redis = RedisServer::start();
    let options = [("REDIS__URL", redis.url()), ("DEGRADED__REMEMBER_SECONDS", "7".to_owned())];
    let service = Service::with(&options.each_ref().map(|(name, value)| (*name, &value[..]))).await;
    post_all(&service, 200).await;
    let written_at = Instant::now();
    tokio::time::sleep(Duration::from_secs(5)).await;
    redis.restart();
    counts_are(&service, WRITES / 2).await;
    healthy_again(&service).await;
    // The first answers are too old by now to be sent again; those of the re-sent writes are not.
    tokio::time::sleep_until((written_at + Duration::from_millis(7_500)).into()).await;
    assert_eq!(service.post("/anomalies", &json!({"alert_name": "Other"})).await.status, 200);
    redis.restart();
    counts_are(&service, WRITES / 2).await;
}

#[tokio::test]
async fn nothing_is_sent_again_after_a_restart_of_the_service_alone() {
    let redis = RedisServer::start();
    let mut service = Service::on_redis(&redis).await;
    post_all(&service, 200).await;
    service.terminate();
    assert!(service.ended_well().await);
    let service = service.successor().await;
    counts_are(&service, WRITES / 2).await;
    // Within the interval of several probes.
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    assert_eq!(resent(&service).await, 0.0);
}

#[tokio::test]
async fn a_connection_that_breaks_is_no_reason_to_send_anything_again() {
    let redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    post_all(&service, 200).await;
    redis.client().await.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    eventually("it writes again", || async {
        let answer = service.post("/anomalies", &json!({"alert_name": "Other"})).await;
        (answer.status == 200).then_some(())
    })
    .await;
    healthy_again(&service).await;
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    assert_eq!(resent(&service).await, 0.0);
}

#[tokio::test]
async fn a_count_that_fell_is_reported_and_what_is_remembered_is_sent_again() {
    let redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    post_all(&service, 200).await;
    assert_eq!(metric(&service, "anomaly_counter_store_lost_writes_total").await, 0.0);
    redis.client().await.run(&["FLUSHALL"]).await;
    // The service notices the loss by the next answer about an anomaly.
    let path = format!("/anomalies/{}/frequency", key_of("Alert0"));
    assert_eq!(service.get(&path).await.status, 404);
    counts_are(&service, WRITES / 2).await;
    assert!(metric(&service, "anomaly_counter_store_lost_writes_total").await >= 1.0);
    eventually("it is in the log", || async {
        service.log().contains("the store has lost writes").then_some(())
    })
    .await;
    let lines = service.log().matches("the store has lost writes").count();
    assert_eq!(lines, 1, "an incident is one line");
}

/// Posts three occurrences of an anomaly, which has `before`.
async fn post_three(service: &Service, name: &str, status: u16, before: u64) {
    for count in before + 1..=before + 3 {
        let answer = service.post("/anomalies", &json!({"alert_name": name})).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.body["count_1h"], count);
    }
}

#[tokio::test]
async fn each_loss_within_a_minute_is_mended() {
    let redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    let other = redis.client().await;
    for name in ["First", "Second", "Third"] {
        post_three(&service, name, 200, 0).await;
        other.run(&["FLUSHALL"]).await;
        becomes(&service, name, 3).await;
    }
    for name in ["First", "Second"] {
        becomes(&service, name, 3).await;
    }
    assert_eq!(metric(&service, "anomaly_counter_store_lost_writes_total").await, 3.0);
}

/// Lets Redis refuse occurrences.
async fn refuse(redis: &OtherClient, is_refused: bool) {
    let permission = if is_refused { "-zadd" } else { "+@all" };
    redis.run(&["ACL", "SETUSER", "default", permission]).await;
}

/// Its identity stays, and the writes that waited raise the count to what it was.
#[tokio::test]
async fn a_redis_that_is_emptied_in_an_outage_gets_back_what_it_had_acknowledged() {
    let redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    let other = redis.client().await;
    post_three(&service, "Quiet", 200, 0).await;
    post_three(&service, "HighCPU", 200, 0).await;
    refuse(&other, true).await;
    post_three(&service, "HighCPU", 202, 3).await;
    let key = key_of("Quiet").to_string();
    let repair = json!({"anomaly_key": key, "action": "restart", "success": true});
    assert_eq!(service.post("/repairs", &repair).await.status, 202);
    other.run(&["FLUSHALL"]).await;
    refuse(&other, false).await;
    becomes(&service, "HighCPU", 6).await;
    becomes(&service, "Quiet", 3).await;
    // If what waits were applied first, the anomaly would be unknown, and this a dead letter.
    let path = format!("/anomalies/{key}/frequency");
    eventually("the repair is counted", || async {
        (service.get(&path).await.body["auto_repair_count"] == 1).then_some(())
    })
    .await;
    eventually("it is in the log", || async {
        service.log().contains("the store has lost writes").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_is_emptied_in_an_outage_gets_back_alerts_even_if_it_had_nothing_else() {
    let redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    let other = redis.client().await;
    let deliver = async |name: &str| {
        let alert = json!({
            "status": "firing", "labels": {"alertname": name}, "fingerprint": name,
            "startsAt": wall_clock().to_string(),
        });
        service.post("/webhooks/alertmanager", &json!({"alerts": [alert]})).await.status
    };
    for name in ["First", "Second"] {
        assert_eq!(deliver(name).await, 200);
    }
    refuse(&other, true).await;
    assert_eq!(deliver("Waiting").await, 202);
    other.run(&["FLUSHALL"]).await;
    refuse(&other, false).await;
    for name in ["First", "Second", "Waiting"] {
        becomes(&service, name, 1).await;
    }
}

/// The next process does not know the counts. `is_outage` says that Redis refuses writes meanwhile.
async fn emptied_beside_a_restart(is_outage: bool) {
    let redis = RedisServer::start();
    let mut service = Service::on_redis(&redis).await;
    let other = redis.client().await;
    post_three(&service, "Quiet", 200, 0).await;
    post_three(&service, "HighCPU", 200, 0).await;
    refuse(&other, is_outage).await;
    let expected = if is_outage { 6 } else { 3 };
    if is_outage {
        post_three(&service, "HighCPU", 202, 3).await;
    }
    service.terminate();
    assert!(service.ended_well().await);
    other.run(&["FLUSHALL"]).await;
    let service = service.successor().await;
    refuse(&other, false).await;
    becomes(&service, "HighCPU", expected).await;
    becomes(&service, "Quiet", 3).await;
    assert!(service.log().contains("the store has lost writes"));
}

#[tokio::test]
async fn a_redis_that_is_emptied_while_the_service_is_down_gets_back_the_last_writes() {
    emptied_beside_a_restart(false).await;
}

#[tokio::test]
async fn a_redis_that_is_emptied_in_an_outage_with_a_restart_gets_back_the_last_writes() {
    emptied_beside_a_restart(true).await;
}

/// The write itself is at fault, and the disk is too full for a dead letter.
#[tokio::test]
async fn writes_that_can_neither_be_sent_again_nor_become_dead_letters_are_kept_and_sent_later() {
    let redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    for name in ["HighCPU", "Other"] {
        service.post("/anomalies", &json!({"alert_name": name, "event_id": "once"})).await.ok();
    }
    // The limit is enough for the log, but not for the spool.
    service.limit_file_size(Some(12_000));
    let other = redis.client().await;
    other.run(&["FLUSHALL"]).await;
    let timeline = format!("anomaly:timeline:{}", key_of("HighCPU"));
    other.run(&["SET", &timeline, "no timeline"]).await;
    // This answer shows the service that writes were lost.
    let path = format!("/anomalies/{}/frequency", key_of("Other"));
    assert_eq!(service.get(&path).await.status, 404);
    let failed = "dead letters can't be written; they are sent again";
    eventually("it could not be buried", || async { service.log().contains(failed).then_some(()) })
        .await;
    other.run(&["DEL", &timeline]).await;
    let path = format!("/anomalies/{}/frequency", key_of("HighCPU"));
    eventually("it is counted", || async {
        (service.get(&path).await.body["count_1h"] == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_level_step_that_two_instances_reach_together_is_reported_by_one_of_them_once() {
    let mut redis = RedisServer::start();
    let instances = [Service::on_redis(&redis).await, Service::on_redis(&redis).await];
    redis.kill();
    for service in &instances {
        for _ in 0..4 {
            let answer = service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await;
            assert_eq!(answer.status, 202);
        }
    }
    redis.restart();
    let (mut repeats, mut escalations) = (0.0, 0.0);
    for service in &instances {
        healthy_again(service).await;
    }
    for service in &instances {
        let steps = |level| format!("anomaly_counter_level_steps_total{{level=\"{level}\"}}");
        repeats += metric(service, &steps("REPEAT")).await;
        escalations += metric(service, &steps("ESCALATE")).await;
    }
    assert_eq!(repeats, 2.0, "each has reported it by an estimate");
    assert_eq!(escalations, 1.0, "by the replay that has reached it");
}
