//! Redis that is away, stands still, or has forgotten its scripts.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Answer, RedisServer, Service, eventually};

fn cpu() -> Value {
    json!({"alert_name": "HighCPU"})
}

async fn recovers(service: &Service) -> Value {
    eventually("the service records again", || async {
        let answer = service.post("/anomalies", &cpu()).await;
        answer.status.is_success().then_some(answer.body)
    })
    .await
}

/// A 503 problem with `Retry-After`.
fn is_unavailable(answer: &Answer) {
    answer.problem(503);
    assert_eq!(answer.headers["retry-after"], "1");
}

#[tokio::test]
async fn without_redis_the_service_starts_says_503_and_recovers_by_itself() {
    let mut redis = RedisServer::start();
    redis.kill();
    let service = Service::on_redis(&redis).await;
    let calls = [
        service.post("/anomalies", &cpu()).await,
        service.post("/anomalies", &json!([cpu(), cpu()])).await,
        service.get("/anomalies/af03baee239021c4").await,
        service.get("/anomalies/af03baee239021c4/frequency").await,
        service.delete("/permanent-fix/af03baee239021c4").await,
    ];
    calls.iter().for_each(is_unavailable);
    // Bad input is told even so.
    service.post("/anomalies", &json!({})).await.problem(422);

    redis.restart();
    let answer = recovers(&service).await;
    assert_eq!(
        answer["count_1h"], 1,
        "what was refused has not been counted"
    );
}

#[tokio::test]
async fn a_redis_that_stands_still_is_answered_for_within_the_command_timeout() {
    let redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    let occurrence = json!({"alert_name": "HighCPU", "event_id": "e1"});
    redis.pause();
    for _ in 0..3 {
        let begun = Instant::now();
        is_unavailable(&service.post("/anomalies", &occurrence).await);
        let took = begun.elapsed();
        assert!(
            took < Duration::from_millis(900),
            "{took:?} with a timeout of 500 ms"
        );
    }
    redis.resume();
    // The same id again, since it may have been counted: it counts once.
    let answer = eventually("the service records again", || async {
        let answer = service.post("/anomalies", &occurrence).await;
        answer.status.is_success().then_some(answer.body)
    })
    .await;
    assert_eq!(answer["count_1h"], 1);
}

#[tokio::test]
async fn an_outage_is_two_lines_in_the_log() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    recovers(&service).await;
    redis.kill();
    for _ in 0..20 {
        is_unavailable(&service.post("/anomalies", &cpu()).await);
    }
    redis.restart();
    recovers(&service).await;
    let log = service.log();
    let about = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(about("the store does not answer"), 1, "{log}");
    assert_eq!(about("the store answers again"), 1, "{log}");
    assert_eq!(about("\"WARN\"") + about("\"ERROR\""), 1, "{log}");
}

#[tokio::test]
async fn scripts_that_the_server_has_forgotten_are_loaded_again_unseen() {
    let redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    let other = redis.client().await;
    let key = service.post("/anomalies", &cpu()).await.ok()["anomaly_key"].clone();
    let path = format!("/anomalies/{}", key.as_str().unwrap());
    for round in 2..5 {
        other.run(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(
            service.post("/anomalies", &cpu()).await.ok()["count_1h"],
            round
        );
        other.run(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(
            service.get(&format!("{path}/frequency")).await.ok()["count_1h"],
            round
        );
        other.run(&["SCRIPT", "FLUSH"]).await;
        service.get(&path).await.ok();
        other.run(&["SCRIPT", "FLUSH"]).await;
        let repair = json!({"anomaly_key": key, "action": "a", "success": true});
        assert_eq!(
            service.post("/repairs", &repair).await.ok()["attempts"],
            round - 1
        );
        other.run(&["SCRIPT", "FLUSH"]).await;
        let fix = json!({"anomaly_key": key, "fix_description": "x"});
        service.put("/permanent-fix", &fix).await.ok();
        other.run(&["SCRIPT", "FLUSH"]).await;
        service
            .delete(&format!("/permanent-fix/{}", key.as_str().unwrap()))
            .await
            .ok();
    }
}

#[tokio::test]
async fn a_redis_that_is_full_is_unavailable_and_not_the_callers_fault() {
    let redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    let other = redis.client().await;
    assert_eq!(service.post("/anomalies", &cpu()).await.ok()["count_1h"], 1);
    other.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    is_unavailable(&service.post("/anomalies", &cpu()).await);
    other.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(recovers(&service).await["count_1h"], 2);
}
