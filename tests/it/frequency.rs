//! Recording occurrences and reading frequencies over HTTP, as pipelines and dashboards do.

use anomaly_counter::domain::{Timestamp, Window};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, RedisServer, Service, wall_clock};

const KEY: &str = "b119b2edaa9fb08c";

fn crash() -> Value {
    json!({
        "alert_name": "PodCrashLoopBackOff",
        "service": "awoooi-api",
        "namespace": "awoooi-prod",
        "error_type": "OOMKilled",
    })
}

fn with(mut occurrence: Value, name: &str, value: impl Into<Value>) -> Value {
    occurrence[name] = value.into();
    occurrence
}

#[tokio::test]
async fn ten_posts_step_through_the_levels_with_the_previous_one_behind() {
    let redis = RedisServer::start();
    for service in [Service::embedded().await, Service::on_redis(&redis).await] {
        let mut levels = Vec::new();
        for count in 1..=11 {
            let answer = service.post("/anomalies", &crash()).await.ok();
            assert_eq!(answer["anomaly_key"], KEY);
            assert_eq!(answer["count_24h"], count);
            assert_eq!(answer["counted"], true);
            assert!(answer.get("reason").is_none());
            levels.push((answer["previous_level"].clone(), answer["escalation_level"].clone()));
        }
        let of = |level: &str| {
            if level.is_empty() { Value::Null } else { level.into() }
        };
        let expected = [
            ("", ""),
            ("", ""),
            ("", "REPEAT"),
            ("REPEAT", "REPEAT"),
            ("REPEAT", "ESCALATE"),
            ("ESCALATE", "ESCALATE"),
            ("ESCALATE", "ESCALATE"),
            ("ESCALATE", "ESCALATE"),
            ("ESCALATE", "ESCALATE"),
            ("ESCALATE", "PERMANENT_FIX"),
            ("PERMANENT_FIX", "PERMANENT_FIX"),
        ];
        assert_eq!(levels, expected.map(|(previous, level)| (of(previous), of(level))));
        let read = service.get(&format!("/anomalies/{KEY}/frequency")).await.ok();
        assert_eq!(read["previous_level"], "PERMANENT_FIX");
    }
}

#[tokio::test]
async fn the_frequency_has_the_names_and_the_order_of_the_contract() {
    let service = Service::embedded().await;
    let posted = service.post("/anomalies", &crash()).await.ok();
    let read = service.get(&format!("/anomalies/{KEY}/frequency")).await.ok();
    let names: Vec<_> = read.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "anomaly_key",
        "count_1h",
        "count_24h",
        "count_7d",
        "count_30d",
        "first_seen",
        "last_seen",
        "auto_repair_count",
        "permanent_fix_applied",
        "escalation_level",
        "previous_level",
        "regressed",
        "rule",
        "because",
        "new_step",
        "degraded",
    ];
    assert_eq!(names, expected);
    let seen = posted["last_seen"].as_str().unwrap();
    assert!(seen.ends_with('Z'), "{seen}");
    assert!(Timestamp::parse_rfc3339(seen).is_ok(), "{seen}");
}

#[tokio::test]
async fn a_retry_with_the_same_event_id_counts_once() {
    let service = Service::embedded().await;
    let occurrence = with(crash(), "event_id", "incident-7");
    assert_eq!(service.post("/anomalies", &occurrence).await.ok()["counted"], true);
    let retry = service.post("/anomalies", &occurrence).await.ok();
    assert_eq!(retry["counted"], false);
    assert_eq!(retry["reason"], "duplicate");
    assert_eq!(retry["count_1h"], 1);

    // The header has the same meaning.
    let request = service.request(Method::POST, "/anomalies").json(&crash());
    let by_header = Answer::of(request.header("Idempotency-Key", "incident-7")).await.ok();
    assert_eq!(by_header["counted"], false);
    let request = service.request(Method::POST, "/anomalies").json(&occurrence);
    let both = Answer::of(request.header("Idempotency-Key", "another")).await;
    assert!(both.problem(422).contains("differs from the Idempotency-Key header"));
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_through_two_instances_on_one_redis_count_once() {
    let redis = RedisServer::start();
    let services = [Service::on_redis(&redis).await, Service::on_redis(&redis).await];
    for round in 0..20 {
        let occurrence = with(crash(), "event_id", format!("e{round}"));
        let (a, b, c, d) = tokio::join!(
            services[0].post("/anomalies", &occurrence),
            services[1].post("/anomalies", &occurrence),
            services[0].post("/anomalies", &occurrence),
            services[1].post("/anomalies", &occurrence),
        );
        let answers = [a, b, c, d].map(Answer::ok);
        let counted = answers.iter().filter(|answer| answer["counted"] == true).count();
        assert_eq!(counted, 1, "round {round}");
    }
    let read = services[1].get(&format!("/anomalies/{KEY}/frequency")).await.ok();
    assert_eq!(read["count_30d"], 20);
}

#[tokio::test]
async fn occurred_at_places_an_event_in_its_windows() {
    let (service, _clock) = Service::aged(&[]).await;
    let now = wall_clock();
    let two_days_ago = now.minus_seconds(2 * 86_400).to_string();
    let late = service.post("/anomalies", &with(crash(), "occurred_at", two_days_ago)).await.ok();
    assert_eq!(late["count_24h"], 0);
    assert_eq!(late["count_7d"], 1);

    let gone = Window::Month.start(now).minus_seconds(60).to_string();
    let gone = service.post("/anomalies", &with(crash(), "occurred_at", gone)).await.ok();
    assert_eq!(gone["counted"], false);
    assert_eq!(gone["reason"], "too_old");
    assert_eq!(gone["count_30d"], 1);

    let a_little_ahead = now.plus_seconds(30).to_string();
    let ahead = service.post("/anomalies", &with(crash(), "occurred_at", a_little_ahead)).await;
    assert_eq!(ahead.ok()["count_1h"], 1);
}

#[tokio::test]
async fn an_array_is_answered_element_by_element() {
    let redis = RedisServer::start();
    for service in [Service::embedded().await, Service::on_redis(&redis).await] {
        let elements = json!([
            crash(),
            {"alert_name": 7},
            with(crash(), "event_id", "e"),
            with(crash(), "event_id", "e"),
            "no object",
            {"alert_name": "Other"},
        ]);
        let answer = service.post("/anomalies", &elements).await.ok();
        let answer = answer.as_array().unwrap();
        assert_eq!(answer.len(), 6);
        assert_eq!(answer[0]["count_1h"], 1);
        assert_eq!(answer[1]["status"], 422);
        assert_eq!(answer[1]["field"], "alert_name");
        assert_eq!(answer[2]["count_1h"], 2);
        assert_eq!(answer[2]["counted"], true);
        assert_eq!(answer[3]["count_1h"], 2);
        assert_eq!(answer[3]["counted"], false);
        assert_eq!(answer[4]["status"], 422);
        assert_eq!(answer[5]["count_1h"], 1);
    }
}

#[tokio::test]
async fn a_thousand_elements_are_taken_and_none_is_fine_too() {
    let service = Service::embedded().await;
    let thousand: Vec<Value> = (0..1_000).map(|_| crash()).collect();
    let answer = service.post("/anomalies", &thousand.into()).await.ok();
    assert_eq!(answer[999]["count_1h"], 1_000);
    assert_eq!(service.post("/anomalies", &json!([])).await.ok(), json!([]));
}

#[tokio::test]
async fn everything_known_about_an_anomaly_is_shown() {
    let redis = RedisServer::start();
    for service in [Service::embedded().await, Service::on_redis(&redis).await] {
        let posted = json!({
            "alertname": "HighCPU", "job": "api", "pod": "p-1", "labels": {"a": [1, 2.5, null]},
            "event_id": "e1",
        });
        let key = service.post("/anomalies", &posted).await.ok()["anomaly_key"].clone();
        let known = service.get(&format!("/anomalies/{}", key.as_str().unwrap())).await.ok();
        let signature = json!({
            "alert_name": "HighCPU", "service": "api", "namespace": "", "error_type": "",
        });
        assert_eq!(known["signature"], signature);
        assert_eq!(known["metadata"], json!({"pod": "p-1", "labels": {"a": [1, 2.5, null]}}));
        assert_eq!(known["frequency"]["count_1h"], 1);
        assert_eq!(known["known_since"], known["frequency"]["first_seen"]);
        assert_eq!(known["permanent_fix"], Value::Null);
        assert_eq!(known["repairs"], json!([]));
        let earlier = wall_clock().minus_seconds(7_200).to_string();
        let older = json!({"alertname": "HighCPU", "job": "api", "occurred_at": earlier});
        assert_eq!(service.post("/anomalies", &older).await.ok()["anomaly_key"], key);
        let known = service.get(&format!("/anomalies/{}", key.as_str().unwrap())).await.ok();
        assert_eq!(known["known_since"], earlier);
    }
}

#[tokio::test]
async fn an_unknown_anomaly_is_not_found() {
    let service = Service::embedded().await;
    for path in ["", "/frequency", "/repairs", "/repairs/restart"] {
        let answer = service.get(&format!("/anomalies/{KEY}{path}")).await;
        assert!(answer.problem(404).contains(KEY), "{path}");
    }
}

#[tokio::test]
async fn a_request_id_comes_back() {
    let service = Service::embedded().await;
    let request = service.request(Method::GET, "/healthz").header("x-request-id", "abc-123");
    assert_eq!(Answer::of(request).await.headers["x-request-id"], "abc-123");
    let made = service.get("/anomalies/nokey").await;
    made.problem(400);
    assert!(!made.headers["x-request-id"].is_empty());
}
