//! Deliveries of Alertmanager and Grafana: captured ones, malformed ones, and a real Alertmanager.

use std::{path::Path, process::Command};

use anomaly_counter::domain::Timestamp;
use serde_json::{Value, json};

use crate::support::{RedisServer, Service, healthy_again, key_of, wall_clock};

const WEBHOOK: &str = "/webhooks/alertmanager";

/// The deliveries of a real Alertmanager 0.25, moved in time so that the newest episode began a
/// minute ago.
fn captured() -> Vec<Value> {
    let file: Value =
        serde_json::from_str(include_str!("data/alertmanager_0.25_deliveries.json")).unwrap();
    let deliveries = file["deliveries"].as_array().unwrap();
    let mut bodies: Vec<Value> = deliveries.iter().map(|d| d["body"].clone()).collect();
    let time = |alert: &Value, name: &str| {
        Timestamp::parse_rfc3339(alert[name].as_str().unwrap()).unwrap().as_micros()
    };
    let starts = bodies.iter().flat_map(alerts).map(|alert| time(alert, "startsAt"));
    let shift = wall_clock().minus_seconds(60).as_micros() - starts.max().unwrap();
    for body in &mut bodies {
        for alert in body["alerts"].as_array_mut().unwrap() {
            for name in ["startsAt", "endsAt"] {
                let moved = Timestamp::from_micros(time(alert, name) + shift);
                if alert[name] != "0001-01-01T00:00:00Z" {
                    alert[name] = moved.to_string().into();
                }
            }
        }
    }
    bodies
}

fn alerts(delivery: &Value) -> &Vec<Value> {
    delivery["alerts"].as_array().unwrap()
}

fn firing(fingerprint: &str, starts_at: &str, labels: &Value) -> Value {
    json!({
        "status": "firing", "labels": labels, "annotations": {"summary": "s"},
        "startsAt": starts_at, "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "",
        "fingerprint": fingerprint,
    })
}

fn resolved(fingerprint: &str, starts_at: &str, ends_at: &str, labels: &Value) -> Value {
    let mut alert = firing(fingerprint, starts_at, labels);
    alert["status"] = "resolved".into();
    alert["endsAt"] = ends_at.into();
    alert
}

fn delivery(alerts: &[Value]) -> Value {
    json!({"version": "4", "status": "firing", "receiver": "counter", "alerts": alerts})
}

#[tokio::test]
async fn the_captured_deliveries_count_each_episode_once() {
    let redis = RedisServer::start();
    for service in [Service::embedded().await, Service::on_redis(&redis).await] {
        let deliveries = captured();
        let mut episodes = std::collections::BTreeSet::new();
        let mut counted = 0;
        for delivery in &deliveries {
            for alert in alerts(delivery).iter().filter(|alert| alert["status"] == "firing") {
                episodes.insert([&alert["fingerprint"], &alert["startsAt"]].map(Value::to_string));
            }
            let answer = service.post(WEBHOOK, delivery).await.ok();
            assert_eq!(answer["failed"], 0, "{answer}");
            counted += answer["counted"].as_u64().unwrap();
        }
        assert!(deliveries.len() > episodes.len(), "the capture holds re-sends");
        assert_eq!(counted, episodes.len() as u64);
        // In the second round, all of them are re-sends.
        for delivery in &deliveries {
            assert_eq!(service.post(WEBHOOK, delivery).await.ok()["counted"], 0);
        }
    }
}

#[tokio::test]
async fn labels_are_the_signature_and_the_rest_is_metadata() {
    let service = Service::embedded().await;
    let labels = json!({
        "alertname": "HighCPU", "job": "api", "namespace": "prod", "reason": "Load", "pod": "p",
    });
    let now = wall_clock().to_string();
    let answer = service.post(WEBHOOK, &delivery(&[firing("f1", &now, &labels)])).await.ok();
    let alert = &answer["alerts"][0];
    assert_eq!(alert["status"], "firing");
    assert_eq!(alert["fingerprint"], "f1");
    let known =
        service.get(&format!("/anomalies/{}", alert["anomaly_key"].as_str().unwrap())).await.ok();
    let signature = json!({
        "alert_name": "HighCPU", "service": "api", "namespace": "prod", "error_type": "Load",
    });
    assert_eq!(known["signature"], signature);
    assert_eq!(known["metadata"], json!({"pod": "p", "annotations": {"summary": "s"}}));
}

#[tokio::test]
async fn a_new_beginning_counts_again_and_an_end_does_not() {
    let service = Service::embedded().await;
    let labels = json!({"alertname": "HighCPU"});
    let [first, end, second] = [120, 90, 60].map(|age| wall_clock().minus_seconds(age).to_string());
    let post = async |alert: Value| service.post(WEBHOOK, &delivery(&[alert])).await.ok();
    assert_eq!(post(firing("f", &first, &labels)).await["counted"], 1);
    assert_eq!(post(firing("f", &first, &labels)).await["counted"], 0);
    // The same moment in another spelling is the same episode.
    let spelled = first.replace('Z', "+00:00");
    assert_eq!(post(firing("f", &spelled, &labels)).await["counted"], 0);
    let end = post(resolved("f", &first, &end, &labels)).await;
    assert_eq!(end["counted"], 0);
    assert_eq!(end["alerts"][0]["status"], "resolved");
    assert_eq!(end["alerts"][0]["reason"], "resolved");
    assert_eq!(post(firing("f", &second, &labels)).await["alerts"][0]["count_24h"], 2);
}

#[tokio::test]
async fn a_malformed_alert_fails_itself_alone() {
    let service = Service::embedded().await;
    let now = wall_clock().to_string();
    let good = firing("ok", &now, &json!({"alertname": "HighCPU"}));
    let bad = [
        json!("no alert"),
        json!({"status": "firing"}),
        firing("f", "yesterday", &json!({"alertname": "A"})),
        firing("f", &now, &json!({"alertname": [7]})),
        firing("f", &now, &json!({"severity": "critical"})),
        firing("f", &now, &json!({"alertname": null})),
        json!({"status": "odd", "labels": {"alertname": "A"}, "startsAt": now}),
    ];
    let mut sent = bad.to_vec();
    sent.push(good);
    let answer = service.post(WEBHOOK, &delivery(&sent)).await.ok();
    assert_eq!(answer["counted"], 1);
    assert_eq!(answer["failed"], bad.len());
    for (i, alert) in alerts(&answer).iter().enumerate().take(bad.len()) {
        assert_eq!(alert["status"], "failed", "{i}");
        assert_eq!(alert["counted"], false, "{i}");
        assert_eq!(alert["reason"], "failed", "{i}");
        assert!(alert["problem"]["detail"].is_string());
    }
    // A body that is not a delivery is refused: a retry would not help.
    service.post(WEBHOOK, &json!({"version": "4"})).await.problem(422);
    service.post(WEBHOOK, &json!([])).await.problem(422);
    service.post(WEBHOOK, &json!({"alerts": {}})).await.problem(422);
}

#[tokio::test]
async fn an_alert_that_has_fired_for_45_days_is_known_with_zeros() {
    let redis = RedisServer::start();
    for options in [vec![], vec![("REDIS__URL", redis.url())]] {
        let options: Vec<_> = options.iter().map(|(name, url)| (*name, url.as_str())).collect();
        let (service, _clock) = Service::aged(&options).await;
        let began = wall_clock().minus_seconds(45 * 86_400).to_string();
        let alert = firing("f", &began, &json!({"alertname": "CertExpired", "pod": "p"}));
        let answer = service.post(WEBHOOK, &delivery(&[alert])).await.ok();
        assert_eq!(answer["alerts"][0]["counted"], false);
        assert_eq!(answer["alerts"][0]["reason"], "too_old");
        let path = format!("/anomalies/{}", key_of("CertExpired"));
        let frequency = service.get(&format!("{path}/frequency")).await.ok();
        assert_eq!(frequency["count_30d"], 0);
        assert_eq!(frequency["first_seen"], Value::Null);
        let known = service.get(&path).await.ok();
        assert_eq!(known["signature"]["alert_name"], "CertExpired");
        assert_eq!(known["metadata"]["pod"], "p");
        assert_eq!(known["known_since"], began);
        service.get(&format!("/anomalies/{}", key_of("CertExpird"))).await.problem(404);
    }
}

#[tokio::test]
async fn an_episode_outside_thirty_days_is_not_counted() {
    let (service, _clock) = Service::aged(&[]).await;
    let labels = json!({"alertname": "HighCPU"});
    let alert = firing("f", "2020-01-01T00:00:00Z", &labels);
    let answer = service.post(WEBHOOK, &delivery(&[alert])).await.ok();
    assert_eq!(answer["counted"], 0);
    assert_eq!(answer["failed"], 0);
    assert_eq!(answer["alerts"][0]["counted"], false);
    assert_eq!(answer["alerts"][0]["reason"], "too_old");
    // If the sender's clock is ahead, the alert is counted as of now.
    let ahead = wall_clock().plus_seconds(3_600).to_string();
    for counted in [1, 0] {
        let answer = service.post(WEBHOOK, &delivery(&[firing("f", &ahead, &labels)])).await.ok();
        let alert = &answer["alerts"][0];
        assert_eq!(answer["counted"], counted);
        assert_eq!(alert["count_1h"], 1);
    }
}

#[tokio::test]
async fn an_alert_without_a_fingerprint_is_identified_by_its_labels() {
    let service = Service::embedded().await;
    let now = wall_clock().to_string();
    let alert = |pod: &str| {
        let mut alert = firing("", &now, &json!({"alertname": "HighCPU", "pod": pod}));
        alert.as_object_mut().unwrap().remove("fingerprint");
        alert
    };
    let both = delivery(&[alert("a"), alert("b"), alert("a")]);
    let answer = service.post(WEBHOOK, &both).await.ok();
    assert_eq!(answer["counted"], 1);
    assert_eq!(answer["alerts"][1]["reason"], "same_incident");
    assert_eq!(answer["alerts"][2]["reason"], "ongoing");
}

#[tokio::test]
async fn every_delivery_counts_if_so_configured() {
    let service = Service::with(&[("ALERTMANAGER__COUNT", "delivery")]).await;
    let long_ago = wall_clock().minus_seconds(7_200).to_string();
    let body = delivery(&[firing("f", &long_ago, &json!({"alertname": "HighCPU"}))]);
    for count in 1..=3 {
        let answer = service.post(WEBHOOK, &body).await.ok();
        assert_eq!(answer["counted"], 1);
        assert_eq!(answer["alerts"][0]["count_1h"], count);
    }
}

/// A delivery of Grafana 12, with an alert that begins to fire.
pub(crate) fn grafana_delivery() -> Value {
    let now = wall_clock().to_string();
    json!({
        "receiver": "counter", "status": "firing", "orgId": 1, "version": "1",
        "title": "[FIRING:1] HighCPU", "state": "alerting", "message": "**Firing**",
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "truncatedAlerts": 2,
        "externalURL": "https://grafana.example/", "groupKey": "{}:{}", "appVersion": "12.1.0",
        "alerts": [{
            "status": "firing", "labels": {"alertname": "HighCPU", "grafana_folder": "prod"},
            "annotations": {"summary": "s"}, "startsAt": now, "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "https://grafana.example/alerting/1", "fingerprint": "c6eadffa33fcdf37",
            "silenceURL": "https://grafana.example/silence", "dashboardURL": "", "panelURL": "",
            "imageURL": null, "values": {"A": 97.5, "B": null}, "valueString": "[ var='A' ]",
            "orgId": 1, "ruleUID": "x",
        }],
    })
}

#[tokio::test]
async fn a_grafana_delivery_is_read_whatever_else_it_holds() {
    let service = Service::embedded().await;
    let answer = service.post(WEBHOOK, &grafana_delivery()).await.ok();
    assert_eq!(answer["counted"], 1);
    assert_eq!(answer["failed"], 0);
}

#[tokio::test]
async fn a_delivery_is_accepted_while_the_store_does_not_answer() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    redis.kill();
    let now = wall_clock().to_string();
    let body = delivery(&[firing("f", &now, &json!({"alertname": "HighCPU"})), json!("malformed")]);
    for _ in 0..2 {
        let answer = service.post(WEBHOOK, &body).await;
        assert_eq!(answer.status, 202);
        assert_eq!(answer.body["counted"], 0);
        assert_eq!(answer.body["waiting"], 1);
        assert_eq!(answer.body["failed"], 1);
        let alert = &answer.body["alerts"][0];
        assert!(alert["counted"].is_null(), "{alert}");
        assert_eq!(alert["reason"], "waiting");
        assert_eq!(alert["degraded"], true);
        // Nothing is known of the anomaly: a zero would be wrong.
        assert_eq!(alert["count_1h"], 1);
    }
}

#[tokio::test]
async fn the_counts_of_an_alert_that_waits_leave_it_out() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    let labels = json!({"alertname": "HighCPU"});
    let began = |age| wall_clock().minus_seconds(age).to_string();
    for alert in [
        firing("f", &began(300), &labels),
        resolved("f", &began(300), &began(250), &labels),
        firing("f", &began(200), &labels),
        resolved("f", &began(200), &began(150), &labels),
    ] {
        service.post(WEBHOOK, &delivery(&[alert])).await.ok();
    }
    redis.kill();
    let pods = ["a", "b"].map(|pod| firing(pod, &began(100), &labels));
    let answer = service.post(WEBHOOK, &delivery(&pods)).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.body["waiting"], 2);
    for alert in alerts(&answer.body) {
        assert_eq!(alert["reason"], "waiting");
        assert_eq!(alert["count_1h"], 2);
        assert_eq!(alert["escalation_level"], Value::Null);
    }
    redis.restart();
    healthy_again(&service).await;
    let path = format!("/anomalies/{}/frequency", key_of("HighCPU"));
    assert_eq!(service.get(&path).await.ok()["count_1h"], 3, "the pods are one incident");
}

#[tokio::test]
async fn a_delivery_that_neither_store_nor_spool_accepts_is_refused_and_can_be_sent_again() {
    let mut redis = RedisServer::start();
    let options = [("REDIS__URL", &*redis.url()), ("SPOOL__MAX_BYTES", "2000")];
    let service = Service::with(&options).await;
    redis.kill();
    let now = wall_clock().to_string();
    let alert = |n: usize| firing(&n.to_string(), &now, &json!({"alertname": format!("A{n}")}));
    let mut many = vec![json!("malformed")];
    many.extend((0..100).map(alert));
    let refused = service.post(WEBHOOK, &delivery(&many)).await;
    refused.problem(503);
    assert_eq!(refused.headers["retry-after"], "1");
    redis.restart();
    healthy_again(&service).await;
    let again = service.post(WEBHOOK, &delivery(&many)).await.ok();
    assert_eq!(again["failed"], 1);
    for alert in &alerts(&again)[1..] {
        assert_eq!(alert["count_1h"], 1);
    }
}

/// The README's example, with a real Alertmanager.
#[test]
fn the_example_counts_what_a_real_alertmanager_sends() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/alertmanager/run.sh");
    let output = Command::new(script)
        .env("ANOMALY_COUNTER_BIN", env!("CARGO_BIN_EXE_anomaly-counter"))
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}\n{errors}");
    let counts: Vec<_> = shown
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|frequency| frequency["count_1h"].as_u64().unwrap())
        .collect();
    assert_eq!(counts, [1, 1, 1, 2], "fired, re-sent, resolved, fired again:\n{shown}");
}
