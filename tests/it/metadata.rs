//! The object that is stored with an anomaly: it is bounded, says so, and is sent to Redis only
//! with the event that renews the TTLs of the anomaly's keys.

use anomaly_counter::domain::{AnomalyKey, Occurrence};
use serde_json::{Value, json};

use crate::redis_store::store_keeping;
use crate::support::{
    EXACT_EVENTS, OtherClient, RedisServer, Service, occurrence, start_of_tests, wall_clock,
};

const KEY: u64 = 0xb119_b2ed_aa9f_b08c;
const MAX_CHARACTERS: usize = 1_024;

async fn metadata_of(service: &Service, key: &Value) -> Value {
    let anomaly = service.get(&format!("/anomalies/{}", key.as_str().unwrap())).await.ok();
    anomaly["metadata"].clone()
}

#[tokio::test]
async fn the_largest_members_of_an_object_that_is_too_large_are_left_out() {
    let redis = RedisServer::start();
    for service in [Service::embedded().await, Service::on_redis(&redis).await] {
        let posted = json!({
            "alert_name": "HighCPU", "alertname": "x".repeat(9_000), "service": "a".repeat(1_000),
            "pod": "p-1", "dump": "d".repeat(100_000), "notes": "n".repeat(9_000),
            "labels": {"small": "s", "large": "l".repeat(50_000)},
            "annotations": {"summary": "s", "text": "t".repeat(50_000)},
        });
        let key = service.post("/anomalies", &posted).await.ok()["anomaly_key"].clone();
        let metadata = metadata_of(&service, &key).await;
        let expected = json!({
            "pod": "p-1", "notes": "n".repeat(9_000), "labels": {"small": "s"},
            "annotations": {"summary": "s"}, "metadata_truncated": true,
        });
        assert_eq!(metadata, expected);
        let anomaly = service.get(&format!("/anomalies/{}", key.as_str().unwrap())).await.ok();
        assert_eq!(anomaly["signature"]["service"], "a".repeat(1_000));
        // An object that fits is kept whole, without a note.
        let fits = json!({"alert_name": "Other", "dump": "d".repeat(16_000)});
        let key = service.post("/anomalies", &fits).await.ok()["anomaly_key"].clone();
        assert_eq!(metadata_of(&service, &key).await, json!({"dump": "d".repeat(16_000)}));
    }
}

#[tokio::test]
async fn the_limit_of_metadata_is_an_option() {
    let service = Service::with(&[("ANOMALY__MAX_METADATA_BYTES", "100")]).await;
    let posted = json!([{"alert_name": "A", "large": "x".repeat(60), "small": "x".repeat(20)}]);
    let key = service.post("/anomalies", &posted).await.ok()[0]["anomaly_key"].clone();
    let expected = json!({"small": "x".repeat(20), "metadata_truncated": true});
    assert_eq!(metadata_of(&service, &key).await, expected);
}

#[tokio::test]
async fn an_identifying_field_that_is_too_long_is_refused_by_its_name() {
    let service = Service::embedded().await;
    for (field, other) in [("alert_name", "service"), ("job", "alert_name"), ("reason", "service")]
    {
        // The limit is in characters, not bytes.
        let longest = json!({field: "é".repeat(MAX_CHARACTERS), other: "o"});
        service.post("/anomalies", &longest).await.ok();
        let too_long = json!({field: "é".repeat(MAX_CHARACTERS + 1), other: "o"});
        let answer = service.post("/anomalies", &too_long).await;
        answer.problem(422);
        assert_eq!(answer.body["field"], field);
        assert!(answer.body["detail"].as_str().unwrap().contains("1024"), "{}", answer.body);
        let array = service.post("/anomalies", &json!([too_long, longest])).await.ok();
        assert_eq!(array[0]["field"], field);
        assert_eq!(array[1]["count_24h"], 2);
    }
    // A field that does not identify the anomaly may be long.
    let alias = json!({"alert_name": "A", "alertname": "x".repeat(2_000)});
    service.post("/anomalies", &alias).await.ok();
}

#[tokio::test]
async fn a_label_that_is_too_long_is_cut_and_the_result_of_its_alert_says_so() {
    let service = Service::embedded().await;
    let now = wall_clock().to_string();
    let firing = |fingerprint: &str, job: String| {
        let labels = json!({"alertname": "HighCPU", "job": job, "pod": "p"});
        json!({"status": "firing", "labels": labels, "startsAt": now, "fingerprint": fingerprint,
            "annotations": {"summary": "s".repeat(20_000)}})
    };
    let alerts = [firing("f1", "é".repeat(50_000)), firing("f2", "short".to_owned())];
    let delivery = json!({"version": "4", "alerts": alerts});
    let answer = service.post("/webhooks/alertmanager", &delivery).await.ok();
    assert_eq!(answer["counted"], 2);
    assert_eq!(answer["alerts"][0]["cut_labels"], json!(["job"]));
    assert_eq!(answer["alerts"][0]["fingerprint"], "f1");
    assert!(answer["alerts"][1].get("cut_labels").is_none(), "{answer}");
    let key = answer["alerts"][0]["anomaly_key"].as_str().unwrap();
    let anomaly = service.get(&format!("/anomalies/{key}")).await.ok();
    assert_eq!(anomaly["signature"]["service"], "é".repeat(MAX_CHARACTERS));
    let expected = json!({"pod": "p", "annotations": {}, "metadata_truncated": true});
    assert_eq!(anomaly["metadata"], expected);
    // The same anomaly as one that is posted with the cut text.
    let same = json!({"alert_name": "HighCPU", "service": "é".repeat(MAX_CHARACTERS)});
    assert_eq!(service.post("/anomalies", &same).await.ok()["anomaly_key"], key);
}

/// Returns an occurrence with ten thousand bytes of metadata.
fn large(id: &str, seconds: i64) -> Occurrence {
    let text = format!(r#"{{"alert_name":"HighCPU","text":"{}"}}"#, "x".repeat(10_000));
    let at = start_of_tests().plus_seconds(seconds);
    Occurrence { signature_json: text.into(), ..occurrence(KEY, id, at) }
}

async fn bytes_received(client: &OtherClient) -> i64 {
    let info = client.text(&["INFO", "stats"]).await.unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("total_net_input_bytes:")).unwrap();
    line.trim().parse().unwrap()
}

fn key_name(kind: &str) -> String {
    format!("anomaly:{kind}:{}", AnomalyKey::from_bits(KEY))
}

#[tokio::test]
async fn metadata_are_sent_to_redis_once_a_minute() {
    let redis = RedisServer::start();
    let (client, now) = (redis.client().await, start_of_tests());
    let store = store_keeping(EXACT_EVENTS, &redis.url()).await;
    store.record(now.into(), vec![large("first", 0)]).await.pop().unwrap().unwrap();
    let before = bytes_received(&client).await;
    for batch in 0..10 {
        let events = (0..10).map(|n| large(&format!("{batch}-{n}"), batch)).collect();
        for result in store.record(now.into(), events).await {
            result.unwrap();
        }
    }
    let received = bytes_received(&client).await - before;
    assert!(received < 70_000, "{received} bytes");
    // In the next minute it is sent with the first event of a batch.
    client.run(&["HDEL", &key_name("metadata"), "signature"]).await;
    let later = now.plus_seconds(60);
    let before = bytes_received(&client).await;
    for result in
        store.record(later.into(), vec![large("a", 60), large("b", 60), large("c", 60)]).await
    {
        result.unwrap();
    }
    let received = bytes_received(&client).await - before;
    assert!((10_000..15_000).contains(&received), "{received} bytes");
    let details = store.details(later.into(), AnomalyKey::from_bits(KEY)).await.unwrap().unwrap();
    assert_eq!(details.signature_json.unwrap().len(), large("any", 0).signature_json.bytes());
}

#[tokio::test]
async fn an_anomaly_that_was_deleted_in_redis_is_created_again_by_its_next_event() {
    let redis = RedisServer::start();
    let (client, now) = (redis.client().await, start_of_tests());
    let store = store_keeping(EXACT_EVENTS, &redis.url()).await;
    store.record(now.into(), vec![large("first", 0)]).await.pop().unwrap().unwrap();
    client.run(&["DEL", &key_name("timeline"), &key_name("metadata")]).await;
    let old = Occurrence { at: now.minus_seconds(31 * 86_400), ..large("old", 0) };
    let batch = vec![large("a", 0), old, occurrence(7, "other", now), large("b", 0)];
    let counts = store.record(now.into(), batch).await.into_iter();
    let counts: Vec<_> = counts.map(|result| result.unwrap().stats.counts.month).collect();
    assert_eq!(counts, [1, 1, 1, 2]);
    let details = store.details(now.into(), AnomalyKey::from_bits(KEY)).await.unwrap().unwrap();
    assert_eq!(details.signature_json.unwrap().len(), large("any", 0).signature_json.bytes());
    for kind in ["timeline", "metadata"] {
        assert!(client.number(&["TTL", &key_name(kind)]).await > 34 * 86_400, "{kind}");
    }
}
