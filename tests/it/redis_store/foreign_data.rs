//! Data of other writers in an anomaly's keys never make a counted event a fault.

use anomaly_counter::{domain::AnomalyKey, store::RecordOutcome};

use super::{QUIET, outcomes, store_at};
use crate::support::{RedisServer, occurrence, start_of_tests};

#[tokio::test]
async fn a_repair_count_that_is_no_number_reads_as_none() {
    let redis = RedisServer::start();
    let client = redis.client().await;
    let (store, now) = (store_at(&redis.url()).await, start_of_tests());
    let key = AnomalyKey::from_bits(QUIET);
    let name = format!("anomaly:repair_count:{key}");
    let foreign = ["3.0", "0x10", "1e3", "-1", " 3", "", "99999999999999999999"];
    for (count, text) in (1..).zip(foreign) {
        client.run(&["SET", &name, text]).await;
        let event = vec![occurrence(QUIET, &count.to_string(), now)];
        let recorded = store.record(now.into(), event).await.pop().unwrap().unwrap();
        assert_eq!(recorded.outcome, RecordOutcome::Counted, "{text}");
        assert_eq!(recorded.stats.counts.month, count, "{text}");
        assert_eq!(recorded.stats.repair_attempts, 0, "{text}");
        let read = store.stats(now.into(), vec![key]).await.pop().unwrap().unwrap().unwrap();
        assert_eq!(read.repair_attempts, 0, "{text}");
        assert!(store.details(now.into(), key).await.unwrap().is_some(), "{text}");
    }
    client.run(&["SET", &name, "3"]).await;
    let read = store.stats(now.into(), vec![key]).await.pop().unwrap().unwrap().unwrap();
    assert_eq!(read.repair_attempts, 3);
}

#[tokio::test]
async fn metadata_of_a_foreign_type_are_read_as_missing_where_a_mark_holds() {
    let redis = RedisServer::start();
    let client = redis.client().await;
    let (store, now) = (store_at(&redis.url()).await, start_of_tests());
    let key = AnomalyKey::from_bits(QUIET);
    outcomes(&store, now, vec![occurrence(QUIET, "1", now)]).await.pop().unwrap().unwrap();
    client.run(&["DEL", &format!("anomaly:metadata:{key}")]).await;
    client.run(&["SET", &format!("anomaly:metadata:{key}"), "foreign"]).await;
    client.run(&["SET", &format!("anomaly:permanent_fix:{key}"), "1", "EX", "1000"]).await;
    let event = vec![occurrence(QUIET, "2", now)];
    let recorded = store.record(now.into(), event).await.pop().unwrap().unwrap();
    assert_eq!(recorded.outcome, RecordOutcome::Counted);
    assert!(recorded.stats.fixed_at.is_some());
    let details = store.details(now.into(), key).await.unwrap().unwrap();
    assert_eq!(details.stats.counts.month, 2);
    assert_eq!(details.signature_json, None);
    let history = store.history(now.into(), key, &[now.minus_seconds(60)]).await.unwrap().unwrap();
    assert_eq!(history.counts[0].count, 2);
    assert_eq!(history.known_since, None);
}
