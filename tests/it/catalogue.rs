//! Lists and summaries on a Redis that others write to: other instances, the older service, and
//! earlier processes; in outages, and without the permissions.

use std::time::{Duration, Instant};

use anomaly_counter::domain::Timestamp;
use serde_json::{Value, json};

use crate::support::{OtherClient, RedisCluster, RedisServer, Service, eventually, wall_clock};

async fn post(service: &Service, name: &str, times: usize) {
    let occurrences = vec![json!({"alert_name": name, "service": "api"}); times];
    service.post("/anomalies", &json!(occurrences)).await.ok();
}

/// Returns names and counts of 24 hours, in the order of the list.
async fn listed(service: &Service, query: &str) -> (Value, Vec<(String, u64)>) {
    let list = service.get(&format!("/anomalies?{query}")).await.ok();
    let anomalies = list["anomalies"].as_array().unwrap().iter();
    let counts = anomalies.map(|one| {
        let name = one["signature"]["alert_name"].as_str().unwrap_or("?").to_owned();
        (name, one["frequency"]["count_24h"].as_u64().unwrap())
    });
    let counts = counts.collect();
    (list, counts)
}

async fn until_listed(service: &Service, what: &str, expected: &[(&str, u64)]) {
    eventually(what, || async {
        let (_, counts) = listed(service, "").await;
        let is_it =
            counts.iter().map(|(name, count)| (&**name, *count)).eq(expected.iter().copied());
        is_it.then_some(())
    })
    .await;
}

async fn until_complete(service: &Service) {
    eventually("the list is complete", || async {
        (service.get("/anomalies?limit=1").await.ok()["complete"] == true).then_some(())
    })
    .await;
}

/// Adds an event as the older service does, with a name if it is the first.
async fn add_as_older_service(client: &OtherClient, key: &str, name: Option<&str>, at: Timestamp) {
    let time = format!("{}", at.as_micros() as f64 / 1e6);
    client.run(&["ZADD", &format!("anomaly:timeline:{key}"), &time, &time]).await;
    if let Some(name) = name {
        let signature = json!({"alert_name": name, "service": "old"}).to_string();
        let metadata = format!("anomaly:metadata:{key}");
        client.run(&["HSET", &metadata, "signature", &signature]).await;
    }
}

#[tokio::test]
async fn writes_through_two_instances_are_in_the_lists_of_both() {
    let redis = RedisServer::start();
    let (one, other) = (Service::on_redis(&redis).await, Service::on_redis(&redis).await);
    post(&one, "A", 3).await;
    until_listed(&one, "its own at once", &[("A", 3)]).await;
    until_listed(&other, "the other's soon", &[("A", 3)]).await;
    post(&other, "B", 7).await;
    until_listed(&one, "the other's too", &[("B", 7), ("A", 3)]).await;
    // A level that is reached is announced at once, and figures are read when they are shown.
    post(&other, "A", 10).await;
    until_listed(&one, "in its new place", &[("A", 13), ("B", 7)]).await;
    let (list, _) = listed(&one, "level=PERMANENT_FIX").await;
    assert_eq!(list["total"], 1);
    assert_eq!(list["ranking"], "exact");

    let key = list["anomalies"][0]["anomaly_key"].clone();
    let fix = json!({"anomaly_key": key, "fix_description": "more memory"});
    other.put("/permanent-fix", &fix).await.ok();
    eventually("the mark is seen by the other", || async {
        (one.get("/anomalies?fixed=true").await.ok()["total"] == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_instance_that_starts_lists_the_anomalies_that_are_there() {
    let redis = RedisServer::start();
    let client = redis.client().await;
    let now = wall_clock();
    for number in 0..500_u64 {
        let key = format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let at = now.minus_seconds(number as i64);
        add_as_older_service(&client, &key, Some(&format!("old {number}")), at).await;
    }
    // Keys of each kind that belong to no anomaly.
    client.run(&["SET", "anomaly:timeline:not a key", "x"]).await;
    client.run(&["SET", "anomaly:timeline:00000000000000ff", "of a foreign type"]).await;
    client.run(&["SET", "tm", "x"]).await;
    let service = Service::on_redis(&redis).await;
    until_complete(&service).await;
    let (list, counts) = listed(&service, "sort=last_seen&limit=3").await;
    assert_eq!(list["total"], 500);
    let names: Vec<_> = counts.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["old 0", "old 1", "old 2"]);
    let summary = service.get("/summary?by=service").await.ok();
    assert_eq!(summary["anomalies"], 500);
    assert_eq!(summary["by"]["service"][0]["value"], "old");
    let series = service.get("/anomalies?series=24h&q=499").await.ok();
    let numbers = series["anomalies"][0]["series"].as_array().unwrap();
    assert_eq!(numbers.iter().filter_map(Value::as_u64).sum::<u64>(), 1);
}

#[tokio::test]
async fn anomalies_of_the_older_service_are_found_with_current_figures() {
    let redis = RedisServer::start();
    let client = redis.client().await;
    let key = "00000000000000aa";
    add_as_older_service(&client, key, Some("old"), wall_clock()).await;
    let service =
        Service::with(&[("REDIS__URL", &redis.url()), ("CATALOGUE__RECONCILE_MINUTES", "1")]).await;
    until_complete(&service).await;
    until_listed(&service, "what was there", &[("old", 1)]).await;
    // An anomaly that is shown is read first.
    for second in 0..4 {
        add_as_older_service(&client, key, None, wall_clock().minus_seconds(second)).await;
    }
    until_listed(&service, "its figures", &[("old", 5)]).await;
    // A new anomaly is found at the next walk through Redis, within a minute, and a deleted one is
    // removed.
    add_as_older_service(&client, "00000000000000bb", Some("new"), wall_clock()).await;
    client
        .run(&["DEL", &format!("anomaly:timeline:{key}"), &format!("anomaly:metadata:{key}")])
        .await;
    let deadline = Instant::now() + Duration::from_secs(600);
    loop {
        let (_, counts) = listed(&service, "").await;
        if counts == [("new".to_owned(), 1)] {
            break;
        }
        assert!(Instant::now() < deadline, "{counts:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn while_redis_is_unavailable_the_list_shows_the_known_anomalies_and_says_so() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    post(&service, "A", 5).await;
    until_complete(&service).await;
    redis.kill();
    let list = eventually("the outage is noticed", || async {
        service.get("/readyz").await;
        let list = service.get("/anomalies?series=24h").await;
        (list.status == 200 && list.body["degraded"] == true).then_some(list)
    })
    .await;
    assert_eq!(list.headers["x-degraded"], "redis");
    let item = &list.body["anomalies"][0];
    assert_eq!(item["frequency"]["count_24h"], 5);
    assert_eq!(item["frequency"]["degraded"], true);
    assert_eq!(item["frequency"]["as_of"], list.body["as_of"]);
    assert_eq!(item["series"], Value::Null, "it is not known, and no zeros");
    let summary = service.get("/summary").await.ok();
    assert_eq!(summary["occurrences"]["count_24h"], 5);
    assert_eq!(summary["degraded"], true);

    // Waiting writes count too; nothing else is known of a new anomaly.
    for (name, times) in [("A", 2), ("new", 3)] {
        let occurrences = vec![json!({"alert_name": name, "service": "api"}); times];
        let answer = service.post("/anomalies", &json!(occurrences)).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
    }
    let list = service.get("/anomalies").await.ok();
    assert_eq!(list["total"], 2);
    assert_eq!(list["anomalies"][0]["frequency"]["count_24h"], 7);
    let new = &list["anomalies"][1];
    assert_eq!(new["frequency"]["count_24h"], 3);
    assert_eq!(new["frequency"]["auto_repair_count"], Value::Null);
    assert_eq!(new["frequency"]["permanent_fix_applied"], Value::Null);
    assert_eq!(new["signature"]["alert_name"], "new", "what waits tells its name");
    assert_eq!(service.get("/anomalies?alert_name=new").await.ok()["total"], 1);
    assert_eq!(service.get("/anomalies?fixed=false").await.ok()["total"], 1);
    assert_eq!(service.get("/summary").await.ok()["occurrences"]["count_24h"], 10);
    redis.restart();
    eventually("what has waited is in the list", || async {
        let (list, counts) = listed(&service, "").await;
        // Redis may have lost the occurrences of A, which are then sent again.
        let is_applied = counts.len() == 2 && counts.contains(&("new".to_owned(), 3));
        (is_applied && list["degraded"] == false).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_redis_and_without_known_anomalies_a_list_is_refused() {
    let mut redis = RedisServer::start();
    redis.kill();
    let service = Service::on_redis(&redis).await;
    let refused = eventually("the outage is noticed", || async {
        let answer = service.get("/anomalies").await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    refused.problem(503);
    assert!(refused.headers.contains_key("retry-after"));
    service.get("/summary").await.problem(503);

    // An anomaly whose write waits is known.
    assert_eq!(service.post("/anomalies", &json!({"alert_name": "new"})).await.status, 202);
    let list = service.get("/anomalies").await;
    assert_eq!(list.headers["x-degraded"], "redis");
    let list = list.ok();
    assert_eq!(list["anomalies"][0]["signature"]["alert_name"], "new");
    assert_eq!(list["anomalies"][0]["frequency"]["count_24h"], 1);
    assert_eq!(list["complete"], false);
    assert_eq!(list["reason"], "loading");
    assert_eq!(list["degraded"], true);
    let summary = service.get("/summary").await.ok();
    assert_eq!(summary["occurrences"]["count_24h"], 1);
    assert_eq!(summary["complete"], false);
    assert_eq!(summary["degraded"], true);
}

#[tokio::test]
async fn without_permissions_lists_have_only_own_writes_and_nothing_else_suffers() {
    let redis = RedisServer::start();
    let client = redis.client().await;
    add_as_older_service(&client, "00000000000000aa", Some("old"), wall_clock()).await;
    for command in ["-scan", "-xadd", "-xread"] {
        client.run(&["ACL", "SETUSER", "default", command]).await;
    }
    let service = Service::on_redis(&redis).await;
    post(&service, "A", 2).await;
    let list = eventually("it is known why", || async {
        let (list, _) = listed(&service, "").await;
        (list["reason"] == "denied").then_some(list)
    })
    .await;
    assert_eq!(list["complete"], false);
    assert_eq!(list["loaded"], 1);
    assert_eq!(list["total_exact"], false);
    assert_eq!(list["anomalies"][0]["signature"]["alert_name"], "A");
    assert_eq!(service.get("/readyz").await.ok()["status"], "ready");
    assert!(service.log().contains("may not scan its keys"), "{}", service.log());
}

#[tokio::test]
async fn on_a_cluster_the_anomalies_of_all_masters_are_listed() {
    let mut cluster = RedisCluster::of_masters(3).await;
    let url = cluster.url();
    let first = Service::with(&[("REDIS__URL", &url)]).await;
    for number in 0..30 {
        post(&first, &format!("alert {number}"), 1).await;
    }
    let second = Service::with(&[("REDIS__URL", &url)]).await;
    for service in [&first, &second] {
        until_complete(service).await;
        let (list, _) = listed(service, "limit=200").await;
        assert_eq!(list["total"], 30);
    }
    post(&first, "another", 9).await;
    eventually("the other instance hears of it", || async {
        let (_, counts) = listed(&second, "limit=1").await;
        (counts == [("another".to_owned(), 9)]).then_some(())
    })
    .await;
    // An unavailable master makes its own rows stale, and removes none.
    cluster.node(0).kill();
    eventually("some rows are stale, and others are not", || async {
        second.get("/readyz").await;
        let list = second.get("/anomalies?limit=200").await.ok();
        assert_eq!(list["total"], 31);
        let degraded = |one: &&Value| one["frequency"]["degraded"] == true;
        let anomalies = list["anomalies"].as_array().unwrap();
        let stale = anomalies.iter().filter(degraded).count();
        (0 < stale && stale < 31 && list["degraded"] == true).then_some(())
    })
    .await;
}
