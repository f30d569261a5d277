//! Files that commit 3b6594e wrote, when no occurrence was known as an alert: rows of version 2,
//! records of version 3, and held writes of that time. An alert that still fires is not counted
//! again.

use std::{fs, path::Path};

use anomaly_counter::{
    domain::{AlertEpisode, AlertState, Fingerprint, Occurrence, Operation, Timestamp},
    spool::{Spool, SpoolConfig},
    store::{EmbeddedStore, RecordOutcome, Store},
};
use tempfile::TempDir;

use crate::support::{keeping, key_of, occurrence, store_limits};

/// Returns the time at which the files were written.
fn written_at() -> Timestamp {
    Timestamp::parse_rfc3339("2026-11-26T09:17:00Z").unwrap()
}

fn data_dir_with(name: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    let written = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/3b6594e");
    fs::copy(written.join(name), dir.path().join(name)).unwrap();
    dir
}

#[tokio::test]
async fn rows_without_alerts_are_read() {
    let dir = data_dir_with("anomalies.redb");
    for _ in 0..2 {
        let store = EmbeddedStore::open(dir.path(), keeping(10), store_limits()).unwrap();
        let now = written_at().plus_seconds(60);
        let details = store.details(now.into(), key_of("Old2")).await.unwrap().unwrap();
        assert_eq!(details.stats.counts.day, 15);
        assert_eq!(details.repairs.total, 1);
        assert_eq!(details.fix.unwrap().description.as_deref(), Some("raised"));
        assert_eq!(details.firing, None);
        let details = store.details(now.into(), key_of("Old1")).await.unwrap().unwrap();
        assert_eq!(details.stats.counts.day, 1);
        store.close().await;
    }
}

#[tokio::test]
async fn an_alert_that_was_counted_as_an_episode_is_not_counted_again() {
    let dir = data_dir_with("anomalies.redb");
    let store = EmbeddedStore::open(dir.path(), keeping(10), store_limits()).unwrap();
    let now = written_at().plus_seconds(60);
    let delivered = |fingerprint: &str, starts_at: &str| {
        let starts_at = Timestamp::parse_rfc3339(starts_at).unwrap();
        let episode = AlertEpisode {
            fingerprint: Fingerprint::of(fingerprint),
            starts_at: Some(starts_at),
            delivered_at: now,
            state: AlertState::Firing,
        };
        let alert = occurrence(0, &format!("{fingerprint}@{starts_at}"), starts_at);
        Occurrence { key: key_of("Old1"), episode: Some(Box::new(episode)), ..alert }
    };
    let fires_on = delivered("f1", "2026-11-26T09:00:00Z");
    let begins = delivered("f2", "2026-11-26T09:10:00Z");
    let recorded = store.record(now.into(), vec![fires_on.clone(), begins, fires_on]).await;
    let outcomes: Vec<_> = recorded.into_iter().map(|result| result.unwrap().outcome).collect();
    use RecordOutcome::{Duplicate, Ongoing, SameIncident};
    assert_eq!(outcomes, [Duplicate, SameIncident, Ongoing]);
    store.close().await;
}

/// Returns the ids of operations, none of which is an alert.
fn ids<'a>(operations: impl Iterator<Item = &'a Operation>) -> Vec<String> {
    let id = |operation: &Operation| {
        if let Operation::Occurrence(occurrence) = operation {
            assert_eq!(occurrence.episode, None);
        }
        operation.id().to_string()
    };
    operations.map(id).collect()
}

#[tokio::test]
async fn records_and_held_writes_without_alerts_are_read() {
    let dir = data_dir_with("spool.redb");
    for _ in 0..2 {
        let mut waiting = Vec::new();
        let config = SpoolConfig { max_bytes: 1 << 20 };
        let timeout = store_limits().write_timeout();
        let spool = Spool::open(dir.path(), config, timeout, written_at(), |spooled| {
            waiting.push(spooled.operation.clone());
        });
        let spool = spool.unwrap();
        assert_eq!(ids(waiting.iter()), ["w1@2026-11-26T09:10:00.000000Z", "w2", "w3"]);
        let held = spool.held().await.unwrap();
        let writes = held.iter().flat_map(|held| &held.writes);
        let expected = ["h1@2026-11-26T09:00:00.000000Z", "held-2"];
        assert_eq!(ids(writes.map(|(_, operation)| operation)), expected);
        assert!(held[0].identity.is_some());
        spool.close().await;
    }
}
