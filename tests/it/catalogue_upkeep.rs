//! The time until a list on Redis has the writes of other instances, and the recovery after missed
//! announcements.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{OtherClient, RedisServer, Service, eventually, wall_clock};

/// Time that a loaded machine may take beyond the promised one.
const SLACK: Duration = Duration::from_secs(4);

async fn post(service: &Service, name: &str, times: usize) -> Value {
    let occurrences = vec![json!({"alert_name": name}); times];
    service.post("/anomalies", &json!(occurrences)).await.ok()[0]["anomaly_key"].clone()
}

async fn summary(service: &Service) -> Value {
    service.get("/summary").await.ok()
}

async fn until_complete(service: &Service) {
    eventually("the list is complete", || async {
        (summary(service).await["complete"] == true).then_some(())
    })
    .await;
}

/// Waits until a figure of the summary, which reads no anomaly from Redis, is as expected.
async fn within(seconds: u64, service: &Service, figure: &str, expected: u64) {
    let begun = Instant::now();
    let limit = Duration::from_secs(seconds) + SLACK;
    loop {
        let summary = summary(service).await;
        if *summary.pointer(figure).unwrap() == expected {
            return;
        }
        assert!(begun.elapsed() < limit, "{figure} is not {expected}: {summary}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn other_instances_know_new_anomalies_steps_and_marks_in_4_seconds_and_figures_in_20() {
    let redis = RedisServer::start();
    let (one, other) = (Service::on_redis(&redis).await, Service::on_redis(&redis).await);
    until_complete(&one).await;
    until_complete(&other).await;
    let key = post(&one, "A", 1).await;
    within(4, &other, "/anomalies", 1).await;
    post(&one, "A", 2).await;
    within(4, &other, "/levels/REPEAT", 1).await;
    let fix = json!({"anomaly_key": key, "fix_description": "more memory"});
    one.put("/permanent-fix", &fix).await.ok();
    within(4, &other, "/fixed", 1).await;
    // No step. The summary reads nothing from Redis, so the figure was announced.
    post(&one, "A", 1).await;
    within(20, &other, "/occurrences/count_24h", 4).await;
    one.delete(&format!("/permanent-fix/{}", key.as_str().unwrap())).await.ok();
    within(4, &other, "/fixed", 0).await;
}

/// Adds an anomaly as the older service does, which announces nothing.
async fn add_as_older_service(client: &OtherClient, key: &str) {
    let time = format!("{}", wall_clock().as_micros() as f64 / 1e6);
    client.run(&["ZADD", &format!("anomaly:timeline:{key}"), &time, &time]).await;
    let signature = json!({"alert_name": key, "service": "old"}).to_string();
    client.run(&["HSET", &format!("anomaly:metadata:{key}"), "signature", &signature]).await;
}

#[tokio::test]
async fn after_a_missed_announcement_redis_is_walked_through_at_once() {
    let redis = RedisServer::start();
    let client = redis.client().await;
    let service = Service::on_redis(&redis).await;
    until_complete(&service).await;
    // Announcements of an instance whose second one was lost: the version, its name, the number.
    let announce = async |number: u8| {
        let number = char::from(number);
        let announcement = format!("\u{1}instance{number}\0\0\0\0\0\0\0");
        client.run(&["XADD", "anomaly:changes", "*", "c", &announcement]).await;
    };
    announce(1).await;
    add_as_older_service(&client, "00000000000000aa").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(summary(&service).await["anomalies"], 0, "nobody has said anything");
    announce(3).await;
    eventually("it is found", || async {
        let summary = summary(&service).await;
        (summary["anomalies"] == 1 && summary["complete"] == true).then_some(())
    })
    .await;
}

#[tokio::test]
async fn after_a_failover_anomalies_that_the_new_server_lacks_leave_the_list() {
    let mut redis = RedisServer::start();
    let (service, other) = (Service::on_redis(&redis).await, Service::on_redis(&redis).await);
    until_complete(&service).await;
    post(&other, "A", 3).await;
    within(4, &service, "/anomalies", 1).await;
    // The instance that has written it would send it again.
    drop(other);
    redis.client().await.run(&["FLUSHALL"]).await;
    redis.kill();
    eventually("the outage is noticed", || async {
        service.get("/readyz").await;
        let summary = summary(&service).await;
        assert_eq!(summary["anomalies"], 1, "it is known, and no zero");
        (summary["degraded"] == true).then_some(())
    })
    .await;
    // The anomaly was announced and never read: its name and its counts are known, and no more.
    let anomaly = service.get("/anomalies/lookup?alertname=A").await.ok();
    assert_eq!(anomaly["signature"]["alert_name"], "A");
    assert_eq!(anomaly["metadata"], Value::Null);
    assert_eq!(anomaly["repairs"], Value::Null);
    assert_eq!(anomaly["frequency"]["count_24h"], 3);
    assert_eq!(anomaly["frequency"]["because"], "3 in 24h >= 3 (rule default)");
    assert_eq!(anomaly["degraded"], true);
    redis.restart();
    eventually("the server is gone through", || async {
        let summary = summary(&service).await;
        (summary["anomalies"] == 0 && summary["complete"] == true).then_some(())
    })
    .await;
}

#[tokio::test]
async fn until_the_first_walk_through_redis_ends_a_list_says_how_much_it_knows() {
    const ANOMALIES: &str = "12000";
    let redis = RedisServer::start();
    let fill = "for i = 1, ARGV[1] do \
        local key = string.format('%08x%08x', i * 2654435761 % 4294967296, i) \
        redis.call('ZADD', 'anomaly:timeline:' .. key, ARGV[2], ARGV[2]) end";
    let now = format!("{}", wall_clock().as_micros() / 1_000_000);
    redis.client().await.run(&["EVAL", fill, "0", ANOMALIES, &now]).await;
    let service = Service::on_redis(&redis).await;
    let first = service.get("/anomalies").await.ok();
    assert_eq!(first["complete"], false);
    assert_eq!(first["reason"], "loading");
    assert_eq!(first["total_exact"], false);
    assert!(first["loaded"].as_u64().unwrap() < 12_000, "{first}");
    until_complete(&service).await;
    let list = service.get("/anomalies?limit=1").await.ok();
    assert_eq!(list["total"], 12_000);
    assert_eq!(list["total_exact"], true);
    assert!(list.get("reason").is_none() && list.get("loaded").is_none());
}

#[tokio::test]
async fn a_list_says_so_if_there_are_more_anomalies_than_may_be_kept() {
    let redis = RedisServer::start();
    let url = redis.url();
    let service = Service::with(&[("REDIS__URL", &url), ("CATALOGUE__MAX_ANOMALIES", "64")]).await;
    let occurrence = |number: usize| json!({"alert_name": format!("alert {number}")});
    let occurrences: Vec<_> = (0..500).map(occurrence).collect();
    service.post("/anomalies", &json!(occurrences)).await.ok();
    let list = eventually("the list is as complete as it can be", || async {
        let list = service.get("/anomalies").await.ok();
        (list["reason"] == "behind").then_some(list)
    })
    .await;
    assert_eq!(list["complete"], false);
    assert!(list["total"].as_u64().unwrap() <= 128, "{}", list["total"]);
    assert!(service.log().contains("catalogue.max_anomalies"), "{}", service.log());
}
