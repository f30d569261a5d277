//! Callers with tokens: a real Alertmanager sends one in both of its ways, and deliveries in
//! Grafana's format are accepted with one. (Prometheus sends one in `metrics.rs`.)

use serde_json::json;

use crate::{
    alertmanager::grafana_delivery,
    support::{Alertmanager, Answer, eventually, key_of},
};

#[tokio::test]
async fn alertmanager_sends_a_token_as_bearer_and_as_basic() {
    let service = crate::access::guarded().await;
    for (name, http_config) in [
        ("Bearer", json!({"authorization": {"credentials": "ingest"}})),
        ("Basic", json!({"basic_auth": {"username": "alertmanager", "password": "ingest"}})),
    ] {
        let route = json!({"group_wait": "100ms", "group_interval": "1s"});
        let alertmanager = Alertmanager::start(&service, route, &http_config);
        alertmanager.send_alerts(&json!([{"labels": {"alertname": name}}])).await;
        eventually("the alert is counted", || async {
            let path = format!("/anomalies/{}/frequency", key_of(name));
            let asked = service.request(reqwest::Method::GET, &path).bearer_auth("read");
            let answer = Answer::of(asked).await;
            (answer.body["count_1h"] == 1).then_some(())
        })
        .await;
    }
}

/// Grafana's webhook contact points have an authorization header, or a user and a password.
#[tokio::test]
async fn a_grafana_delivery_is_accepted_with_a_token_as_bearer_and_as_basic() {
    let service = crate::access::guarded().await;
    let delivery = || {
        let request = service.request(reqwest::Method::POST, "/webhooks/alertmanager");
        request.header("user-agent", "Grafana").json(&grafana_delivery())
    };
    Answer::of(delivery()).await.problem(401);
    Answer::of(delivery().bearer_auth("read")).await.problem(403);
    for shown in [
        delivery().header("authorization", "Bearer ingest"),
        delivery().basic_auth("grafana", Some("ingest")),
    ] {
        assert_eq!(Answer::of(shown).await.ok()["failed"], 0);
    }
}
