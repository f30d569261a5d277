//! Files and Redis keys that commit 8c08e13 wrote are read, with everything in them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anomaly_counter::{
    domain::{AnomalyKey, AuditEvent, EventId, Operation, Timestamp},
    spool::{Spool, SpoolConfig},
    store::{AnomalyDetails, EmbeddedStore, RecordOutcome, Store},
};
use tempfile::TempDir;

use crate::support::{RedisFixture, keeping, occurrence, start_of_tests};

/// Of the timelines in the data.
const EXACT_EVENTS: u32 = 10;

/// Seconds after [`start_of_tests`] at which the data are read.
const READ_AT: i64 = 12_600;

fn written(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/8c08e13").join(name)
}

/// A data directory with a copy of a file of that commit.
fn data_dir_with(name: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::copy(written(name), dir.path().join(name)).unwrap();
    dir
}

fn after_start(seconds: i64) -> Timestamp {
    start_of_tests().plus_seconds(seconds)
}

async fn details(store: &dyn Store, key: u64) -> AnomalyDetails {
    let details = store.details(after_start(READ_AT), AnomalyKey::from_bits(key)).await;
    details.unwrap().expect("the anomaly is known")
}

async fn audit(store: &dyn Store, key: u64) -> Vec<AuditEvent> {
    let audit = store.audit(after_start(READ_AT), AnomalyKey::from_bits(key)).await;
    audit.unwrap().unwrap().into_iter().map(|entry| entry.event).collect()
}

/// Checks what both stores hold.
async fn holds_what_was_written(store: &dyn Store) {
    let quiet = details(store, 1).await;
    assert_eq!(quiet.stats.counts.hour, 1);
    assert_eq!(quiet.stats.counts.day, 2);
    assert_eq!(quiet.stats.first_seen, Some(after_start(0)));
    assert_eq!(quiet.known_since, Some(after_start(0)));
    let signature = r#"{"alert_name":"Alert1","service":"api","pod":"p-1"}"#;
    assert_eq!(quiet.signature_json.as_deref(), Some(signature));

    // Forty events, 300 s apart; all but the newest ten are rolled up.
    let busy = details(store, 2).await;
    assert_eq!(busy.stats.counts.day, 40);
    assert_eq!(busy.stats.last_seen, Some(after_start(39 * 300)));

    let repaired = details(store, 3).await;
    let successes: Vec<bool> = repaired.repairs.recent.iter().map(|r| r.success).collect();
    assert_eq!(successes, [true, false], "newest first");
    let fix = repaired.fix.expect("a mark holds");
    assert_eq!(fix.description.as_deref(), Some("raised the limit"));
    assert_eq!(fix.fixed_by.as_deref(), Some("ana"));
    assert_eq!(fix.marked_at, after_start(30));
    let attempt = |success| AuditEvent::RepairAttempted { action: "restart_pod".into(), success };
    let marked = || AuditEvent::MarkedFixed { description: "raised the limit".into() };
    assert_eq!(audit(store, 3).await, [marked(), attempt(true), attempt(false)]);

    assert_eq!(details(store, 4).await.fix, None);
    assert_eq!(audit(store, 4).await, [AuditEvent::UnmarkedFixed, marked()]);

    let newest = details(store, 5).await;
    assert_eq!(newest.repairs.total, 1);
    assert_eq!(newest.fix.map(|fix| fix.marked_at), Some(after_start(12_400)));
}

/// Checks that copies of what was written are recognised, and that new events are counted.
async fn goes_on(store: &dyn Store) {
    let now = after_start(READ_AT);
    let again = vec![
        occurrence(1, "quiet", after_start(0)),
        occurrence(2, "busy-39", after_start(39 * 300)),
        // One of those that are rolled up.
        occurrence(2, "busy-28", after_start(28 * 300)),
        occurrence(5, "fresh", now),
    ];
    let recorded = store.record(now, again).await;
    let outcomes: Vec<_> = recorded.into_iter().map(|result| result.unwrap().outcome).collect();
    use RecordOutcome::{Counted, Duplicate};
    assert_eq!(outcomes, [Duplicate, Duplicate, Duplicate, Counted]);
}

#[tokio::test]
async fn the_embedded_file_of_8c08e13_is_read_and_goes_on() {
    let dir = data_dir_with("anomalies.redb");
    let store = EmbeddedStore::open(dir.path(), keeping(EXACT_EVENTS)).unwrap();
    holds_what_was_written(&store).await;
    goes_on(&store).await;
    store.close().await;
    drop(store);

    let reopened = EmbeddedStore::open(dir.path(), keeping(EXACT_EVENTS)).unwrap();
    still_holds_all_of_it(&reopened).await;
    reopened.close().await;
}

/// As [`holds_what_was_written`], after [`goes_on`].
async fn still_holds_all_of_it(store: &dyn Store) {
    assert_eq!(details(store, 2).await.stats.counts.day, 40);
    assert_eq!(details(store, 5).await.stats.counts.day, 2);
}

#[tokio::test]
async fn the_redis_keys_of_8c08e13_are_read_and_go_on() {
    let fixture = RedisFixture::over_snapshot(&written("dump.rdb"), EXACT_EVENTS).await;
    holds_what_was_written(&*fixture.store).await;
    goes_on(&*fixture.store).await;
    still_holds_all_of_it(&*fixture.store).await;
}

#[tokio::test]
async fn the_spool_of_8c08e13_is_read() {
    let dir = data_dir_with("spool.redb");
    let mut waiting = Vec::new();
    let config = SpoolConfig { max_bytes: 1 << 20 };
    let spool = Spool::open(dir.path(), config, after_start(READ_AT), |spooled| {
        waiting.push(spooled.operation.clone());
    })
    .unwrap();
    let kinds: Vec<_> = waiting.iter().map(Operation::kind).collect();
    assert_eq!(kinds, ["occurrence", "repair", "permanent fix", "undoing of a permanent fix"]);
    let ids: Vec<_> = waiting.iter().map(|operation| operation.id().as_str()).collect();
    assert_eq!(ids, ["waits", "r1", "m", "u"]);
    let Operation::Mark(mark) = &waiting[2] else { panic!("another kind: {:?}", waiting[2]) };
    assert_eq!(mark.description, "raised the limit");
    assert_eq!(mark.actor.by.as_deref(), Some("ana"));
    assert_eq!(mark.at, after_start(7));

    let letters = spool.dead_letters().await.unwrap();
    assert_eq!(letters.len(), 1);
    assert!(letters[0].reason.starts_with("WRONGTYPE"), "{}", letters[0].reason);
    let refused = letters[0].operation.as_ref().expect("its record is readable");
    assert_eq!(refused.id(), &EventId::parse("refused").unwrap());
    assert!(spool.revive_dead(letters[0].sequence).await.unwrap());
}
