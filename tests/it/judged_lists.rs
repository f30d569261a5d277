//! Lists and summaries of anomalies with rules of their own, and of those with firing alerts.

use serde_json::{Value, json};

use crate::support::{RedisServer, Service, eventually, wall_clock};

const WEBHOOK: &str = "/webhooks/alertmanager";

const RULES: &str = r#"
[[rule]]
name = "dev"
match = ['namespace=~"dev-.*"']
levels = "none"

[[rule]]
name = "batch"
match = ['namespace="batch"']
[rule.levels]
REPEAT = ["2 in 24h"]
ESCALATE = ["3 in 6h"]
"#;

/// Starts a service on each store, with these rules.
async fn services(redis: &RedisServer) -> [Service; 2] {
    let of_redis = format!("redis.url = \"{}\"\n", redis.url());
    let with_rules = async |config: &str| {
        let config = format!("rules.file = \"rules.toml\"\n{config}");
        complete(Service::with_files(&config, &[("rules.toml", RULES)]).await).await
    };
    [with_rules("").await, with_rules(&of_redis).await]
}

async fn complete(service: Service) -> Service {
    eventually("the list is complete", || async {
        (service.get("/anomalies?limit=1").await.ok()["complete"] == true).then_some(())
    })
    .await;
    service
}

/// Posts occurrences of this many seconds ago.
async fn post(service: &Service, name: &str, namespace: &str, seconds_ago: &[i64]) {
    let occurrence = |ago: &i64| {
        let at = wall_clock().minus_seconds(*ago).to_string();
        json!({"alert_name": name, "namespace": namespace, "occurred_at": at})
    };
    let occurrences: Vec<_> = seconds_ago.iter().map(occurrence).collect();
    service.post("/anomalies", &json!(occurrences)).await.ok();
}

/// Returns the names in a list, which must be exact.
async fn names(service: &Service, query: &str) -> Vec<String> {
    let list = service.get(&format!("/anomalies?sort=last_seen&{query}")).await.ok();
    assert_eq!(list["ranking"], "exact", "{query}");
    let anomalies = list["anomalies"].as_array().unwrap().iter();
    let mut names: Vec<_> =
        anomalies.map(|one| one["signature"]["alert_name"].as_str().unwrap().to_owned()).collect();
    names.sort_unstable();
    names
}

async fn must_read_like_the_anomalies(service: &Service) {
    let list = service.get("/anomalies").await.ok();
    for item in list["anomalies"].as_array().unwrap() {
        let path = format!("/anomalies/{}", item["anomaly_key"].as_str().unwrap());
        let anomaly = service.get(&path).await.ok();
        for member in ["frequency", "firing", "signature"] {
            assert_eq!(item[member], anomaly[member], "{member}");
        }
    }
}

#[tokio::test]
async fn the_levels_of_a_list_are_those_of_the_rules_in_force() {
    const HOUR: i64 = 3_600;
    let redis = RedisServer::start();
    for service in services(&redis).await {
        post(&service, "quiet", "dev-1", &[0; 20]).await;
        post(&service, "job", "batch", &[0, 0, 0]).await;
        // Two of them are older than the 6 hours of the rule's own window.
        post(&service, "slow job", "batch", &[0, 7 * HOUR, 8 * HOUR]).await;
        post(&service, "cpu", "shop", &[0; 6]).await;
        must_read_like_the_anomalies(&service).await;
        for (query, expected) in [
            ("level=ESCALATE", vec!["cpu", "job"]),
            ("level=REPEAT", vec!["slow job"]),
            ("level=none", vec!["quiet"]),
            ("min_level=REPEAT", vec!["cpu", "job", "slow job"]),
            ("rule=batch", vec!["job", "slow job"]),
            ("rule=dev&rule=default", vec!["cpu", "quiet"]),
            ("rule=batch&level=REPEAT", vec!["slow job"]),
            ("rule=gone", vec![]),
        ] {
            assert_eq!(names(&service, query).await, expected, "{query}");
        }
        let summary = service.get("/summary?rule=batch").await.ok();
        assert_eq!(summary["anomalies"], 2);
        let levels = json!({"PERMANENT_FIX": 0, "ESCALATE": 1, "REPEAT": 1, "none": 0});
        assert_eq!(summary["levels"], levels);

        // The same anomalies are judged by other rules.
        let others = RULES.replace("dev-.*", "none").replace("3 in 6h", "4 in 6h");
        service.replace_file("rules.toml", &others);
        eventually("other rules are in force", || async {
            (names(&service, "level=ESCALATE").await == ["cpu"]).then_some(())
        })
        .await;
        assert_eq!(names(&service, "level=PERMANENT_FIX").await, ["quiet"]);
        assert_eq!(names(&service, "level=REPEAT").await, ["job", "slow job"]);
        must_read_like_the_anomalies(&service).await;
    }
    let service = Service::embedded().await;
    for name in [String::new(), "x".repeat(65)] {
        let answer = service.get(&format!("/anomalies?rule={name}")).await;
        assert_eq!(answer.body["field"], "rule");
        answer.problem(422);
    }
}

/// Delivers an alert of an anomaly, which began this many seconds ago.
async fn deliver(service: &Service, name: &str, status: &str, seconds: i64) {
    let now = wall_clock();
    let starts_at = now.minus_seconds(seconds).to_string();
    let mut alert = json!({"status": status, "labels": {"alertname": name, "pod": "p"},
                           "startsAt": starts_at, "fingerprint": format!("{name} {seconds}")});
    if status == "resolved" {
        alert["endsAt"] = now.to_string().into();
    }
    service.post(WEBHOOK, &json!({"version": "4", "alerts": [alert]})).await.ok();
}

async fn firing(service: &Service) -> Vec<String> {
    names(service, "firing=true").await
}

#[tokio::test]
async fn a_list_says_which_alerts_fire_and_since_when() {
    let redis = RedisServer::start();
    for service in services(&redis).await {
        post(&service, "posted", "", &[0]).await;
        deliver(&service, "ended", "firing", 100).await;
        deliver(&service, "ended", "resolved", 100).await;
        deliver(&service, "two", "firing", 300).await;
        deliver(&service, "two", "firing", 200).await;
        assert_eq!(firing(&service).await, ["two"]);
        assert_eq!(names(&service, "firing=false").await, ["ended", "posted"]);
        must_read_like_the_anomalies(&service).await;
        let list = service.get("/anomalies?firing=true").await.ok();
        assert_eq!(list["total"], 1);
        assert_eq!(list["anomalies"][0]["firing"]["episodes"], 2);
        deliver(&service, "two", "resolved", 300).await;
        let item = &service.get("/anomalies?firing=true").await.ok()["anomalies"][0];
        assert_eq!(item["firing"]["episodes"], 1);
        deliver(&service, "two", "resolved", 200).await;
        assert_eq!(firing(&service).await, Vec::<String>::new());
        assert_eq!(service.get("/summary?firing=false").await.ok()["anomalies"], 3);
        // A list is the same after a restart.
        deliver(&service, "two", "firing", 50).await;
        let service = complete(service.restart().await).await;
        assert_eq!(firing(&service).await, ["two"]);
    }
}

#[tokio::test]
async fn alerts_that_are_delivered_to_one_instance_fire_in_the_list_of_the_other() {
    let redis = RedisServer::start();
    let (one, other) = (Service::on_redis(&redis).await, Service::on_redis(&redis).await);
    let (one, other) = (complete(one).await, complete(other).await);
    let until = async |what: &str, expected: &[&str]| {
        eventually(what, || async {
            let list = other.get("/anomalies?firing=true").await.ok();
            let anomalies = list["anomalies"].as_array().unwrap().iter();
            let names: Vec<_> =
                anomalies.map(|item| item["signature"]["alert_name"].as_str().unwrap()).collect();
            (names == expected).then_some(())
        })
        .await;
    };
    deliver(&one, "A", "firing", 10).await;
    until("it has begun", &["A"]).await;
    let since = |list: Value| list["anomalies"][0]["firing"]["since"].clone();
    let seen_by_one = since(one.get("/anomalies?firing=true").await.ok());
    assert_eq!(since(other.get("/anomalies?firing=true").await.ok()), seen_by_one);
    deliver(&one, "A", "resolved", 10).await;
    until("it has ended", &[]).await;
}
