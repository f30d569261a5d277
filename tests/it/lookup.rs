//! `GET /anomalies/lookup`: the anomaly that labels identify.

use serde_json::{Value, json};

use crate::support::{RedisServer, Service, key_of, wall_clock};

async fn look_up(service: &Service, query: &str) -> Value {
    service.get(&format!("/anomalies/lookup?{query}")).await.ok()
}

/// Delivers a firing alert with these labels. Returns the key of its anomaly.
async fn deliver(service: &Service, labels: &Value) -> Value {
    let alert = json!({"status": "firing", "labels": labels, "startsAt": wall_clock().to_string()});
    let answer = service.post("/webhooks/alertmanager", &json!({"alerts": [alert]})).await.ok();
    answer["alerts"][0]["anomaly_key"].clone()
}

#[tokio::test]
async fn an_anomaly_is_found_by_its_fields_under_each_of_their_names() {
    let service = Service::embedded().await;
    let posted = json!({"alert_name": "HighCPU", "service": "api", "namespace": "shop",
                        "error_type": "OOMKilled", "pod": "api-0"});
    let key = service.post("/anomalies", &posted).await.ok()["anomaly_key"].clone();
    let by_key = service.get(&format!("/anomalies/{}", key.as_str().unwrap())).await.ok();
    for query in [
        "alert_name=HighCPU&service=api&namespace=shop&error_type=OOMKilled",
        "alertname=HighCPU&job=api&namespace=shop&reason=OOMKilled&pod=api-7&severity=page",
        "reason=OOMKilled&namespace=shop&job=other&service=api&alertname=HighCPU",
        "alertname=High%43PU&job=api&namespace=shop&reason=OOMKilled",
    ] {
        let mut found = look_up(&service, query).await;
        assert_eq!(found["identified_by"], "webhook", "{query}");
        found.as_object_mut().unwrap().remove("identified_by");
        assert_eq!(found, by_key, "{query}");
    }
}

#[tokio::test]
async fn labels_identify_an_anomaly_as_on_the_webhook_and_otherwise_as_fields() {
    let service = Service::embedded().await;
    let labels = json!({"alertname": "KubePodCrashLooping", "job": "kube-state-metrics",
                        "namespace": "shop", "pod": "api-6f7d8c9b5d-x2x8z", "deployment": "api"});
    let query = "alertname=KubePodCrashLooping&job=kube-state-metrics&namespace=shop\
                 &pod=api-6f7d8c9b5d-x2x8z&deployment=api";
    let plain = service.post("/anomalies", &labels).await.ok()["anomaly_key"].clone();
    let found = look_up(&service, query).await;
    assert_eq!(found["anomaly_key"], plain);
    assert_eq!(found["identified_by"], "fields");

    let mapped = deliver(&service, &labels).await;
    assert_ne!(mapped, plain);
    let found = look_up(&service, query).await;
    assert_eq!(found["anomaly_key"], mapped);
    assert_eq!(found["identified_by"], "webhook");
    assert_eq!(found["signature"]["service"], "api");
}

#[tokio::test]
async fn the_problem_of_an_unknown_anomaly_has_its_key_and_empty_labels_are_refused() {
    let service = Service::embedded().await;
    let unknown = service.get("/anomalies/lookup?alertname=HighCPU").await;
    assert_eq!(unknown.body["anomaly_key"], key_of("HighCPU").to_string());
    assert_eq!(unknown.body["type"], "/problems/unknown-anomaly");
    assert!(unknown.problem(404).contains("no anomaly has these labels"));
    for (posted, says) in [
        (json!({"alert_name": "HighCPU", "job": "a"}), "1 anomaly has alert_name HighCPU: GET"),
        (json!({"alert_name": "HighCPU", "job": "b&c"}), "2 anomalies have alert_name HighCPU"),
        (json!({"alert_name": "a?*", "job": "b"}), "GET /anomalies?alert_name=a%5C%3F%5C*"),
    ] {
        service.post("/anomalies", &posted).await.ok();
        let name = posted["alert_name"].as_str().unwrap();
        let detail = service.get(&format!("/anomalies/lookup?alertname={name}")).await.problem(404);
        assert!(detail.contains(says), "{detail}");
        let (_, path) = detail.split_once("GET ").unwrap();
        let list = service.get(path).await.ok();
        assert_eq!(list["anomalies"][0]["signature"]["alert_name"], name);
    }
    for query in ["", "?pod=api-0", "?alertname=&job="] {
        let refused = service.get(&format!("/anomalies/lookup{query}")).await;
        assert_eq!(refused.body["field"], "alert_name", "{query}");
        assert!(refused.problem(422).contains("the signature is empty"), "{query}");
    }
    let twice = service.get("/anomalies/lookup?job=a&job=b").await;
    assert_eq!(twice.body["field"], "job");
    assert!(twice.problem(422).contains("more than once"));
    // POST refuses a name that is too long, and the webhook cuts it.
    let long = "x".repeat(2_000);
    let cut = deliver(&service, &json!({"alertname": long})).await;
    let found = look_up(&service, &format!("alertname={long}")).await;
    assert_eq!(found["anomaly_key"], cut);
}

#[tokio::test]
async fn in_an_outage_known_anomalies_are_found_and_others_are_no_404() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await.ok();
    redis.kill();
    let found = look_up(&service, "alertname=HighCPU").await;
    assert_eq!(found["degraded"], true);
    assert_eq!(found["frequency"]["count_1h"], 1);
    service.get("/anomalies/lookup?alertname=Other").await.problem(503);
}
