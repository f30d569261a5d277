//! The answers to deliveries by real services on both stores.

use std::collections::BTreeMap;

use anomaly_counter::domain::Timestamp;
use serde_json::{Value, json};

use crate::support::{RedisServer, Service, eventually, healthy_again, key_of, wall_clock};

const WEBHOOK: &str = "/webhooks/alertmanager";
const UNSET: &str = "0001-01-01T00:00:00Z";

/// Alerts of one anomaly, with times in seconds before the beginning of the test.
struct Alerts {
    name: &'static str,
    begun: Timestamp,
}

impl Alerts {
    fn named(name: &'static str) -> Self {
        Self { name, begun: wall_clock() }
    }

    fn ago(&self, seconds: i64) -> String {
        self.begun.minus_seconds(seconds).to_string()
    }

    fn firing(&self, fingerprint: &str, starts_ago: i64) -> Value {
        json!({
            "status": "firing", "labels": {"alertname": self.name}, "annotations": {},
            "startsAt": self.ago(starts_ago), "endsAt": UNSET, "fingerprint": fingerprint,
        })
    }

    fn resolved(&self, fingerprint: &str, starts_ago: i64, ends_ago: i64) -> Value {
        let mut alert = self.firing(fingerprint, starts_ago);
        alert["status"] = "resolved".into();
        alert["endsAt"] = self.ago(ends_ago).into();
        alert
    }
}

fn delivery(alerts: &[Value]) -> Value {
    json!({"version": "4", "status": "firing", "receiver": "counter", "alerts": alerts})
}

/// Returns the answer to an alert: its reason, or `counted`.
fn answer(alert: &Value) -> String {
    match &alert["reason"] {
        Value::Null => {
            assert_eq!(alert["counted"], true, "{alert}");
            "counted".to_owned()
        }
        reason => {
            assert_ne!(alert["counted"], true, "{alert}");
            reason.as_str().unwrap().to_owned()
        }
    }
}

/// Posts one delivery, and returns the answer to each of its alerts.
async fn deliver(service: &Service, alerts: &[Value]) -> Vec<String> {
    let posted = service.post(WEBHOOK, &delivery(alerts)).await;
    assert!(posted.status.is_success(), "{}", posted.body);
    posted.body["alerts"].as_array().unwrap().iter().map(answer).collect()
}

/// Posts each alert in a delivery of its own.
async fn deliver_each(service: &Service, alerts: &[Value]) -> Vec<String> {
    let mut answers = Vec::new();
    for alert in alerts {
        answers.extend(deliver(service, std::slice::from_ref(alert)).await);
    }
    answers
}

async fn frequency(service: &Service, name: &str) -> Value {
    service.get(&format!("/anomalies/{}/frequency", key_of(name))).await.ok()
}

async fn firing(service: &Service, name: &str) -> Value {
    service.get(&format!("/anomalies/{}", key_of(name))).await.ok()["firing"].clone()
}

async fn on_both_stores(options: &[(&str, &str)]) -> (RedisServer, [Service; 2]) {
    let redis = RedisServer::start();
    let url = redis.url();
    let on_redis = Service::with(&[options, &[("REDIS__URL", &*url)]].concat()).await;
    let services = [Service::with(options).await, on_redis];
    (redis, services)
}

#[tokio::test]
async fn one_incident_counts_once_and_says_why_the_others_do_not() {
    let (_redis, services) = on_both_stores(&[]).await;
    for service in services {
        let replicas = Alerts::named("TargetDown");
        // Delivered in the order of their labels.
        let delivered = [replicas.firing("b", 55), replicas.firing("a", 60)];
        assert_eq!(deliver(&service, &delivered).await, ["same_incident", "counted"]);

        let pods = Alerts::named("PodCrashLooping");
        let delivered: Vec<Value> =
            (0..10).map(|pod| pods.firing(&format!("p{pod}"), 60)).collect();
        let answers = deliver(&service, &delivered).await;
        assert_eq!(answers[0], "counted");
        assert_eq!(answers[1..], ["same_incident"; 9]);
        let now_firing = firing(&service, "PodCrashLooping").await;
        assert_eq!(now_firing, json!({"episodes": 10, "since": pods.ago(60)}));

        // Nine pods end, and begin again before the tenth ends.
        let delivered: Vec<Value> =
            (0..9).map(|pod| pods.resolved(&format!("p{pod}"), 60, 40)).collect();
        assert_eq!(deliver(&service, &delivered).await, ["resolved"; 9]);
        assert_eq!(firing(&service, "PodCrashLooping").await["episodes"], 1);
        assert_eq!(deliver(&service, &[pods.firing("p0", 30)]).await, ["same_incident"]);
        let ends = [pods.resolved("p9", 60, 20), pods.resolved("p0", 30, 20)];
        assert_eq!(deliver(&service, &ends).await, ["resolved"; 2]);
        assert_eq!(firing(&service, "PodCrashLooping").await, Value::Null);
        assert_eq!(deliver(&service, &[pods.firing("p1", 10)]).await, ["counted"]);
        assert_eq!(frequency(&service, "PodCrashLooping").await["count_1h"], 2);
    }
}

#[tokio::test]
async fn an_end_and_the_next_beginning_in_one_delivery_are_two_incidents() {
    let (_redis, services) = on_both_stores(&[]).await;
    for service in services {
        let alerts = Alerts::named("Moving");
        assert_eq!(deliver(&service, &[alerts.firing("old", 100)]).await, ["counted"]);
        let delivered = [alerts.firing("new", 40), alerts.resolved("old", 100, 50)];
        assert_eq!(deliver(&service, &delivered).await, ["counted", "resolved"]);
    }
}

#[tokio::test]
async fn starts_that_move_are_unset_or_ahead_are_of_the_same_episode() {
    let (_redis, services) = on_both_stores(&[]).await;
    for service in services {
        let earlier = Alerts::named("Earlier");
        let delivered = [30, 45, 60, 75].map(|ago| earlier.firing("f", ago));
        let once = ["counted", "ongoing", "ongoing", "ongoing"];
        assert_eq!(deliver_each(&service, &delivered).await, once);
        let later = Alerts::named("Later");
        let delivered = [3_000, 2_000, 1_000, 500].map(|ago| later.firing("f", ago));
        assert_eq!(deliver_each(&service, &delivered).await, once);
        let finely = Alerts::named("Finely");
        let delivered =
            ["10.123456Z", "10.123457Z", "10.123457001Z", "10.123457002Z"].map(|second| {
                let mut alert = finely.firing("f", 0);
                alert["startsAt"] = format!("{}{second}", &finely.ago(300)[..17]).into();
                alert
            });
        assert_eq!(deliver_each(&service, &delivered).await, once);
        let ahead = Alerts::named("Ahead");
        let delivered = [-3_600; 4].map(|ago| ahead.firing("f", ago));
        assert_eq!(deliver_each(&service, &delivered).await, once);
        let unset = Alerts::named("Unset");
        let delivered = [UNSET, "", "1970-01-01T00:00:00Z", UNSET].map(|start| {
            let mut alert = unset.firing("f", 0);
            alert["startsAt"] = start.into();
            alert
        });
        assert_eq!(deliver_each(&service, &delivered).await, once);
    }
}

#[tokio::test]
async fn an_end_may_come_before_its_beginning_and_twice() {
    let (_redis, services) = on_both_stores(&[]).await;
    for service in services {
        let alerts = Alerts::named("Flap");
        let delivered = [
            alerts.resolved("f", 120, 100),
            alerts.firing("f", 120),
            alerts.resolved("f", 120, 60),
            alerts.firing("f", 120),
            alerts.firing("f", 20),
        ];
        let expected = ["resolved", "counted", "resolved", "stale", "counted"];
        assert_eq!(deliver_each(&service, &delivered).await, expected);
        assert_eq!(frequency(&service, "Flap").await["count_1h"], 2);
    }
}

#[tokio::test]
async fn a_flap_whose_end_was_never_delivered_counts() {
    let (_redis, services) = on_both_stores(&[]).await;
    for service in services {
        let alerts = Alerts::named("Quick");
        assert_eq!(deliver(&service, &[alerts.firing("f", 300)]).await, ["counted"]);
        let again = wall_clock().plus_seconds(0).to_string();
        let mut alert = alerts.firing("f", 0);
        alert["startsAt"] = again.into();
        assert_eq!(deliver(&service, &[alert]).await, ["counted"]);
    }
}

#[tokio::test]
async fn a_rule_that_grafana_saves_again_makes_no_new_incident() {
    let (_redis, services) = on_both_stores(&[]).await;
    for service in services {
        for reason in ["Updated", "Paused", "RuleDeleted", "MissingSeries, Updated"] {
            let alerts = Alerts::named("DiskFull");
            let fingerprint = reason;
            let mut answers = Vec::new();
            for number in (1..=5).rev() {
                let start = number * 1_800;
                let mut end = alerts.resolved(fingerprint, start, start - 1_790);
                end["annotations"] = json!({"grafana_state_reason": reason});
                let delivered = [alerts.firing(fingerprint, start), end];
                answers.extend(deliver_each(&service, &delivered).await);
            }
            let again = answers.iter().filter(|answer| *answer == "counted").count();
            assert!(again <= 1, "{reason}: {answers:?}");
        }
        let alerts = Alerts::named("DiskFull2");
        let mut answers = Vec::new();
        for number in (1..=2).rev() {
            let start = number * 1_800;
            let mut end = alerts.resolved("f", start, start - 1_790);
            end["annotations"] = json!({"grafana_state_reason": "NoData"});
            answers.extend(deliver_each(&service, &[alerts.firing("f", start), end]).await);
        }
        assert_eq!(answers, ["counted", "resolved", "counted", "resolved"]);
    }
}

#[tokio::test]
async fn the_first_episode_after_a_permanent_fix_counts_and_is_a_regression() {
    let (_redis, services) = on_both_stores(&[]).await;
    for service in services {
        let before = Alerts::named("Leak");
        assert_eq!(deliver(&service, &[before.firing("a", 60)]).await, ["counted"]);
        let fix = json!({"anomaly_key": key_of("Leak").to_string(), "fix_description": "x"});
        service.put("/permanent-fix", &fix).await.ok();
        assert_eq!(deliver(&service, &[before.firing("b", 1)]).await, ["same_incident"]);
        assert_eq!(frequency(&service, "Leak").await["regressed"], false);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        let after = Alerts::named("Leak");
        assert_eq!(deliver(&service, &[after.firing("c", 0)]).await, ["counted"]);
        assert_eq!(deliver(&service, &[after.firing("d", 0)]).await, ["same_incident"]);
        assert_eq!(frequency(&service, "Leak").await["regressed"], true);
        assert_eq!(deliver(&service, &[before.firing("a", 60)]).await, ["ongoing"]);
    }
}

#[tokio::test]
async fn an_anomaly_that_is_forgotten_begins_anew() {
    let (_redis, services) = on_both_stores(&[]).await;
    for service in services {
        let alerts = Alerts::named("Test");
        for _ in 0..2 {
            assert_eq!(deliver(&service, &[alerts.firing("a", 60)]).await, ["counted"]);
            assert_eq!(deliver(&service, &[alerts.firing("a", 60)]).await, ["ongoing"]);
            service.delete(&format!("/anomalies/{}", key_of("Test"))).await.ok();
        }
    }
}

#[tokio::test]
async fn options_decide_whether_each_alert_each_delivery_or_a_missed_alert_counts() {
    for (option, value, expected) in [
        ("ALERTMANAGER__COUNT", "episode", ["counted", "counted", "ongoing", "resolved"]),
        ("ALERTMANAGER__COUNT", "delivery", ["counted", "counted", "counted", "resolved"]),
        ("ALERTMANAGER__COUNT_MISSED", "true", ["counted", "same_incident", "ongoing", "resolved"]),
    ] {
        let (_redis, services) = on_both_stores(&[(option, value)]).await;
        for service in services {
            let alerts = Alerts::named("Units");
            let delivered = [
                alerts.firing("a", 60),
                alerts.firing("b", 50),
                alerts.firing("a", 60),
                alerts.resolved("b", 50, 40),
            ];
            assert_eq!(deliver_each(&service, &delivered).await, expected, "{option}={value}");
            let missed = Alerts::named("Missed");
            let delivered =
                [missed.resolved("c", 3_000, 2_000), missed.resolved("c", 3_000, 2_000)];
            let first = if option.ends_with("MISSED") { "counted" } else { "resolved" };
            assert_eq!(deliver_each(&service, &delivered).await, [first, "resolved"], "{value}");
        }
    }
}

#[tokio::test]
async fn an_alert_that_is_not_delivered_any_more_ends_after_the_configured_time() {
    let (_redis, services) = on_both_stores(&[("ALERTMANAGER__STALE_AFTER", "1s")]).await;
    for service in services {
        let alerts = Alerts::named("Silent");
        assert_eq!(deliver(&service, &[alerts.firing("a", 60)]).await, ["counted"]);
        assert_eq!(firing(&service, "Silent").await["episodes"], 1);
        eventually("it has ended", || async {
            (firing(&service, "Silent").await == Value::Null).then_some(())
        })
        .await;
        let later = Alerts::named("Silent");
        assert_eq!(deliver(&service, &[later.firing("b", 0)]).await, ["counted"]);
    }
}

/// Each of two instances of Alertmanager delivers to another instance of the service.
#[tokio::test]
async fn an_ha_pair_and_two_instances_on_one_redis_count_each_incident_once() {
    let redis = RedisServer::start();
    let instances = [Service::on_redis(&redis).await, Service::on_redis(&redis).await];
    let alerts = Alerts::named("Pair");
    for episode in 0..4 {
        let start = 1_000 - episode * 200;
        let pods: Vec<Value> =
            (0..20).map(|pod| alerts.firing(&format!("p{pod}"), start)).collect();
        let ends: Vec<Value> =
            (0..20).map(|pod| alerts.resolved(&format!("p{pod}"), start, start - 100)).collect();
        for delivered in [pods, ends] {
            let [first, second] = &instances;
            let answers = tokio::join!(deliver(first, &delivered), deliver(second, &delivered));
            let answers = [answers.0, answers.1].concat();
            let counted = answers.iter().filter(|answer| *answer == "counted").count();
            let expected = usize::from(!answers.contains(&"resolved".to_owned()));
            assert_eq!(counted, expected, "{answers:?}");
        }
    }
    assert_eq!(frequency(&instances[0], "Pair").await["count_1h"], 4);
}

#[tokio::test]
async fn the_state_of_alerts_survives_a_restart() {
    let service = Service::embedded().await;
    let alerts = Alerts::named("Restart");
    let delivered = [alerts.firing("a", 60), alerts.firing("b", 50)];
    assert_eq!(deliver(&service, &delivered).await, ["counted", "same_incident"]);
    let service = service.restart().await;
    assert_eq!(deliver(&service, &delivered).await, ["ongoing", "ongoing"]);
    assert_eq!(deliver(&service, &[alerts.firing("c", 40)]).await, ["same_incident"]);
    assert_eq!(firing(&service, "Restart").await["episodes"], 3);
}

/// Makes the deliveries of an outage: two incidents, the second one of two pods.
async fn deliver_in_outage(service: &Service, alerts: &Alerts) {
    let delivered = [
        alerts.firing("a", 300),
        alerts.resolved("a", 300, 200),
        alerts.firing("b", 100),
        alerts.firing("c", 90),
        alerts.firing("b", 100),
    ];
    for alert in &delivered {
        let posted = service.post(WEBHOOK, &delivery(std::slice::from_ref(alert))).await;
        assert_eq!(posted.status, 202, "{}", posted.body);
        assert_eq!(posted.body["waiting"], 1, "{}", posted.body);
        let result = &posted.body["alerts"][0];
        assert_eq!(result["status"], alert["status"]);
        assert_eq!(result["counted"], Value::Null, "{result}");
        assert_eq!(result["reason"], "waiting", "{result}");
        assert_eq!(result["degraded"], true, "{result}");
    }
}

#[tokio::test]
async fn deliveries_of_an_outage_are_decided_when_they_are_applied() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    redis.kill();
    let alerts = Alerts::named("Outage");
    deliver_in_outage(&service, &alerts).await;
    redis.restart();
    healthy_again(&service).await;
    assert_eq!(frequency(&service, "Outage").await["count_1h"], 2);
    assert_eq!(firing(&service, "Outage").await["episodes"], 2);
    let delivered = [alerts.firing("b", 100), alerts.resolved("c", 90, 80)];
    assert_eq!(deliver_each(&service, &delivered).await, ["ongoing", "resolved"]);
    assert_eq!(service.get("/spool/dead-letters").await.ok(), json!([]));
}

#[tokio::test]
async fn deliveries_of_an_outage_survive_a_restart() {
    let mut redis = RedisServer::start();
    let mut service = Service::on_redis(&redis).await;
    redis.kill();
    deliver_in_outage(&service, &Alerts::named("Spooled")).await;
    service.kill();
    let service = service.successor().await;
    redis.restart();
    healthy_again(&service).await;
    assert_eq!(frequency(&service, "Spooled").await["count_1h"], 2);
    assert_eq!(firing(&service, "Spooled").await["episodes"], 2);
}

#[tokio::test]
async fn an_old_alert_that_waits_is_no_dead_letter() {
    let redis = RedisServer::start();
    let (service, _clock) = Service::aged(&[("REDIS__URL", &redis.url())]).await;
    let mut redis = redis;
    redis.kill();
    let alerts = Alerts::named("Ancient");
    assert_eq!(deliver(&service, &[alerts.firing("a", 45 * 86_400)]).await, ["waiting"]);
    redis.restart();
    healthy_again(&service).await;
    assert_eq!(frequency(&service, "Ancient").await["count_30d"], 0);
    assert_eq!(firing(&service, "Ancient").await["episodes"], 1);
    assert_eq!(service.get("/spool/dead-letters").await.ok(), json!([]));
}

/// The failover is to a server that has none of the alerts.
#[tokio::test]
async fn alerts_that_a_failover_has_lost_are_sent_again() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    let alerts = Alerts::named("Failover");
    let delivered = [
        alerts.firing("a", 300),
        alerts.firing("b", 290),
        alerts.resolved("a", 300, 200),
        alerts.resolved("b", 290, 190),
        alerts.firing("a", 100),
        alerts.firing("a", 100),
    ];
    let expected = ["counted", "same_incident", "resolved", "resolved", "counted", "ongoing"];
    assert_eq!(deliver_each(&service, &delivered).await, expected);
    redis.restart_empty();
    eventually("all of it is sent again", || async {
        let answer = service.get(&format!("/anomalies/{}", key_of("Failover"))).await;
        let is_there = answer.body["frequency"]["count_1h"] == 2
            && answer.body["frequency"]["degraded"] == false
            && answer.body["firing"]["episodes"] == 1;
        is_there.then_some(())
    })
    .await;
    let more = [alerts.firing("b", 90), alerts.firing("a", 100)];
    assert_eq!(deliver_each(&service, &more).await, ["same_incident", "ongoing"]);
}

/// A plain occurrence always counts, whatever the alerts do.
#[tokio::test]
async fn occurrences_that_are_posted_count_beside_alerts() {
    let (_redis, services) = on_both_stores(&[]).await;
    for service in services {
        let alerts = Alerts::named("Both");
        let delivered: Vec<Value> = (0..30).map(|n| alerts.firing(&format!("f{n}"), 60)).collect();
        let posts: Vec<Value> = (0..30).map(|_| json!({"alert_name": "Both"})).collect();
        let posts = Value::from(posts);
        let (answers, posted) =
            tokio::join!(deliver_each(&service, &delivered), service.post("/anomalies", &posts));
        assert!(posted.ok().as_array().unwrap().iter().all(|each| each["counted"] == true));
        let mut by_answer = BTreeMap::<String, usize>::new();
        answers.into_iter().for_each(|answer| *by_answer.entry(answer).or_default() += 1);
        assert_eq!(by_answer["counted"], 1, "{by_answer:?}");
        assert_eq!(frequency(&service, "Both").await["count_1h"], 31);
    }
}
