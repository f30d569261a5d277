//! The incidents of a week, as a real Alertmanager with short intervals delivers them.

use anomaly_counter::domain::Timestamp;
use serde_json::{Value, json};

use crate::support::{Alertmanager, Service, eventually, key_of, metric, wall_clock};

/// Returns an alert as Prometheus sends it; a firing one ends in an hour unless it is sent again.
fn alert(name: &str, label: &str, value: &str, starts: Timestamp, ends: Timestamp) -> Value {
    json!({
        "labels": {"alertname": name, label: value},
        "startsAt": starts.to_string(), "endsAt": ends.to_string(),
    })
}

async fn count(service: &Service, name: &str) -> Value {
    service.get(&format!("/anomalies/{}/frequency", key_of(name))).await.body["count_1h"].clone()
}

async fn becomes(service: &Service, name: &str, expected: u64) {
    eventually(&format!("{name} is counted {expected} times"), || async {
        (count(service, name).await == expected).then_some(())
    })
    .await;
}

async fn firing(service: &Service, name: &str, expected: u64) {
    eventually(&format!("of {name} {expected} alerts fire"), || async {
        let path = format!("/anomalies/{}", key_of(name));
        let firing = service.get(&path).await.body["firing"]["episodes"].as_u64();
        (firing.unwrap_or_default() == expected).then_some(())
    })
    .await;
}

/// Waits until both instances have delivered several times more.
async fn some_deliveries(service: &Service) {
    let heard = "anomaly_counter_webhook_alerts_total{result=\"not_counted\"}";
    let before = metric(service, heard).await;
    eventually("what fires is delivered again", || async {
        (metric(service, heard).await > before + 100.0).then_some(())
    })
    .await;
}

/// Both members of an HA pair deliver everything, because they have lost contact with each other.
#[tokio::test]
async fn a_week_of_a_real_alertmanager_counts_its_incidents() {
    let service = Service::embedded().await;
    let route = json!({
        "group_by": ["alertname"], "group_wait": "100ms", "group_interval": "2s",
        "repeat_interval": "1s",
    });
    let pair = [(); 2].map(|()| Alertmanager::start(&service, route.clone(), &json!({})));
    // Alertmanager does not wait for the rest of a group whose alert began before `group_wait`, and
    // takes the alerts of a call in their order. One that is delivered after another has counted,
    // and began before it, counts too, by the rules: so the earliest is first in each call.
    let send = async |mut alerts: Vec<Value>| {
        alerts.sort_by_key(|alert| alert["startsAt"].to_string());
        let alerts = Value::from(alerts);
        tokio::join!(pair[0].send_alerts(&alerts), pair[1].send_alerts(&alerts));
    };
    let begun = wall_clock();
    let ago = |seconds| begun.minus_seconds(seconds);
    let later = begun.plus_seconds(3_600);

    // The order of the labels is not that of the starts.
    send(vec![alert("HaPair", "pod", "p", ago(60), later)]).await;
    let replicas = [("a", 55), ("b", 60)];
    send(replicas.map(|(name, s)| alert("Replicas", "replica", name, ago(s), later)).into()).await;
    let pods = (0..10).map(|n| alert("Rollout", "pod", &format!("p{n}"), ago(60 - n), later));
    send(pods.collect()).await;
    let windows = [("5m", 30), ("30m", 40), ("2h", 20), ("6h", 50)];
    send(windows.map(|(name, s)| alert("BurnRate", "long", name, ago(s), later)).into()).await;
    for name in ["Moves", "Flaps", "Returns"] {
        send(vec![alert(name, "instance", "one", ago(60), later)]).await;
    }
    for name in ["HaPair", "Replicas", "Rollout", "BurnRate", "Moves", "Flaps", "Returns"] {
        becomes(&service, name, 1).await;
    }
    firing(&service, "Rollout", 10).await;

    // The exporter gets another address: one alert ends at the moment at which the other begins.
    let moved = wall_clock();
    send(vec![
        alert("Moves", "instance", "one", ago(60), moved),
        alert("Moves", "instance", "two", moved, later),
    ])
    .await;
    // It stops and begins again before anything is delivered: only its start shows that.
    let flapped = wall_clock();
    send(vec![alert("Flaps", "instance", "one", ago(60), flapped)]).await;
    send(vec![alert("Flaps", "instance", "one", flapped.plus_seconds(1), later)]).await;
    send(vec![alert("Returns", "instance", "one", ago(60), wall_clock())]).await;
    firing(&service, "Returns", 0).await;
    send(vec![alert("Returns", "instance", "one", wall_clock(), later)]).await;
    becomes(&service, "Flaps", 2).await;
    becomes(&service, "Returns", 2).await;
    firing(&service, "Moves", 1).await;

    some_deliveries(&service).await;
    let expected = [
        ("HaPair", 1),
        ("Replicas", 1),
        ("Rollout", 1),
        ("BurnRate", 1),
        ("Moves", 1),
        ("Flaps", 2),
        ("Returns", 2),
    ];
    for (name, incidents) in expected {
        assert_eq!(count(&service, name).await, incidents, "{name}");
    }
}
