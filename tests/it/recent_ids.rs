//! The ids of rolled-up events that are known, and the outcome of a copy whose id is not.

use std::sync::Arc;

use anomaly_counter::{
    domain::{Action, AnomalyKey, EventId, Occurrence, RepairAttempt, Timestamp},
    store::{EmbeddedStore, RecordOutcome, Store},
};
use tempfile::TempDir;

use crate::redis_store::store_keeping;
use crate::support::{
    EXACT_EVENTS, Fixture, RedisServer, actor, keeping, occurrence, over_every_store,
    start_of_tests, store_limits,
};

const KEY: u64 = 0xb119_b2ed_aa9f_b08c;
const EXACT: u32 = 2_000;

fn event(now: Timestamp, n: i64) -> Occurrence {
    occurrence(KEY, &format!("e{n}"), now.minus_seconds(10_000 - n))
}

/// Records events by their numbers, and returns the number of each outcome.
async fn record(
    store: &Arc<dyn Store>,
    now: Timestamp,
    numbers: impl Iterator<Item = i64>,
    is_again: bool,
) -> Vec<RecordOutcome> {
    let events: Vec<_> = numbers.map(|n| event(now, n)).collect();
    let mut outcomes = Vec::new();
    for batch in events.chunks(500) {
        let results = if is_again {
            store.record_again(now.into(), batch.to_vec()).await
        } else {
            store.record(now.into(), batch.to_vec()).await
        };
        outcomes.extend(results.into_iter().map(|result| result.unwrap().outcome));
    }
    outcomes
}

async fn count(store: &Arc<dyn Store>, now: Timestamp) -> u64 {
    let stats = store.stats(now.into(), vec![AnomalyKey::from_bits(KEY)]).await.pop().unwrap();
    stats.unwrap().unwrap().counts.month
}

/// The contract promises to know the ids of the exact events, and of half as many before them.
async fn the_last_rolled_up_ids_are_all_known(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    let (events, exact) = (3 * i64::from(EXACT), i64::from(EXACT));
    record(&store, now, 0..events, false).await;
    let promised = events - exact - exact / 2..events;
    for outcome in record(&store, now, promised, false).await {
        assert_eq!(outcome, RecordOutcome::Duplicate);
    }
    assert_eq!(count(&store, now).await, events as u64);
}

over_every_store!(EXACT; the_last_rolled_up_ids_are_all_known);

async fn an_id_of_65_dashes_is_one_like_any_other(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    let dashes = || vec![occurrence(KEY, &"-".repeat(65), now)];
    store.record(now.into(), dashes()).await.pop().unwrap().unwrap();
    record(&store, now, 0..40, false).await;
    assert_eq!(count(&store, now).await, 41);
    let again = store.record(now.into(), dashes()).await.pop().unwrap().unwrap();
    assert_eq!(again.outcome, RecordOutcome::Duplicate);
}

over_every_store!(EXACT_EVENTS; an_id_of_65_dashes_is_one_like_any_other);

#[tokio::test]
async fn a_copy_whose_id_may_have_been_dropped_is_unrecognisable_and_changes_nothing() {
    let redis = RedisServer::start();
    let (store, now) = (store_keeping(100, &redis.url()).await, start_of_tests());
    record(&store, now, 0..9_000, false).await;
    let outcomes = record(&store, now, 0..9_000, true).await;
    let duplicates = outcomes.iter().filter(|o| **o == RecordOutcome::Duplicate).count();
    let unrecognisable = outcomes.iter().filter(|o| **o == RecordOutcome::Unrecognisable).count();
    assert_eq!(duplicates + unrecognisable, 9_000);
    assert!(unrecognisable > 6_000, "{unrecognisable}");
    assert_eq!(count(&store, now).await, 9_000);
    // An event that was never sent before is counted, whatever its time.
    let late = vec![occurrence(KEY, "late", now.minus_seconds(9_999))];
    let recorded = store.record(now.into(), late).await.pop().unwrap().unwrap();
    assert_eq!(recorded.outcome, RecordOutcome::Counted);
    assert_eq!(count(&store, now).await, 9_001);
}

#[tokio::test]
async fn a_copy_is_recorded_where_no_id_was_dropped() {
    let redis = RedisServer::start();
    let (store, now) = (store_keeping(100, &redis.url()).await, start_of_tests());
    record(&store, now, (0..400).filter(|n| n % 2 == 0), false).await;
    for (n, outcome) in (0..400).zip(record(&store, now, 0..400, true).await) {
        let is_new = n % 2 == 1;
        let expected = if is_new { RecordOutcome::Counted } else { RecordOutcome::Duplicate };
        assert_eq!(outcome, expected, "{n}");
    }
    assert_eq!(count(&store, now).await, 400);
}

/// Opens the embedded store with other limits than those of the last time.
fn open_embedded_keeping(dir: &TempDir, exact_events: u32, operation_ids: u32) -> Arc<dyn Store> {
    let mut recording = keeping(exact_events);
    recording.timeline.operation_ids = operation_ids.try_into().unwrap();
    Arc::new(EmbeddedStore::open(dir.path(), recording, store_limits()).unwrap())
}

/// The journal still has all changes then, and a start replays them.
#[tokio::test]
async fn what_was_counted_by_other_limits_stays_counted_after_a_restart() {
    let (dir, now, key) = (TempDir::new().unwrap(), start_of_tests(), AnomalyKey::from_bits(KEY));
    let store = open_embedded_keeping(&dir, 10, 1);
    // The second ones are later, so that their ids are not those that are remembered.
    for now in [now.minus_seconds(100), now] {
        let outcomes = record(&store, now, 0..30, false).await;
        assert!(outcomes.iter().all(|outcome| *outcome == RecordOutcome::Counted));
    }
    for id in ["r1", "r2", "r1", "r2"] {
        let attempt = RepairAttempt {
            key,
            id: EventId::parse(id).unwrap(),
            action: Action::parse("restart_pod").unwrap(),
            success: true,
            at: now,
            actor: actor(),
        };
        let recorded = store.record_repairs(now.into(), vec![attempt]).await.pop().unwrap();
        assert!(recorded.unwrap().unwrap().counted);
    }
    store.close().await;
    drop(store);
    // Twice, since the limits of the first time are not those of the last.
    for (exact_events, operation_ids) in [(10_000, 10_000), (2, 2), (100, 1)] {
        let store = open_embedded_keeping(&dir, exact_events, operation_ids);
        assert_eq!(count(&store, now).await, 60, "{exact_events}");
        let stats = store.stats(now.into(), vec![key]).await.pop().unwrap();
        assert_eq!(stats.unwrap().unwrap().repair_attempts, 4, "{exact_events}");
        store.close().await;
    }
}

#[tokio::test]
async fn a_duplicate_does_not_count_after_a_restart_with_lower_limits() {
    const DAY: i64 = 86_400;
    let (dir, now) = (TempDir::new().unwrap(), start_of_tests());
    let store = open_embedded_keeping(&dir, 1_000, 10);
    let old = |n: i64| occurrence(KEY, &format!("old{n}"), now.minus_seconds(100 - n));
    let events: Vec<_> = (0..20).map(old).collect();
    assert!(store.record(now.into(), events).await.iter().all(Result::is_ok));
    let later = now.plus_seconds(20 * DAY);
    record(&store, later, 0..20, false).await;
    // The old ones leave one by one, each with a duplicate, which is in the journal therefore.
    let at = |n: i64| now.plus_seconds(30 * DAY - 100 + n);
    for n in 1..15 {
        let duplicate = vec![event(later, 0)];
        let recorded = store.record(at(n).into(), duplicate).await.pop().unwrap().unwrap();
        assert_eq!(recorded.outcome, RecordOutcome::Duplicate);
    }
    let before = count(&store, at(14)).await;
    store.close().await;
    drop(store);
    let store = open_embedded_keeping(&dir, 2, 10);
    assert_eq!(count(&store, at(14)).await, before);
    store.close().await;
}

/// The hash of an older version lacks the time of the newest dropped id.
#[tokio::test]
async fn a_copy_is_unrecognisable_where_an_older_version_may_have_dropped_its_id() {
    let redis = RedisServer::start();
    let (store, now) = (store_keeping(100, &redis.url()).await, start_of_tests());
    record(&store, now, (0..400).filter(|n| n % 2 == 0), false).await;
    let ids = format!("anomaly:folded_ids:{}", AnomalyKey::from_bits(KEY));
    let client = redis.client().await;
    assert_eq!(client.number(&["HDEL", &ids, "dropped"]).await, 1);
    let outcomes = record(&store, now, [1, 399].into_iter(), true).await;
    assert_eq!(outcomes, [RecordOutcome::Unrecognisable, RecordOutcome::Counted]);
    let outcomes = record(&store, now, [3].into_iter(), false).await;
    assert_eq!(outcomes, [RecordOutcome::Counted]);
    let outcomes = record(&store, now, [5].into_iter(), true).await;
    assert_eq!(outcomes, [RecordOutcome::Unrecognisable]);
}

/// An older version that runs beside this one rolls events up, drops ids, and leaves the time of
/// the newest dropped one as it was.
#[tokio::test]
async fn a_copy_is_unrecognisable_where_an_older_version_has_rolled_up_meanwhile() {
    let redis = RedisServer::start();
    let (store, now) = (store_keeping(100, &redis.url()).await, start_of_tests());
    record(&store, now, (0..400).filter(|n| n % 2 == 0), false).await;
    let outcomes = record(&store, now, [1].into_iter(), true).await;
    assert_eq!(outcomes, [RecordOutcome::Counted], "no id was dropped");
    let name = |kind: &str| format!("anomaly:{kind}:{}", AnomalyKey::from_bits(KEY));
    let client = redis.client().await;
    let folded = client.text(&["GET", &name("folded")]).await.unwrap();
    let [first, edge, total, coarse] =
        <[&str; 4]>::try_from(folded.split(' ').collect::<Vec<_>>()).unwrap();
    let total = total.parse::<u64>().unwrap() + 1;
    client.run(&["SET", &name("folded"), &format!("{first} {edge} {total} {coarse}")]).await;
    for _ in 0..2 {
        let outcomes = record(&store, now, [3, 399].into_iter(), true).await;
        let newest = outcomes[1];
        assert!(matches!(newest, RecordOutcome::Counted | RecordOutcome::Duplicate), "{newest:?}");
        assert_eq!(outcomes[0], RecordOutcome::Unrecognisable);
        // The outcomes are the same after this version has recorded more events.
        record(&store, now, 400..410, false).await;
    }
}
