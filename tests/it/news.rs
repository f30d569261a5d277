//! Level steps and regressions are WARN lines and metrics: one for each, whichever call reveals it,
//! with the fields that identify the anomaly.

use serde_json::{Value, json};

use crate::support::{Answer, RedisServer, Service, healthy_again, metric, wall_clock};

const STEP: &str = "has reached";
const REGRESSION: &str = "has come back";

fn crash() -> Value {
    json!({
        "alert_name": "HighCPU", "service": "api", "namespace": "shop", "error_type": "OOMKilled",
        "pod": "api-1",
    })
}

fn lines(service: &Service, words: &str) -> Vec<Value> {
    let log = service.log();
    let lines = log.lines().filter(|line| line.contains(words));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn regressions(service: &Service) -> f64 {
    metric(service, "anomaly_counter_regressions_total").await
}

/// Starts a Redis that keeps everything over a restart.
fn durable() -> RedisServer {
    RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
}

#[track_caller]
fn waits(answer: Answer) -> Value {
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.body
}

/// Records an occurrence, and marks its anomaly as fixed. Returns the key.
async fn mark(service: &Service, occurrence: &Value) -> Value {
    let key = service.post("/anomalies", occurrence).await.ok()["anomaly_key"].clone();
    let mark = json!({"anomaly_key": key, "fix_description": "raised the limit"});
    service.put("/permanent-fix", &mark).await.ok();
    // An estimate is made of the stats that were read last.
    let path = format!("/anomalies/{}/frequency", key.as_str().unwrap());
    assert_eq!(service.get(&path).await.ok()["permanent_fix_applied"], true);
    key
}

#[track_caller]
fn names_the_anomaly(line: &Value, key: &Value) {
    assert_eq!(line["level"], "WARN", "{line}");
    assert_eq!(line["alert_name"], "HighCPU", "{line}");
    assert_eq!(line["service"], "api", "{line}");
    assert_eq!(line["namespace"], "shop", "{line}");
    assert_eq!(line["error_type"], "OOMKilled", "{line}");
    assert_eq!(line["key"], *key, "{line}");
}

#[tokio::test]
async fn a_level_step_is_a_warning_that_names_the_anomaly() {
    let redis = RedisServer::start();
    for service in [Service::embedded().await, Service::on_redis(&redis).await] {
        let answers = service.post("/anomalies", &json!(vec![crash(); 5])).await.ok();
        let lines = lines(&service, STEP);
        assert_eq!(lines.len(), 2, "{}", service.log());
        for (line, (level, count)) in lines.iter().zip([("REPEAT", 3), ("ESCALATE", 5)]) {
            names_the_anomaly(line, &answers[0]["anomaly_key"]);
            assert_eq!(line["escalation_level"], level);
            for window in ["count_1h", "count_24h", "count_7d", "count_30d"] {
                assert_eq!(line[window], count, "{line}");
            }
        }
    }
}

#[tokio::test]
async fn a_level_step_is_logged_however_many_others_there_are() {
    let service = Service::embedded().await;
    let storm: Vec<Value> =
        (0..900).map(|n| json!({"alert_name": format!("A{}", n / 3)})).collect();
    service.post("/anomalies", &storm.into()).await.ok();
    let storm = lines(&service, STEP);
    let mut names: Vec<_> = storm.iter().map(|line| line["alert_name"].to_string()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 300);
    assert_eq!(storm.len(), 300);
    assert_eq!(
        metric(&service, "anomaly_counter_level_steps_total{level=\"REPEAT\"}").await,
        300.0
    );
}

#[tokio::test]
async fn a_regression_is_one_warning_for_each_mark() {
    let redis = RedisServer::start();
    for service in [Service::embedded().await, Service::on_redis(&redis).await] {
        let key = mark(&service, &crash()).await;
        assert_eq!(lines(&service, REGRESSION).len(), 0);
        let answers = service.post("/anomalies", &json!(vec![crash(); 3])).await.ok();
        assert_eq!(answers[2]["regressed"], true);
        service.post("/anomalies", &crash()).await.ok();
        let first = lines(&service, REGRESSION);
        assert_eq!(first.len(), 1, "{}", service.log());
        names_the_anomaly(&first[0], &key);
        assert_eq!(first[0]["count_24h"], 2);
        assert!(first[0]["fixed_at"].is_string(), "{}", first[0]);
        assert_eq!(regressions(&service).await, 1.0);

        mark(&service, &crash()).await;
        let alerts: Vec<Value> = (0..3)
            .map(|n| {
                json!({
                    "status": "firing", "fingerprint": format!("f{n}"), "labels": crash(),
                    "annotations": {"summary": "it is back"},
                    "startsAt": wall_clock().to_string(),
                })
            })
            .collect();
        let delivery = json!({"version": "4", "alerts": alerts});
        service.post("/webhooks/alertmanager", &delivery).await.ok();
        let second = lines(&service, REGRESSION);
        assert_eq!(second.len(), 2, "{}", service.log());
        names_the_anomaly(&second[1], &key);
        assert_eq!(regressions(&service).await, 2.0);
    }
}

#[tokio::test]
async fn of_two_instances_the_one_that_records_the_regression_reports_it() {
    let redis = RedisServer::start();
    let instances = [Service::on_redis(&redis).await, Service::on_redis(&redis).await];
    mark(&instances[0], &crash()).await;
    for service in [&instances[1], &instances[0], &instances[1]] {
        assert_eq!(service.post("/anomalies", &crash()).await.ok()["regressed"], true);
    }
    assert_eq!(regressions(&instances[0]).await, 0.0);
    assert_eq!(regressions(&instances[1]).await, 1.0);
}

#[tokio::test]
async fn an_old_occurrence_that_comes_late_is_no_regression() {
    let redis = RedisServer::start();
    for service in [Service::embedded().await, Service::on_redis(&redis).await] {
        mark(&service, &crash()).await;
        let mut late = crash();
        late["occurred_at"] = wall_clock().minus_seconds(3_600).to_string().into();
        assert_eq!(service.post("/anomalies", &late).await.ok()["regressed"], false);
        assert_eq!(regressions(&service).await, 0.0);
        service.post("/anomalies", &crash()).await.ok();
        assert_eq!(regressions(&service).await, 1.0);
    }
}

#[tokio::test]
async fn a_regression_that_an_estimate_shows_is_not_reported_by_the_replay_again() {
    let mut redis = durable();
    let service = Service::on_redis(&redis).await;
    let key = mark(&service, &crash()).await;
    redis.kill();
    for _ in 0..3 {
        assert_eq!(waits(service.post("/anomalies", &crash()).await)["regressed"], true);
    }
    let reported = lines(&service, REGRESSION);
    assert_eq!(reported.len(), 1, "{}", service.log());
    names_the_anomaly(&reported[0], &key);
    redis.restart();
    healthy_again(&service).await;
    service.post("/anomalies", &crash()).await.ok();
    assert_eq!(lines(&service, REGRESSION).len(), 1, "{}", service.log());
    assert_eq!(regressions(&service).await, 1.0);
}

#[tokio::test]
async fn a_regression_that_no_estimate_could_show_is_reported_once_by_the_replay() {
    let mut redis = durable();
    let service = Service::on_redis(&redis).await;
    service.post("/anomalies", &crash()).await.ok();
    let key = mark(&service, &crash()).await;
    redis.kill();
    // This process knows nothing of the anomaly: neither its mark nor its count.
    let service = service.restart().await;
    for _ in 0..2 {
        waits(service.post("/anomalies", &crash()).await);
    }
    assert_eq!(lines(&service, REGRESSION).len(), 0, "{}", service.log());
    redis.restart();
    healthy_again(&service).await;
    let reported = lines(&service, REGRESSION);
    assert_eq!(reported.len(), 1, "{}", service.log());
    names_the_anomaly(&reported[0], &key);
    let steps = lines(&service, STEP);
    assert_eq!(steps.len(), 1, "{}", service.log());
    names_the_anomaly(&steps[0], &key);
    assert_eq!(steps[0]["escalation_level"], "REPEAT");
}

#[tokio::test]
async fn a_regression_whose_mark_waits_is_reported_once() {
    let mut redis = durable();
    let service = Service::on_redis(&redis).await;
    let key = service.post("/anomalies", &crash()).await.ok()["anomaly_key"].clone();
    redis.kill();
    let service = service.restart().await;
    let mark = json!({"anomaly_key": key, "fix_description": "raised the limit"});
    waits(service.put("/permanent-fix", &mark).await);
    let mut late = crash();
    late["occurred_at"] = wall_clock().minus_seconds(3_600).to_string().into();
    let answer = waits(service.post("/anomalies", &late).await);
    assert_eq!(answer.get("regressed"), Some(&Value::Null), "{answer}");
    assert_eq!(regressions(&service).await, 0.0);
    for _ in 0..2 {
        assert_eq!(waits(service.post("/anomalies", &crash()).await)["regressed"], true);
    }
    assert_eq!(regressions(&service).await, 1.0);
    redis.restart();
    healthy_again(&service).await;
    assert_eq!(service.post("/anomalies", &crash()).await.ok()["regressed"], true);
    assert_eq!(regressions(&service).await, 1.0, "{}", service.log());
}

#[tokio::test]
async fn the_end_of_an_outage_says_how_many_writes_were_applied_and_how_long_it_took() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    for round in 1..=2 {
        service.post("/anomalies", &crash()).await.ok();
        redis.kill();
        for _ in 0..7 * round {
            waits(service.post("/anomalies", &crash()).await);
        }
        redis.restart();
        healthy_again(&service).await;
        let ends = lines(&service, "the store answers again");
        assert_eq!(ends.len(), round, "{}", service.log());
        let end = ends.last().unwrap();
        assert_eq!(end["applied"], 7 * round, "{end}");
        assert_eq!(end["rejected"], 0, "{end}");
        assert!(end["seconds"].is_u64(), "{end}");
        assert!(end["replay_seconds"].is_f64(), "{end}");
        let words = format!("{} waiting writes were applied in", 7 * round);
        assert!(end["message"].as_str().unwrap().contains(&words), "{end}");
    }
}
