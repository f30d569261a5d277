//! The data of the older Python service, in place: this service reads it, writes what the older one
//! reads, and both can run side by side.
//!
//! The older service writes `str(timestamp)` as members of the timeline, and naive local times as
//! text.

use anomaly_counter::domain::Timestamp;
use serde_json::{Value, json};

use crate::support::{RedisServer, Service, wall_clock};

const KEY: &str = "b119b2edaa9fb08c";
const DAY: i64 = 86_400;

fn crash() -> Value {
    json!({
        "alert_name": "PodCrashLoopBackOff", "service": "awoooi-api",
        "namespace": "awoooi-prod", "error_type": "OOMKilled",
    })
}

/// The time zone of both services, which is not that of the tests.
const TIME_ZONE: &str = "Asia/Taipei";
const TIME_ZONE_OFFSET_SECONDS: i64 = 8 * 3_600;

/// Formats a time as `datetime.now().isoformat()` does in that zone.
fn naive_local(at: Timestamp) -> String {
    let local = at.plus_seconds(TIME_ZONE_OFFSET_SECONDS).to_datetime();
    local.format("%Y-%m-%dT%H:%M:%S%.6f").to_string()
}

/// Formats a time as `str(datetime.now().timestamp())` does.
fn python_float(at: Timestamp) -> String {
    format!("{}", at.as_micros() as f64 / 1e6)
}

fn name(kind: &str) -> String {
    format!("anomaly:{kind}:{KEY}")
}

#[tokio::test]
async fn the_data_of_the_older_service_are_read_in_place() {
    let redis = RedisServer::start();
    let other = redis.client().await;
    let now = wall_clock();
    let ages = [600, 7_200, 2 * DAY, 10 * DAY, 40 * DAY];
    for age in ages {
        let at = python_float(now.minus_seconds(age));
        other.run(&["ZADD", &name("timeline"), &at, &at]).await;
    }
    let marked_at = now.minus_seconds(DAY);
    let signature = crash().to_string();
    other
        .run(&[
            "HSET",
            &name("metadata"),
            "signature",
            &signature,
            "first_seen",
            &naive_local(now.minus_seconds(40 * DAY)),
            "permanent_fix_applied",
            "true",
            "permanent_fix_description",
            "raised the limit",
            "permanent_fix_time",
            &naive_local(marked_at),
        ])
        .await;
    other.run(&["SET", &name("permanent_fix"), "1", "EX", "7776000"]).await;
    other.run(&["SET", &name("repair_count"), "3"]).await;
    for (age, success) in [(300, "false"), (200, "false"), (100, "true")] {
        let at = naive_local(now.minus_seconds(age));
        let entry =
            format!(r#"{{"action": "restart_pod", "success": {success}, "timestamp": "{at}"}}"#);
        other.run(&["LPUSH", &name("repair_history"), &entry]).await;
    }

    let service = Service::on_redis_in(&redis, TIME_ZONE).await;
    let read = service.get(&format!("/anomalies/{KEY}/frequency")).await.ok();
    let counts = ["count_1h", "count_24h", "count_7d", "count_30d"].map(|n| read[n].clone());
    assert_eq!(counts, [1, 2, 3, 4].map(Value::from));
    assert_eq!(read["first_seen"], now.minus_seconds(10 * DAY).to_string());
    assert_eq!(read["last_seen"], now.minus_seconds(600).to_string());
    assert_eq!(read["auto_repair_count"], 3);
    assert_eq!(read["permanent_fix_applied"], true);
    assert_eq!(read["regressed"], true);

    let known = service.get(&format!("/anomalies/{KEY}")).await.ok();
    assert_eq!(known["signature"], crash());
    assert_eq!(known["known_since"], now.minus_seconds(40 * DAY).to_string());
    assert_eq!(known["permanent_fix"]["fix_description"], "raised the limit");
    assert_eq!(known["permanent_fix"]["fixed_at"], marked_at.to_string());
    let repairs = service.get(&format!("/anomalies/{KEY}/repairs")).await.ok();
    assert_eq!(repairs["actions"][0]["success"], 1);
    assert_eq!(repairs["attempts"][0]["timestamp"], now.minus_seconds(100).to_string());

    // Both services continue from there.
    assert_eq!(service.post("/anomalies", &crash()).await.ok()["count_30d"], 5);
    let at = python_float(wall_clock());
    other.run(&["ZADD", &name("timeline"), &at, &at]).await;
    assert_eq!(service.post("/anomalies", &crash()).await.ok()["count_30d"], 7);
    let count = other.number(&["ZCARD", &name("timeline")]).await;
    assert_eq!(count, 8, "nothing is removed in the first minutes of a process");
}

#[tokio::test]
async fn the_older_service_reads_the_data_of_this_one_and_every_key_has_a_ttl() {
    let redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    let before = wall_clock();
    let posted = crash();
    for _ in 0..4 {
        service.post("/anomalies", &posted).await.ok();
    }
    for success in [false, true] {
        let body = json!({"anomaly_key": KEY, "action": "restart_pod", "success": success});
        service.post("/repairs", &body).await.ok();
    }
    let fix = json!({"anomaly_key": KEY, "fix_description": "raised the limit"});
    service.put("/permanent-fix", &fix).await.ok();

    let other = redis.client().await;
    // The older service counts by score: events since a time.
    let hour_ago = (before.as_micros() / 1_000_000 - 3_600).to_string();
    let count = other.number(&["ZCOUNT", &name("timeline"), &hour_ago, "+inf"]).await;
    assert_eq!(count, 4);
    let oldest = other.texts(&["ZRANGE", &name("timeline"), "0", "0", "WITHSCORES"]).await;
    let seconds: f64 = oldest[1].parse().unwrap();
    assert!((seconds - before.as_micros() as f64 / 1e6).abs() < 60.0);
    // Repairs: a number, and JSON entries, newest first.
    assert_eq!(other.text(&["GET", &name("repair_count")]).await.unwrap(), "2");
    let entries = other.texts(&["LRANGE", &name("repair_history"), "0", "-1"]).await;
    let entries: Vec<Value> = entries.iter().map(|e| serde_json::from_str(e).unwrap()).collect();
    assert_eq!(entries[0]["action"], "restart_pod");
    assert_eq!(entries[0]["success"], true);
    // The mark and its details.
    assert_eq!(other.text(&["GET", &name("permanent_fix")]).await.unwrap(), "1");
    let metadata = ["signature", "permanent_fix_applied", "permanent_fix_description"];
    let mut found = Vec::new();
    for field in metadata {
        found.push(other.text(&["HGET", &name("metadata"), field]).await.unwrap());
    }
    assert_eq!(serde_json::from_str::<Value>(&found[0]).unwrap(), posted);
    assert_eq!(found[1..], ["true", "raised the limit"]);
    // Times as `datetime.fromisoformat` of any Python 3.7 or newer reads them.
    let times = [
        other.text(&["HGET", &name("metadata"), "first_seen"]).await.unwrap(),
        other.text(&["HGET", &name("metadata"), "permanent_fix_time"]).await.unwrap(),
        entries[0]["timestamp"].as_str().unwrap().to_owned(),
    ];
    for time in times {
        assert!(time.ends_with("+00:00"), "{time}");
        assert_eq!(time.len(), 32, "{time}");
    }

    let keys = other.texts(&["KEYS", "*"]).await;
    assert_eq!(keys.len(), 7, "{keys:?}");
    for key in keys {
        let ttl = other.number(&["TTL", &key]).await;
        let days = if ["fix", "metadata", "audit"].iter().any(|kind| key.contains(kind)) {
            90
        } else {
            35
        };
        assert!((days * DAY - 60..=days * DAY).contains(&ttl), "{key} has {ttl} s to live");
    }
}

#[tokio::test]
async fn a_mark_whose_details_have_expired_still_has_a_date() {
    let redis = RedisServer::start();
    let other = redis.client().await;
    // Marked 40 days ago: the older service's metadata expired after 35.
    let left = (50 * DAY).to_string();
    other.run(&["SET", &name("permanent_fix"), "1", "EX", &left]).await;
    let service = Service::on_redis(&redis).await;
    let path = format!("/anomalies/{KEY}");
    let quiet = service.get(&path).await.ok();
    assert_eq!(quiet["frequency"]["regressed"], false);
    assert_eq!(quiet["signature"], Value::Null);
    let fixed_at = quiet["permanent_fix"]["fixed_at"].as_str().unwrap();
    let fixed_at = Timestamp::parse_rfc3339(fixed_at).unwrap().as_micros();
    let expected = wall_clock().minus_seconds(40 * DAY).as_micros();
    assert!((fixed_at - expected).abs() < 60_000_000, "{fixed_at}");
    assert_eq!(service.post("/anomalies", &crash()).await.ok()["regressed"], true);
}

#[tokio::test]
async fn a_key_of_a_foreign_type_fails_alone() {
    let redis = RedisServer::start();
    redis.client().await.run(&["SET", &name("timeline"), "not a timeline"]).await;
    let service = Service::on_redis(&redis).await;
    let both = json!([crash(), {"alert_name": "Other"}]);
    let answer = service.post("/anomalies", &both).await.ok();
    assert_eq!(answer[0]["status"], 500);
    assert_eq!(answer[1]["count_1h"], 1);
    service.get(&format!("/anomalies/{KEY}/frequency")).await.problem(500);
    assert_eq!(service.get("/readyz").await.ok()["status"], "ready", "the store is well");
}
