//! A wrong clock deletes nothing. The clocks of real processes are set by libfaketime; what takes
//! longer than a moment is tested in the module that judges the clock (`counter/trusted_time.rs`).

use anomaly_counter::domain::Timestamp;
use serde_json::{Value, json};

use crate::support::{
    AGED_SECONDS, FakeClock, RedisServer, Service, eventually, healthy_again, key_of, metric,
    wall_clock,
};

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;

/// Starts a service with a clock of its own, on a store that others may share.
async fn service_on(redis: Option<&RedisServer>, clock: &FakeClock) -> Service {
    match redis {
        Some(redis) => Service::under(clock, &[("REDIS__URL", &redis.url())]).await,
        None => Service::under(clock, &[]).await,
    }
}

/// Returns both stores: a Redis, and none for the embedded store.
fn stores() -> [Option<RedisServer>; 2] {
    [None, Some(RedisServer::start())]
}

fn event(id: usize) -> Value {
    json!({"alert_name": "Clock", "event_id": id.to_string()})
}

async fn frequency(service: &Service) -> Value {
    service.get(&format!("/anomalies/{}/frequency", key_of("Clock"))).await.ok()
}

async fn count(service: &Service) -> Value {
    frequency(service).await["count_30d"].clone()
}

/// Sets the clock, and waits until the service has noticed by how much it differs.
async fn set_and_noticed(service: &Service, clock: &FakeClock, ahead_seconds: i64) {
    clock.set(ahead_seconds);
    eventually("the service notices that its clock was set", || async {
        let differs_by = service.get("/readyz").await.ok()["clock_disagreement_seconds"].clone();
        let is_noticed = match differs_by.as_i64() {
            None => ahead_seconds == 0,
            Some(seconds) => (seconds - ahead_seconds).abs() <= 1,
        };
        is_noticed.then_some(())
    })
    .await;
}

fn repair(event_id: &str) -> Value {
    json!({
        "anomaly_key": key_of("Clock").to_string(), "action": "restart_pod", "success": true,
        "event_id": event_id,
    })
}

#[tokio::test]
async fn a_jump_forward_or_back_deletes_nothing_and_stamps_nothing_wrongly() {
    for redis in stores() {
        for ahead in [40 * DAY, -40 * DAY] {
            let clock = FakeClock::of_the_wall();
            let service = service_on(redis.as_ref(), &clock).await;
            let before = frequency_or_zero(&service).await;
            for id in 0..5 {
                let posted = json!({"alert_name": "Clock", "event_id": format!("{ahead}-{id}")});
                service.post("/anomalies", &posted).await.ok();
            }
            let repair_id = format!("repair{ahead}");
            service.post("/repairs", &repair(&repair_id)).await.ok();
            set_and_noticed(&service, &clock, ahead).await;

            let posted = json!({"alert_name": "Clock", "event_id": format!("{ahead}-jump")});
            let recorded = service.post("/anomalies", &posted).await.ok();
            assert_eq!(recorded["counted"], true);
            assert_eq!(recorded["count_1h"], before + 6, "{recorded}");
            let stamped = recorded["last_seen"].as_str().unwrap();
            let stamped = Timestamp::parse_rfc3339(stamped).unwrap().as_micros();
            assert!((stamped - wall_clock().as_micros()).abs() < 60_000_000, "{recorded}");
            let again = service.post("/repairs", &repair(&repair_id)).await.ok();
            assert_eq!(again["counted"], false);

            set_and_noticed(&service, &clock, 0).await;
            assert_eq!(count(&service).await, before + 6);
            assert_eq!(metric(&service, "anomaly_counter_clock_jumps_total").await, 1.0);
            assert!(service.log().contains("the wall clock has jumped by"));
            assert!(service.log().contains("the wall clock is back"));
            let service = service.restart().await;
            assert_eq!(count(&service).await, before + 6, "the file has what memory had");
        }
    }
}

/// Returns the count of 30 days, or zero while the anomaly is unknown.
async fn frequency_or_zero(service: &Service) -> i64 {
    let path = format!("/anomalies/{}/frequency", key_of("Clock"));
    service.get(&path).await.body["count_30d"].as_i64().unwrap_or_default()
}

#[tokio::test]
async fn a_clock_that_is_wrong_at_the_start_deletes_nothing_and_refuses_nothing_as_too_old() {
    for redis in stores() {
        let clock = FakeClock::of_the_wall();
        let service = service_on(redis.as_ref(), &clock).await;
        for id in 0..5 {
            service.post("/anomalies", &event(id)).await.ok();
        }
        service.post("/repairs", &repair("r1")).await.ok();
        clock.set(40 * DAY);
        let service = service.restart().await;
        let right_time = wall_clock().to_string();
        let mut posted = event(5);
        posted["occurred_at"] = right_time.into();
        assert_eq!(service.post("/anomalies", &posted).await.ok()["counted"], true);
        assert_eq!(service.post("/anomalies", &event(6)).await.ok()["counted"], true);
        assert_eq!(service.post("/anomalies", &event(0)).await.ok()["counted"], false);
        assert_eq!(service.post("/repairs", &repair("r1")).await.ok()["counted"], false);
        assert_eq!(service.post("/repairs", &repair("r2")).await.ok()["counted"], true);
        // House-keeping runs once a second.
        tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
        clock.set(0);
        let service = service.restart().await;
        let frequency = frequency(&service).await;
        assert_eq!(frequency["count_30d"], 7, "{frequency}");
        assert_eq!(frequency["auto_repair_count"], 2);
    }
}

#[tokio::test]
async fn one_instance_of_two_with_a_wrong_clock_removes_nothing_that_both_share() {
    let redis = RedisServer::start();
    let right = Service::on_redis(&redis).await;
    for id in 0..5 {
        right.post("/anomalies", &event(id)).await.ok();
    }
    right.post("/repairs", &repair("r1")).await.ok();
    let clock = FakeClock::of_the_machine();
    clock.set(40 * DAY);
    let wrong = service_on(Some(&redis), &clock).await;
    clock.set(40 * DAY + AGED_SECONDS);
    let mut old = event(5);
    old["occurred_at"] = wall_clock().to_string().into();
    assert_eq!(wrong.post("/anomalies", &old).await.ok()["counted"], true, "not too old for Redis");
    assert_eq!(wrong.post("/anomalies", &event(6)).await.ok()["counted"], true);
    assert_eq!(wrong.post("/anomalies", &event(0)).await.ok()["counted"], false);
    assert_eq!(wrong.post("/repairs", &repair("r2")).await.ok()["counted"], true);
    let frequency = frequency(&right).await;
    assert_eq!(frequency["count_30d"], 7, "{frequency}");
    assert_eq!(right.post("/repairs", &repair("r1")).await.ok()["counted"], false);
}

#[tokio::test]
async fn a_step_of_two_minutes_refuses_no_event_of_a_sender_whose_clock_is_right() {
    for redis in stores() {
        let clock = FakeClock::of_the_wall();
        let service = service_on(redis.as_ref(), &clock).await;
        service.post("/anomalies", &event(0)).await.ok();
        for (id, ahead) in [(1, 2 * MINUTE), (2, -2 * MINUTE)] {
            set_and_noticed(&service, &clock, ahead).await;
            let mut posted = event(id);
            posted["occurred_at"] = wall_clock().plus_seconds(ahead).to_string().into();
            assert_eq!(service.post("/anomalies", &posted).await.ok()["counted"], true);
        }
        clock.set(0);
        assert_eq!(count(&service).await, 3);
    }
}

#[tokio::test]
async fn after_a_suspend_the_service_has_the_right_time() {
    for redis in stores() {
        let clock = FakeClock::of_the_machine();
        let service = service_on(redis.as_ref(), &clock).await;
        service.post("/anomalies", &event(0)).await.ok();
        clock.set(3 * DAY);
        let recorded = service.post("/anomalies", &event(1)).await.ok();
        assert_eq!(recorded["count_24h"], 1, "{recorded}");
        assert_eq!(recorded["count_7d"], 2, "{recorded}");
        let ready = service.get("/readyz").await.ok();
        assert_eq!(ready.get("clock_disagreement_seconds"), None, "{ready}");
        assert_eq!(metric(&service, "anomaly_counter_clock_jumps_total").await, 0.0);
    }
}

#[tokio::test]
async fn a_wrong_clock_does_not_make_waiting_writes_too_old() {
    for ahead in [40 * DAY, -40 * DAY] {
        let mut redis = RedisServer::start();
        let clock = FakeClock::of_the_wall();
        let service = service_on(Some(&redis), &clock).await;
        redis.kill();
        for id in 0..5 {
            assert_eq!(service.post("/anomalies", &event(id)).await.status, 202);
        }
        set_and_noticed(&service, &clock, ahead).await;
        for id in 5..8 {
            assert_eq!(service.post("/anomalies", &event(id)).await.status, 202);
        }
        // The same if the process begins with the wrong clock.
        let service = service.restart().await;
        redis.restart();
        healthy_again(&service).await;
        let letters = service.get("/spool/dead-letters").await.ok();
        assert_eq!(letters, json!([]));
        clock.set(0);
        let service = service.restart().await;
        assert_eq!(count(&service).await, 8, "{ahead}");
    }
}

#[tokio::test]
async fn after_its_first_minutes_a_process_forgets_what_has_expired() {
    for redis in stores() {
        let clock = FakeClock::of_the_machine();
        let service = service_on(redis.as_ref(), &clock).await;
        let at = wall_clock().minus_seconds(30 * DAY + 5);
        let mut old = event(0);
        old["occurred_at"] = at.to_string().into();
        assert_eq!(service.post("/anomalies", &old).await.ok()["counted"], true, "not known yet");
        assert_eq!(count(&service).await, 0, "and not shown");
        clock.set(AGED_SECONDS);
        assert_eq!(service.post("/anomalies", &old).await.ok()["counted"], false);
        service.post("/anomalies", &event(1)).await.ok();
        assert_eq!(count(&service).await, 1);
        if let Some(redis) = &redis {
            let timeline = format!("anomaly:timeline:{}", key_of("Clock"));
            assert_eq!(redis.client().await.number(&["ZCARD", &timeline]).await, 1);
        }
    }
}
