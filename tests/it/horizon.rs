//! The time by which a store forgets: never later than the horizon, and on Redis never later than
//! the server's own time.

use std::sync::Arc;

use anomaly_counter::{
    domain::{Action, AnomalyKey, AnomalyStats, EventId, Moment, RepairAttempt, Timestamp},
    store::{RecordOutcome, Store},
};

use crate::support::{
    CheckpointingFixture, EXACT_EVENTS, EmbeddedFixture, Fixture, RedisFixture, actor, fix_mark,
    fix_removal, occurrence, over_every_store, start_of_tests, wall_clock,
};

const KEY: u64 = 0xb119_b2ed_aa9f_b08c;
const DAY: i64 = 86_400;
const FEW: u32 = 10;

/// Returns a moment with a wrong time, by which nothing may be forgotten that has not expired at
/// `horizon`.
fn ahead(horizon: Timestamp, days: i64) -> Moment {
    Moment { horizon, ..Moment::from(horizon.plus_seconds(days * DAY)) }
}

async fn record(store: &Arc<dyn Store>, moment: Moment, id: &str, at: Timestamp) -> RecordOutcome {
    let results = store.record(moment, vec![occurrence(KEY, id, at)]).await;
    results.into_iter().next().unwrap().unwrap().outcome
}

async fn repair(store: &Arc<dyn Store>, moment: Moment, id: &str) -> (bool, u64) {
    let attempt = RepairAttempt {
        key: AnomalyKey::from_bits(KEY),
        id: EventId::parse(id).unwrap(),
        action: Action::parse("restart_pod").unwrap(),
        success: true,
        at: moment.now,
        actor: actor(),
    };
    let results = store.record_repairs(moment, vec![attempt]).await;
    let recorded = results.into_iter().next().unwrap().unwrap().expect("the anomaly is known");
    (recorded.counted, recorded.history.total)
}

async fn stats(store: &Arc<dyn Store>, moment: Moment) -> AnomalyStats {
    let results = store.stats(moment, vec![AnomalyKey::from_bits(KEY)]).await;
    results.into_iter().next().unwrap().unwrap().expect("the anomaly is known")
}

async fn nothing_is_forgotten_by_a_time_after_the_horizon(mut fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    for number in 0..5 {
        record(&store, now.into(), &number.to_string(), now).await;
    }
    assert_eq!(repair(&store, now.into(), "r1").await, (true, 1));
    store.mark_fixed(now.into(), fix_mark(KEY, "m1", now)).await.unwrap().unwrap();
    for days in [40, 100] {
        let wrong = ahead(now, days);
        assert_eq!(record(&store, wrong, "0", wrong.now).await, RecordOutcome::Duplicate);
        let id = format!("after {days}");
        assert_eq!(record(&store, wrong, &id, now).await, RecordOutcome::Counted, "not too old");
        assert_eq!(stats(&store, wrong).await.counts.month, 0, "counts go by the time");
        assert!(!repair(&store, wrong, "r1").await.0, "its id is known");
        for _ in 0..3 {
            store.maintain(wrong).await.unwrap();
        }
    }
    assert!(repair(&store, ahead(now, 40), "r2").await.0);
    for is_reopened in [false, true] {
        if is_reopened {
            fixture.reopen().await;
        }
        let found = stats(&fixture.store(), now.into()).await;
        assert_eq!(found.counts.month, 7, "{is_reopened}");
        assert_eq!(found.repair_attempts, 2, "{is_reopened}");
        assert_eq!(found.fixed_at, Some(now), "{is_reopened}");
    }
    let removal = fix_removal(KEY, "u1", now);
    assert_eq!(fixture.store().unmark_fixed(ahead(now, 100), removal).await, Ok(Some(true)));
}

over_every_store!(EXACT_EVENTS; nothing_is_forgotten_by_a_time_after_the_horizon);

async fn what_is_rolled_up_is_not_forgotten_by_a_time_after_the_horizon(mut fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    let at = |number: i64| now.minus_seconds(7_000 - number * 70);
    for number in 0..100 {
        record(&store, now.into(), &number.to_string(), at(number)).await;
    }
    let before = stats(&store, now.into()).await;
    for (number, horizon) in (100..160).zip([now, Timestamp::MIN].into_iter().cycle()) {
        let wrong = Moment { horizon, ..ahead(now, 40) };
        let outcome = record(&store, wrong, &number.to_string(), at(99)).await;
        assert_eq!(outcome, RecordOutcome::Counted);
        assert_eq!(stats(&store, wrong).await.counts.month, 0);
        store.maintain(wrong).await.unwrap();
    }
    for is_reopened in [false, true] {
        if is_reopened {
            fixture.reopen().await;
        }
        let found = stats(&fixture.store(), now.into()).await;
        assert_eq!(found.counts.month, 160, "{is_reopened}");
        assert_eq!(found.first_seen, before.first_seen, "{is_reopened}");
        // The hour begins in the middle of them, in a bucket that may have become coarse.
        assert!(found.counts.hour >= before.counts.hour + 60, "{is_reopened}");
    }
}

over_every_store!(FEW; what_is_rolled_up_is_not_forgotten_by_a_time_after_the_horizon);

async fn the_file_has_what_memory_has_after_house_keeping(mut fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    record(&store, now.into(), "old", now).await;
    store.mark_fixed(now.into(), fix_mark(KEY, "m1", now)).await.unwrap().unwrap();
    let later = Moment::from(now.plus_seconds(60 * DAY));
    for _ in 0..3 {
        store.maintain(later).await.unwrap();
    }
    // The mark keeps the anomaly; its event has expired, and its id with it.
    fixture.reopen().await;
    let store = fixture.store();
    assert_eq!(record(&store, later, "old", later.now).await, RecordOutcome::Counted);
    assert_eq!(stats(&store, later).await.counts.month, 1);
    fixture.reopen().await;
    assert_eq!(stats(&fixture.store(), now.into()).await.counts.month, 1, "it does not come back");
}

over_every_store!(EXACT_EVENTS; the_file_has_what_memory_has_after_house_keeping);

async fn an_audit_holds_nothing_older_than_ninety_days(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    record(&store, now.into(), "e1", now).await;
    store.mark_fixed(now.into(), fix_mark(KEY, "m1", now)).await.unwrap().unwrap();
    let later = now.plus_seconds(60 * DAY);
    store.mark_fixed(later.into(), fix_mark(KEY, "m2", later)).await.unwrap().unwrap();
    let (key, at) = (AnomalyKey::from_bits(KEY), |days| now.plus_seconds(days * DAY).into());
    assert_eq!(store.audit(at(90), key).await.unwrap().unwrap().len(), 2);
    assert_eq!(store.audit(at(91), key).await.unwrap().unwrap().len(), 1);
}

over_every_store!(EXACT_EVENTS; an_audit_holds_nothing_older_than_ninety_days);

/// Returns a moment of a process that is too new to forget anything.
fn of_new_process(now: Timestamp) -> Moment {
    Moment { horizon: Timestamp::MIN, ..Moment::from(now) }
}

/// Whether the journal has been trimmed or not, and though a new process forgets nothing.
async fn an_expired_anomaly_does_not_come_back_with_a_new_process(mut fixture: impl Fixture) {
    let (store, begin) = (fixture.store(), start_of_tests());
    record(&store, begin.into(), "e1", begin).await;
    repair(&store, begin.into(), "r1").await;
    let now = begin.plus_seconds(36 * DAY);
    let other = vec![occurrence(1, "other", now)];
    assert!(store.record(now.into(), other).await.iter().all(Result::is_ok));
    let known = async |store: Arc<dyn Store>| {
        let keys = vec![AnomalyKey::from_bits(KEY), AnomalyKey::from_bits(1)];
        let stats = store.stats(of_new_process(now), keys).await;
        stats.into_iter().map(|stats| stats.unwrap().is_some()).collect::<Vec<_>>()
    };
    assert_eq!(known(fixture.store()).await, [true, true]);
    store.maintain(now.into()).await.unwrap();
    assert_eq!(known(fixture.store()).await, [false, true]);
    for _ in 0..2 {
        fixture.reopen().await;
        assert_eq!(known(fixture.store()).await, [false, true]);
    }
    let store = fixture.store();
    assert_eq!(record(&store, of_new_process(now), "e1", now).await, RecordOutcome::Counted);
    let details = store.details(of_new_process(now), AnomalyKey::from_bits(KEY)).await.unwrap();
    let details = details.expect("it is known again");
    assert_eq!(details.known_since, Some(now));
    assert_eq!(details.repairs.total, 0);
    assert_eq!(store.audit(now.into(), AnomalyKey::from_bits(KEY)).await, Ok(Some(Vec::new())));
}

#[tokio::test]
async fn an_expired_anomaly_does_not_come_back_from_the_journal() {
    let fixture = EmbeddedFixture::keeping(EXACT_EVENTS).await;
    an_expired_anomaly_does_not_come_back_with_a_new_process(fixture).await;
}

#[tokio::test]
async fn an_expired_anomaly_does_not_come_back_from_a_checkpoint() {
    let fixture = CheckpointingFixture::keeping(EXACT_EVENTS).await;
    an_expired_anomaly_does_not_come_back_with_a_new_process(fixture).await;
}

#[tokio::test]
async fn repairs_that_have_expired_do_not_count_again_after_a_repair_by_a_new_process() {
    let mut fixture = EmbeddedFixture::keeping(EXACT_EVENTS).await;
    let (store, begin) = (fixture.store(), start_of_tests());
    record(&store, begin.into(), "e1", begin).await;
    for id in ["r1", "r2", "r3"] {
        repair(&store, begin.into(), id).await;
    }
    for day in [30, 36] {
        let at = begin.plus_seconds(day * DAY);
        record(&store, at.into(), &format!("e{day}"), at).await;
    }
    let now = begin.plus_seconds(36 * DAY);
    assert_eq!(stats(&store, now.into()).await.repair_attempts, 0);
    fixture.reopen().await;
    let store = fixture.store();
    assert_eq!(stats(&store, of_new_process(now)).await.repair_attempts, 0);
    assert_eq!(repair(&store, of_new_process(now), "r4").await, (true, 1));
    assert_eq!(stats(&store, of_new_process(now)).await.repair_attempts, 1);
    fixture.reopen().await;
    let (store, later) = (fixture.store(), now.plus_seconds(3_600));
    assert_eq!(stats(&store, later.into()).await.repair_attempts, 1);
    assert_eq!(repair(&store, later.into(), "r5").await, (true, 2));
    assert_eq!(stats(&store, begin.into()).await.repair_attempts, 2, "the others are forgotten");
}

#[tokio::test]
async fn a_mark_from_a_wrong_clock_does_not_replace_one_that_has_waited() {
    let fixture = RedisFixture::keeping(EXACT_EVENTS).await;
    let (store, now) = (fixture.store(), wall_clock());
    record(&store, now.into(), "e1", now).await;
    let wrong = now.plus_seconds(40 * DAY);
    store.mark_fixed(wrong.into(), fix_mark(KEY, "wrong", wrong)).await.unwrap().unwrap();
    let waited = fix_removal(KEY, "waited", now.minus_seconds(10));
    assert_eq!(store.unmark_fixed(now.into(), waited).await, Ok(Some(true)));
}

#[tokio::test]
async fn redis_forgets_nothing_by_a_time_after_its_own() {
    for exact_events in [EXACT_EVENTS, FEW] {
        let fixture = RedisFixture::keeping(exact_events).await;
        let (store, now) = (fixture.store(), wall_clock());
        let at = |number: i64| now.minus_seconds(7_000 - number * 70);
        for number in 0..60 {
            record(&store, now.into(), &number.to_string(), at(number)).await;
        }
        assert_eq!(repair(&store, now.into(), "r1").await, (true, 1));
        let before = stats(&store, now.into()).await;
        let wrong = Moment::from(now.plus_seconds(40 * DAY));
        for number in 60..100 {
            let outcome = record(&store, wrong, &number.to_string(), at(59)).await;
            assert_eq!(outcome, RecordOutcome::Counted, "not too old");
        }
        assert_eq!(record(&store, wrong, "59", at(59)).await, RecordOutcome::Duplicate);
        assert_eq!(repair(&store, wrong, "r2").await, (true, 2));
        assert_eq!(repair(&store, now.into(), "r1").await, (false, 2));
        let found = stats(&store, now.into()).await;
        assert_eq!(found.counts.month, 100, "{exact_events}");
        assert_eq!(found.counts.hour, before.counts.hour + 40, "{exact_events}");
        assert_eq!(found.first_seen, before.first_seen);
    }
}
