//! Deliveries as people have reported them: storms, times that were never set, values of other
//! types, other encodings. One odd value fails nothing else.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, RedisServer, Service, key_of, wall_clock};

const WEBHOOK: &str = "/webhooks/alertmanager";

async fn on_both_stores() -> (RedisServer, [Service; 2]) {
    let redis = RedisServer::start();
    let services = [Service::embedded().await, Service::on_redis(&redis).await];
    (redis, services)
}

fn minute_ago() -> String {
    wall_clock().minus_seconds(60).to_string()
}

fn alert(fingerprint: &str, labels: &Value) -> Value {
    json!({
        "status": "firing", "labels": labels, "annotations": {"summary": "s"},
        "startsAt": minute_ago(), "endsAt": "0001-01-01T00:00:00Z", "fingerprint": fingerprint,
    })
}

fn delivery(alerts: &[Value]) -> Value {
    json!({"version": "4", "status": "firing", "receiver": "counter", "alerts": alerts})
}

/// Posts one alert, and returns its result.
async fn post(service: &Service, alert: Value) -> Value {
    let answer = service.post(WEBHOOK, &delivery(&[alert])).await.ok();
    answer["alerts"][0].clone()
}

async fn post_as(service: &Service, content_type: &str, body: impl Into<reqwest::Body>) -> Answer {
    let request = service.request(Method::POST, WEBHOOK).header("content-type", content_type);
    Answer::of(request.body(body)).await
}

#[tokio::test]
async fn a_storm_of_ordinary_alerts_is_one_incident() {
    let (_redis, services) = on_both_stores().await;
    let alerts: Vec<Value> = (0..1_500)
        .map(|n| {
            let node = format!("ip-10-1-{n}.eu-west-1.compute.internal");
            let mut alert = alert(
                &format!("06{n:014x}"),
                &json!({
                    "alertname": "NodeDown", "cluster": "prod-eu-1", "job": "node-exporter",
                    "namespace": "monitoring", "node": node, "severity": "critical",
                }),
            );
            alert["annotations"] = json!({"description": "x".repeat(500), "summary": node});
            alert
        })
        .collect();
    let storm = delivery(&alerts);
    assert!(storm.to_string().len() > 1 << 20);
    for service in services {
        let answer = service.post(WEBHOOK, &storm).await.ok();
        assert_eq!(answer["counted"], 1);
        assert_eq!(answer["failed"], 0);
        assert_eq!(answer["alerts"][1_499]["reason"], "same_incident");
        assert_eq!(service.post(WEBHOOK, &storm).await.ok()["counted"], 0);
    }
}

#[tokio::test]
async fn a_start_that_was_never_set_is_the_time_of_the_first_delivery() {
    let (_redis, services) = on_both_stores().await;
    let unset = [
        json!("0001-01-01T00:00:00Z"),
        json!("0001-01-01T00:00:00.000+00:00"),
        json!("0001-01-01T00:53:28+00:53"),
        json!("0001-01-01 00:00:00 +0000 UTC"),
        json!("1970-01-01T00:00:00Z"),
        json!("1970-01-01T01:00:00.000+01:00"),
        json!(""),
        json!(null),
    ];
    for service in services {
        let mut episode = alert("12", &json!({"alertname": "Zero"}));
        for (index, start) in unset.iter().enumerate() {
            episode["startsAt"] = start.clone();
            let result = post(&service, episode.clone()).await;
            assert_eq!(result["counted"], index == 0, "{start}: {result}");
            assert_eq!(result["count_1h"], 1, "{start}");
        }
        episode.as_object_mut().unwrap().remove("startsAt");
        assert_eq!(post(&service, episode).await["reason"], "ongoing");
    }
}

#[tokio::test]
async fn labels_that_are_no_texts_are_accepted() {
    let (_redis, services) = on_both_stores().await;
    for service in services {
        for (labels, signature) in [
            (json!({"alertname": "N", "severity": 1, "ok": true}), ["N", "", ""]),
            (json!({"alertname": "M", "namespace": null}), ["M", "", ""]),
            (json!({"alertname": "N", "service": null, "job": "api"}), ["N", "api", ""]),
            (json!({"alertname": "N", "service": 8080}), ["N", "8080", ""]),
            (json!({"alertname": 14}), ["14", "", ""]),
            (json!({"alertname": "N", "reason": false}), ["N", "", "false"]),
            (json!({"alertname": "L", "list": [1, {"a": null}]}), ["L", "", ""]),
        ] {
            let result = post(&service, alert(&labels.to_string(), &labels)).await;
            assert_eq!(result["counted"], true, "{labels}: {result}");
            let path = format!("/anomalies/{}", result["anomaly_key"].as_str().unwrap());
            let known = service.get(&path).await.ok()["signature"].clone();
            let fields = ["alert_name", "service", "error_type"].map(|name| known[name].clone());
            assert_eq!(fields, signature, "{labels}");
        }
    }
}

#[tokio::test]
async fn a_malformed_value_in_an_alert_fails_nothing_else() {
    let (_redis, services) = on_both_stores().await;
    let good = alert("good", &json!({"alertname": "Good"})).to_string();
    let of = |labels: &str, annotations: &str| {
        format!(
            r#"{{"status":"firing","labels":{labels},"annotations":{annotations},"startsAt":"{}"}}"#,
            minute_ago()
        )
    };
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    for service in services {
        for (odd, counted) in [
            (of(r#"{"alertname":"Half \ud83d"}"#, "{}"), 1),
            (of(r#"{"alertname":"A1","x":1e999}"#, "{}"), 0),
            (of(r#"{"alertname":"A2"}"#, r#"{"x":1e999}"#), 1),
            (of(r#"{"alertname":"A3"}"#, &format!(r#"{{"x":{deep}}}"#)), 1),
            (of(r#"{"alertname":"A4"}"#, "null"), 1),
            (of(r#"{"alertname":"A5"}"#, "[]"), 1),
            (deep.clone(), 0),
        ] {
            let body =
                format!(r#"{{"version":"4","groupLabels":"","x":{deep},"alerts":[{odd},{good}]}}"#);
            let answer = service.post_raw(WEBHOOK, body).await.ok();
            let [odd_result, good_result] = &answer["alerts"].as_array().unwrap()[..] else {
                panic!("{answer}")
            };
            assert_eq!(odd_result["counted"], counted == 1, "{odd}: {odd_result}");
            assert_eq!(good_result["status"], "firing");
        }
        let half = format!("/anomalies/{}", key_of("Half \u{fffd}"));
        assert_eq!(service.get(&half).await.ok()["signature"]["alert_name"], "Half \u{fffd}");
    }
}

#[tokio::test]
async fn a_fingerprint_of_any_kind_distinguishes_alerts() {
    let redis = RedisServer::start();
    let each_alert = ("ALERTMANAGER__COUNT", "episode");
    let on_redis = Service::with(&[each_alert, ("REDIS__URL", &redis.url())]).await;
    let services = [Service::with(&[each_alert]).await, on_redis];
    let (long, other) = ("b".repeat(120), "b".repeat(121));
    let fingerprints =
        ["a".repeat(64).into(), long.into(), other.into(), json!("prod/caf\u{e9}"), json!(7)];
    for service in services {
        for counted in [true, false] {
            for fingerprint in &fingerprints {
                let mut alert = alert("", &json!({"alertname": "HighCPU"}));
                alert["fingerprint"] = fingerprint.clone();
                alert["startsAt"] = start_of_hour().into();
                let result = post(&service, alert).await;
                assert_eq!(result["counted"], counted, "{fingerprint}: {result}");
            }
        }
    }
}

/// Returns a time that is the same for all posts of a test.
fn start_of_hour() -> String {
    static TIME: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    TIME.get_or_init(minute_ago).clone()
}

#[tokio::test]
async fn a_delivery_without_alerts_is_accepted_and_other_bodies_are_refused_with_a_reason() {
    let service = Service::embedded().await;
    for empty in [r#"{"version":"4","alerts":null}"#, r#"{"version":"4","alerts":[]}"#] {
        let answer = service.post_raw(WEBHOOK, empty).await.ok();
        assert_eq!(answer["alerts"], json!([]));
    }
    for (other, status, says) in [
        (r#"{"version":"4","status":"resolved"}"#, 422, "not a delivery of Alertmanager"),
        ("[]", 422, "not an array"),
        ("null", 422, "not null"),
        ("{}", 422, "not a delivery of Alertmanager"),
        ("", 400, "JSON"),
        (r#"{"alerts":[]} {"alerts":[]}"#, 400, "trailing characters"),
        (r#"{"ruleId":58,"state":"alerting","evalMatches":[]}"#, 422, "before version 9"),
        (r#"{"ruleId":58,"state":"ok","title":"[OK]"}"#, 422, "before version 9"),
    ] {
        let detail = service.post_raw(WEBHOOK, other).await.problem(status);
        assert!(detail.contains(says), "{other}: {detail}");
    }
}

#[tokio::test]
async fn json_under_another_name_or_behind_a_byte_order_mark_is_read() {
    let service = Service::embedded().await;
    let body = delivery(&[alert("08", &json!({"alertname": "Queue"}))]).to_string();
    for content_type in ["text/plain; charset=UTF-8", "text/json", "Application/JSON"] {
        post_as(&service, content_type, body.clone()).await.ok();
    }
    for content_type in ["text/html", "application/x-www-form-urlencoded"] {
        post_as(&service, content_type, body.clone()).await.problem(415);
    }
    post_as(&service, "application/json", format!("\u{feff}{body}")).await.ok();
    let occurrence = "\u{feff}{\"alert_name\":\"BackupFailed\"}";
    service.post_raw("/anomalies", occurrence).await.ok();
    let latin1 = [body.as_bytes().strip_suffix(b"}").unwrap(), b",\"x\":\"caf\xe9\"}"].concat();
    post_as(&service, "application/json", latin1).await.ok();
}

#[tokio::test]
async fn a_compressed_body_is_refused_by_the_name_of_its_coding() {
    let service = Service::embedded().await;
    for path in ["/anomalies", WEBHOOK] {
        for (coding, is_taken) in [("gzip", false), ("zstd, br", false), ("identity", true)] {
            let request = service.request(Method::POST, path).header("content-encoding", coding);
            let body = json!({"alert_name": "HighCPU", "alerts": []});
            let answer = Answer::of(request.json(&body)).await;
            if is_taken {
                answer.ok();
            } else {
                let detail = answer.problem(415);
                assert!(detail.contains(coding), "{detail}");
            }
        }
    }
}
