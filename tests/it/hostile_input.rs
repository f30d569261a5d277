//! Bad input: it gets a 4xx with a sentence that says what to do, and nothing is recorded.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, RedisServer, Service};

/// Asserts that Redis has no key at all.
async fn nothing_is_recorded(redis: &RedisServer) {
    assert_eq!(redis.client().await.number(&["DBSIZE"]).await, 0);
}

#[tokio::test]
async fn fields_that_are_not_as_they_must_be_are_named() {
    let redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    let cases = [
        (json!({}), "alert_name", "signature is empty"),
        (json!({"alert_name": "", "service": ""}), "alert_name", "signature is empty"),
        (json!({"pod": "p-1"}), "alert_name", "signature is empty"),
        (json!({"alert_name": 7}), "alert_name", "not a number"),
        (json!({"alert_name": "HighCPU", "reason": null}), "reason", "not null"),
        (json!({"alert_name": "HighCPU", "job": ["x"]}), "job", "not an array"),
        (json!({"alert_name": "HighCPU", "event_id": ""}), "event_id", "printable ASCII"),
        (json!({"alert_name": "HighCPU", "event_id": "a\u{0}b"}), "event_id", "printable ASCII"),
        (json!({"alert_name": "HighCPU", "event_id": 7}), "event_id", "a string"),
        (json!({"alert_name": "HighCPU", "occurred_at": "soon"}), "occurred_at", "RFC 3339"),
        (
            json!({"alert_name": "HighCPU", "occurred_at": "2099-01-01T00:00:00Z"}),
            "occurred_at",
            "ahead of the service's clock",
        ),
    ];
    for (body, field, says) in cases {
        let answer = service.post("/anomalies", &body).await;
        let detail = answer.problem(422);
        assert!(detail.contains(says), "{detail}");
        assert_eq!(answer.body["field"], field, "{body}");
    }
    nothing_is_recorded(&redis).await;
}

#[tokio::test]
async fn bodies_that_are_no_json_say_where() {
    let redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    let broken = service.post_raw("/anomalies", "{\n  \"alert_name\": \"HighCPU\",\n}").await;
    assert!(broken.problem(400).contains("line 3 column 1"));
    assert_eq!(broken.body["line"], 3);
    assert_eq!(broken.body["column"], 1);

    let deep = format!("{{\"alert_name\":\"HighCPU\",\"x\":{}", "[".repeat(10_000));
    assert!(service.post_raw("/anomalies", deep).await.problem(400).contains("recursion"));
    let nul = b"{\"alert_name\":\"HighCPU\0\"}".to_vec();
    assert!(service.post_raw("/anomalies", nul).await.problem(400).contains("control character"));
    let latin1 = b"{\"alert_name\":\"caf\xe9\"}".to_vec();
    assert!(service.post_raw("/anomalies", latin1).await.problem(400).contains("byte 19"));
    let lone = r#"{"alert_name":"\ud800"}"#;
    assert!(service.post_raw("/anomalies", lone).await.problem(400).contains("hex escape"));
    for empty in ["", " \n"] {
        let detail = service.post_raw("/anomalies", empty).await.problem(400);
        assert!(detail.starts_with("the body is empty: send the JSON"), "{detail}");
    }
    service.post_raw("/anomalies", "null").await.problem(422);
    nothing_is_recorded(&redis).await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_its_sender_reads_why() {
    let redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    let large = json!({"alert_name": "HighCPU", "x": "x".repeat(10 << 20)});
    assert!(service.post("/anomalies", &large).await.problem(413).contains("1048576 bytes"));
    nothing_is_recorded(&redis).await;

    let small = Service::with(&[("HTTP__MAX_BODY_BYTES", "100")]).await;
    let body = json!({"alert_name": "HighCPU", "x": "x".repeat(100)});
    assert!(small.post("/anomalies", &body).await.problem(413).contains("100 bytes"));
}

#[tokio::test]
async fn too_many_elements_are_refused_as_a_whole() {
    let redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    let many: Vec<Value> = (0..1_001).map(|_| json!({"alert_name": "HighCPU"})).collect();
    let detail = service.post("/anomalies", &many.into()).await.problem(422);
    assert!(detail.contains("1001"), "{detail}");
    let request = service.request(Method::POST, "/anomalies").header("Idempotency-Key", "x");
    Answer::of(request.json(&json!([{"alert_name": "HighCPU"}]))).await.problem(422);
    nothing_is_recorded(&redis).await;
}

#[tokio::test]
async fn other_content_types_are_refused() {
    let redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "json"] {
        let request = service.request(Method::POST, "/anomalies");
        let request = request.header("content-type", content_type);
        let answer = Answer::of(request.body(r#"{"alert_name":"HighCPU"}"#)).await;
        assert!(answer.problem(415).contains("Content-Type: application/json"));
    }
    let without = service.request(Method::POST, "/anomalies").body(r#"{"alert_name":"HighCPU"}"#);
    Answer::of(without).await.problem(415);
    nothing_is_recorded(&redis).await;
    for content_type in ["application/json; charset=utf-8", "application/cloudevents+json"] {
        let request = service.request(Method::POST, "/anomalies");
        let request = request.header("content-type", content_type);
        Answer::of(request.body(r#"{"alert_name":"HighCPU"}"#)).await.ok();
    }
}

#[tokio::test]
async fn malformed_keys_unknown_paths_and_wrong_methods_are_problems() {
    let redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    for key in ["x", "AF03BAEE239021C4", "af03baee239021c4a", "%00", "%FF", "..%2F"] {
        service.get(&format!("/anomalies/{key}/frequency")).await.problem(400);
    }
    let action = service.get("/anomalies/af03baee239021c4/repairs/%FF").await;
    assert!(action.problem(404).contains("not UTF-8"));
    service.get("/nothing").await.problem(404);
    service.get("/anomalies/").await.problem(404);
    let wrong = service.delete("/anomalies").await;
    assert!(wrong.problem(405).contains("/anomalies does not support DELETE: use POST or GET"));
    assert_eq!(wrong.headers["allow"], "POST,GET,HEAD");
    service.get("/permanent-fix").await.problem(405);
}

#[tokio::test]
async fn a_call_without_parameters_refuses_them() {
    let service = Service::embedded().await;
    let occurrence = json!({"alert_name": "HighCPU"});
    let key = service.post("/anomalies", &occurrence).await.ok()["anomaly_key"].clone();
    let anomaly = format!("/anomalies/{}", key.as_str().unwrap());
    let fix = json!({"anomaly_key": key, "fix_description": "raised the limit"});
    service.put("/permanent-fix", &fix).await.ok();
    let fix = format!("/permanent-fix/{}", key.as_str().unwrap());
    let refused = [
        service.get("/rules?foo=1").await,
        service.get(&format!("{anomaly}?foo=1")).await,
        service.get(&format!("{anomaly}/frequency?foo=1")).await,
        service.get(&format!("{anomaly}/audit?foo=1")).await,
        service.get(&format!("{anomaly}/repairs?foo=1")).await,
        service.post("/anomalies?foo=1", &occurrence).await,
        service.delete(&format!("{fix}?foo=1")).await,
        service.delete(&format!("{anomaly}?foo=1")).await,
    ];
    for answer in refused {
        assert_eq!(answer.problem(422), "`foo` is unknown: this call has no parameters");
        assert_eq!(answer.body["field"], "foo");
    }
    let known = service.get(&anomaly).await.ok();
    assert_eq!(known["frequency"]["count_1h"], 1, "nothing was recorded");
    assert_eq!(known["frequency"]["permanent_fix_applied"], true, "nothing was removed");

    // Others add parameters to the addresses of probes, files and webhooks.
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/page/main.js", "/"]
    {
        let request = service.request(Method::GET, &format!("{path}?foo=1"));
        assert_eq!(request.send().await.unwrap().status(), 200, "{path}");
    }
    let alert = json!({"status": "firing", "labels": {"alertname": "HighCPU"}});
    let delivery = json!({"version": "4", "status": "firing", "alerts": [alert]});
    let delivered = service.post("/webhooks/alertmanager?foo=1&bar=%ff", &delivery).await.ok();
    assert_eq!(delivered["counted"], 1, "{delivered}");
}

#[tokio::test]
async fn a_parameter_that_is_not_utf8_is_named() {
    let service = Service::embedded().await;
    for (query, name) in [
        ("/anomalies?namespace=%ff", "namespace"),
        ("/anomalies?q=caf%e9", "q"),
        ("/summary?service=%ff", "service"),
        ("/anomalies/lookup?alertname=%ff", "alertname"),
    ] {
        let answer = service.get(query).await;
        let expected = format!("`{name}` must be UTF-8, percent-encoded");
        assert_eq!(answer.problem(422), expected);
        assert_eq!(answer.body["field"], name);
    }
}
