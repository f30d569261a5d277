//! Repair attempts over HTTP: rates, advice, and retries.

use serde_json::{Value, json};

use crate::support::{RedisServer, Service};

async fn known_key(service: &Service) -> String {
    let answer = service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await.ok();
    answer["anomaly_key"].as_str().unwrap().to_owned()
}

async fn report(service: &Service, key: &str, action: &str, success: bool) -> Value {
    let body = json!({"anomaly_key": key, "action": action, "success": success});
    service.post("/repairs", &body).await.ok()
}

#[tokio::test]
async fn an_action_that_keeps_failing_is_to_be_skipped() {
    let redis = RedisServer::start();
    for service in [Service::embedded().await, Service::on_redis(&redis).await] {
        let key = known_key(&service).await;
        let advice_path = format!("/anomalies/{key}/repairs/restart_pod");

        let untried = service.get(&advice_path).await.ok();
        assert_eq!(untried["total"], 0);
        assert_eq!(untried["success_rate"], 0.0);
        assert_eq!(untried["should_skip"], false);

        report(&service, &key, "restart_pod", false).await;
        assert_eq!(service.get(&advice_path).await.ok()["should_skip"], false, "once is chance");
        let second = report(&service, &key, "restart_pod", false).await;
        assert_eq!(second["total"], 2);
        assert_eq!(second["auto_repair_count"], 2);
        assert_eq!(service.get(&advice_path).await.ok()["should_skip"], true);

        report(&service, &key, "restart_pod", true).await;
        report(&service, &key, "scale up/π", true).await;
        let third = service.get(&advice_path).await.ok();
        assert_eq!(third["total"], 3);
        assert_eq!(third["success"], 1);
        assert_eq!(third["should_skip"], false);
        let strict = service.get(&format!("{advice_path}?min_success_rate=0.5")).await.ok();
        assert_eq!(strict["should_skip"], true);
        let other =
            service.get(&format!("/anomalies/{key}/repairs/scale%20up%2F%CF%80")).await.ok();
        assert_eq!(other["action"], "scale up/π");
        assert_eq!(other["success"], 1);
    }
}

#[tokio::test]
async fn the_history_shows_totals_rates_and_the_newest_attempts() {
    let redis = RedisServer::start();
    for service in [Service::embedded().await, Service::on_redis(&redis).await] {
        let key = known_key(&service).await;
        for i in 0..103 {
            report(&service, &key, if i % 2 == 0 { "even" } else { "odd" }, i % 4 == 0).await;
        }
        let history = service.get(&format!("/anomalies/{key}/repairs")).await.ok();
        assert_eq!(history["auto_repair_count"], 103);
        let attempts = history["attempts"].as_array().unwrap();
        assert_eq!(attempts.len(), 100);
        assert_eq!(attempts[0]["action"], "even");
        assert_eq!(attempts[0]["success"], false);
        assert!(attempts[0]["timestamp"].as_str().unwrap().ends_with('Z'));
        let even = &history["actions"].as_array().unwrap()[0];
        assert_eq!(even["action"], "even");
        assert_eq!(even["total"], 50);
        assert_eq!(even["success"], 25);
        assert_eq!(even["success_rate"], 0.5);
        let frequency = service.get(&format!("/anomalies/{key}/frequency")).await.ok();
        assert_eq!(frequency["auto_repair_count"], 103);
    }
}

#[tokio::test]
async fn a_repair_that_is_reported_twice_counts_once() {
    let service = Service::embedded().await;
    let key = known_key(&service).await;
    let body = json!({"anomaly_key": key, "action": "a", "success": true, "event_id": "r-1"});
    assert_eq!(service.post("/repairs", &body).await.ok()["counted"], true);
    let again = service.post("/repairs", &body).await.ok();
    assert_eq!(again["counted"], false);
    assert_eq!(again["reason"], "duplicate");
    assert_eq!(again["total"], 1);
}

#[tokio::test]
async fn a_faulty_report_names_its_field() {
    let service = Service::embedded().await;
    let key = known_key(&service).await;
    let cases = [
        (json!({"action": "a", "success": true}), "anomaly_key", 422),
        (json!({"anomaly_key": "B119", "action": "a", "success": true}), "anomaly_key", 400),
        (json!({"anomaly_key": key, "success": true}), "action", 422),
        (json!({"anomaly_key": key, "action": "", "success": true}), "action", 422),
        (json!({"anomaly_key": key, "action": "a\u{0}", "success": true}), "action", 422),
        (json!({"anomaly_key": key, "action": "a", "success": "yes"}), "success", 422),
        (json!({"anomaly_key": key, "action": "a", "success": true, "sucess": 1}), "sucess", 422),
    ];
    for (body, field, status) in cases {
        let answer = service.post("/repairs", &body).await;
        answer.problem(status);
        assert_eq!(answer.body["field"], field, "{body}");
    }
    let unknown = json!({"anomaly_key": "0000000000000000", "action": "a", "success": true});
    service.post("/repairs", &unknown).await.problem(404);
    for query in ["min_success_rate=2", "min_success_rate=x", "min_succes_rate=0.1"] {
        service.get(&format!("/anomalies/{key}/repairs/a?{query}")).await.problem(422);
    }
    for action in ["a".repeat(201), "a%0A".to_owned()] {
        let answer = service.get(&format!("/anomalies/{key}/repairs/{action}")).await;
        assert!(answer.problem(422).contains("1 to 200 characters"), "{}", answer.body);
        assert_eq!(answer.body["field"], "action");
    }
    let history = service.get(&format!("/anomalies/{key}/repairs")).await.ok();
    assert_eq!(history["auto_repair_count"], 0, "nothing was recorded");
}
