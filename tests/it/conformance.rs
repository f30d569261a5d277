//! The contract of `Store`: the same cases for every store.

use std::sync::Arc;

use anomaly_counter::{
    domain::{
        AUDIT_ENTRIES, Action, AnomalyKey, AnomalyStats, AuditEntry, EventId, KnownStats,
        RepairAttempt, Timestamp, Window, WindowCounts,
    },
    store::{RecordOutcome, Recorded, Store},
};

use crate::support::{
    EXACT_EVENTS, Fixture, OPERATION_IDS, actor, fix_mark, fix_removal, occurrence,
    over_every_store, start_of_tests,
};

over_every_store!(
    EXACT_EVENTS;
    an_occurrence_counts_in_every_window,
    an_event_on_the_start_of_a_window_is_inside,
    an_id_counts_once_within_a_batch_and_after_it,
    an_id_counts_once_when_its_copies_come_at_the_same_time,
    the_same_id_counts_for_each_anomaly,
    the_first_copy_of_an_id_keeps_its_time,
    what_is_older_than_thirty_days_is_not_recorded,
    what_is_older_than_thirty_days_makes_its_anomaly_known,
    events_leave_after_thirty_days,
    the_count_before_is_that_of_the_moment_before,
    a_late_event_changes_only_the_windows_that_hold_it,
    a_batch_answers_in_its_order,
    a_large_batch_is_answered_whole,
    unknown_anomalies_are_told_from_quiet_ones,
    repairs_of_unknown_anomalies_are_refused,
    a_repair_counts_once_by_its_id,
    the_history_keeps_the_newest_hundred_repairs,
    the_ids_of_the_newest_repairs_and_marks_are_known,
    a_mark_holds_until_it_is_taken_back,
    the_newest_event_before_is_that_of_the_moment_before_where_a_mark_holds,
    what_had_an_effect_is_audited_newest_first,
    the_audit_keeps_the_newest_hundred_entries,
    the_signature_is_kept_as_first_posted,
    everything_is_there_after_a_restart,
    a_forgotten_anomaly_is_unknown_and_begins_anew,
);

const KEY: u64 = 0xb119_b2ed_aa9f_b08c;

fn key(bits: u64) -> AnomalyKey {
    AnomalyKey::from_bits(bits)
}

/// Records one occurrence that happens `now`.
async fn record_at(store: &Arc<dyn Store>, now: Timestamp, id: &str) -> Recorded {
    let mut results = store.record(now.into(), vec![occurrence(KEY, id, now)]).await;
    results.pop().unwrap().unwrap()
}

async fn counts(store: &Arc<dyn Store>, now: Timestamp) -> WindowCounts {
    let mut results = store.stats(now.into(), vec![key(KEY)]).await;
    results.pop().unwrap().unwrap().unwrap().counts
}

fn attempt(bits: u64, id: &str, success: bool, at: Timestamp) -> RepairAttempt {
    RepairAttempt {
        key: key(bits),
        id: EventId::parse(id).unwrap(),
        action: Action::parse("restart_pod").unwrap(),
        success,
        at,
        actor: actor(),
    }
}

async fn an_occurrence_counts_in_every_window(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    let recorded = record_at(&store, now, "e1").await;
    assert_eq!(recorded.outcome, RecordOutcome::Counted);
    assert_eq!(recorded.stats.counts, WindowCounts { hour: 1, day: 1, week: 1, month: 1 });
    assert_eq!(recorded.stats.first_seen, Some(now));
    assert_eq!(recorded.stats.last_seen, Some(now));
    assert_eq!(counts(&store, now).await, recorded.stats.counts);
}

async fn an_event_on_the_start_of_a_window_is_inside(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    let starts = [Window::Hour, Window::Day, Window::Week, Window::Month].map(|w| w.start(now));
    let batch = starts.iter().map(|at| occurrence(KEY, &at.to_string(), *at)).collect();
    for result in store.record(now.into(), batch).await {
        assert_eq!(result.unwrap().outcome, RecordOutcome::Counted);
    }
    let on_the_edge = WindowCounts { hour: 1, day: 2, week: 3, month: 4 };
    assert_eq!(counts(&store, now).await, on_the_edge);
    let a_microsecond_later = Timestamp::from_micros(now.as_micros() + 1);
    let past_the_edge = WindowCounts { hour: 0, day: 1, week: 2, month: 3 };
    assert_eq!(counts(&store, a_microsecond_later).await, past_the_edge);
}

async fn an_id_counts_once_within_a_batch_and_after_it(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    let batch = vec![occurrence(KEY, "e1", now), occurrence(KEY, "e1", now)];
    let results: Vec<_> =
        store.record(now.into(), batch).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(results[0].outcome, RecordOutcome::Counted);
    assert_eq!(results[1].outcome, RecordOutcome::Duplicate);
    assert_eq!(results[1].stats, results[0].stats);

    let again = record_at(&store, now.plus_seconds(60), "e1").await;
    assert_eq!(again.outcome, RecordOutcome::Duplicate);
    assert_eq!(again.previous_count_24h, 1);
    assert_eq!(again.stats.counts.day, 1);
}

async fn an_id_counts_once_when_its_copies_come_at_the_same_time(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    let copies: Vec<_> = (0..20)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { record_at(&store, now, "e1").await.outcome })
        })
        .collect();
    let mut counted = 0;
    for copy in copies {
        counted += usize::from(copy.await.unwrap() == RecordOutcome::Counted);
    }
    assert_eq!(counted, 1);
    assert_eq!(counts(&store, now).await.month, 1);
}

async fn the_same_id_counts_for_each_anomaly(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    let batch = vec![occurrence(1, "e1", now), occurrence(2, "e1", now)];
    for result in store.record(now.into(), batch).await {
        assert_eq!(result.unwrap().outcome, RecordOutcome::Counted);
    }
}

async fn the_first_copy_of_an_id_keeps_its_time(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    record_at(&store, now, "e1").await;
    let later = now.plus_seconds(7_200);
    let again = record_at(&store, later, "e1").await;
    assert_eq!(again.stats.last_seen, Some(now));
    assert_eq!(again.stats.counts, WindowCounts { hour: 0, day: 1, week: 1, month: 1 });
}

async fn what_is_older_than_thirty_days_is_not_recorded(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    let old = Timestamp::from_micros(Window::Month.start(now).as_micros() - 1);
    let recorded =
        store.record(now.into(), vec![occurrence(KEY, "old", old)]).await.pop().unwrap().unwrap();
    assert_eq!(recorded.outcome, RecordOutcome::TooOld);
    assert_eq!(recorded.stats.counts, WindowCounts::default());
}

async fn what_is_older_than_thirty_days_makes_its_anomaly_known(mut fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    let old = |id: &str, days: i64| occurrence(KEY, id, now.minus_seconds(days * 86_400));
    let batch = vec![old("e1", 45), old("e2", 60), old("e1", 45)];
    for result in store.record(now.into(), batch).await {
        assert_eq!(result.unwrap().outcome, RecordOutcome::TooOld);
    }
    drop(store);
    fixture.reopen().await;
    let store = fixture.store();
    let found = store.stats(now.into(), vec![key(KEY)]).await;
    assert_eq!(found, [Ok(Some(AnomalyStats::default()))]);
    let details = store.details(now.into(), key(KEY)).await.unwrap().unwrap();
    assert_eq!(details.signature_json.as_deref(), Some(r#"{"alert_name":"HighCPU","pod":"p-1"}"#));
    assert_eq!(details.known_since, Some(now.minus_seconds(45 * 86_400)), "of the first record");
    assert_eq!(details.stats, AnomalyStats::default());

    let repaired = store.record_repairs(now.into(), vec![attempt(KEY, "r1", true, now)]).await;
    assert_eq!(repaired[0].clone().unwrap().unwrap().history.total, 1);
    let counted = record_at(&store, now, "e3").await;
    assert_eq!(counted.outcome, RecordOutcome::Counted);
    assert_eq!(counted.stats.counts.month, 1);
    let again = store.record(now.into(), vec![old("e4", 31)]).await.pop().unwrap().unwrap();
    assert_eq!(again.outcome, RecordOutcome::TooOld);
    assert_eq!(again.stats, AnomalyStats { repair_attempts: 1, ..counted.stats });
    // Old and new occurrences of one batch each have the outcome that they would have alone.
    let old = |key| occurrence(key, "old", now.minus_seconds(40 * 86_400));
    let new = |key| occurrence(key, "new", now);
    let batch = vec![old(1), new(1), new(2), old(2), old(3), old(3), new(3)];
    let outcomes = store.record(now.into(), batch).await.into_iter();
    let outcomes: Vec<_> = outcomes.map(|result| result.unwrap().outcome).collect();
    let (too_old, new) = (RecordOutcome::TooOld, RecordOutcome::Counted);
    assert_eq!(outcomes, [too_old, new, new, too_old, too_old, too_old, new]);
}

async fn events_leave_after_thirty_days(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    record_at(&store, now, "e1").await;
    record_at(&store, now.plus_seconds(10), "e2").await;
    let edge = now.plus_seconds(Window::Month.length_seconds());
    assert_eq!(counts(&store, edge).await.month, 2);
    let past = edge.plus_seconds(5);
    assert_eq!(counts(&store, past).await.month, 1);
    // The id has expired with its event, so it is a new one.
    assert_eq!(record_at(&store, past, "e1").await.outcome, RecordOutcome::Counted);
    assert_eq!(counts(&store, past).await, WindowCounts { hour: 1, day: 1, week: 1, month: 2 });
}

async fn the_count_before_is_that_of_the_moment_before(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    let batch = (0..12).map(|i| occurrence(KEY, &format!("e{i}"), now)).collect();
    for (i, result) in store.record(now.into(), batch).await.into_iter().enumerate() {
        let recorded = result.unwrap();
        assert_eq!(recorded.previous_count_24h, i as u64);
        assert_eq!(recorded.stats.counts.day, i as u64 + 1);
    }
}

async fn a_late_event_changes_only_the_windows_that_hold_it(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    record_at(&store, now, "e1").await;
    let late = now.minus_seconds(2 * 86_400);
    let recorded =
        store.record(now.into(), vec![occurrence(KEY, "late", late)]).await.pop().unwrap().unwrap();
    assert_eq!(recorded.outcome, RecordOutcome::Counted);
    assert_eq!(recorded.stats.counts, WindowCounts { hour: 1, day: 1, week: 2, month: 2 });
    assert_eq!(recorded.previous_count_24h, 1);
    assert_eq!(recorded.stats.first_seen, Some(late));
    assert_eq!(recorded.stats.last_seen, Some(now));
}

async fn a_batch_answers_in_its_order(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    let keys: Vec<u64> = (0..300).map(|i| i % 7).collect();
    let batch =
        keys.iter().enumerate().map(|(i, key)| occurrence(*key, &format!("e{i}"), now)).collect();
    let mut expected = [0_u64; 7];
    for (key, result) in keys.iter().zip(store.record(now.into(), batch).await) {
        let slot = &mut expected[*key as usize];
        *slot += 1;
        assert_eq!(result.unwrap().stats.counts.month, *slot);
    }
    let asked = (0..9).map(key).collect();
    let found: Vec<_> =
        store.stats(now.into(), asked).await.into_iter().map(Result::unwrap).collect();
    let months: Vec<_> = found.iter().map(|stats| stats.as_ref().map(|t| t.counts.month)).collect();
    let wanted: Vec<_> = expected.iter().map(|n| Some(*n)).chain([None, None]).collect();
    assert_eq!(months, wanted);
}

async fn a_large_batch_is_answered_whole(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    let events: Vec<_> = (0..1_300).map(|n| (n % 700, n.to_string())).collect();
    let batch = events.iter().map(|(key, id)| occurrence(*key, id, now)).collect();
    for ((_, id), result) in events.iter().zip(store.record(now.into(), batch).await) {
        let expected = 1 + u64::from(id.parse::<u64>().unwrap() >= 700);
        assert_eq!(result.unwrap().stats.counts.hour, expected, "{id}");
    }
    let keys = events.iter().map(|(bits, _)| key(*bits)).collect();
    for ((bits, _), stats) in events.iter().zip(store.stats(now.into(), keys).await) {
        let expected = 1 + u64::from(*bits < 600);
        assert_eq!(stats.unwrap().unwrap().counts.hour, expected, "{bits}");
    }
}

async fn unknown_anomalies_are_told_from_quiet_ones(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    assert_eq!(store.stats(now.into(), vec![key(KEY)]).await, [Ok(None)]);
    assert_eq!(store.details(now.into(), key(KEY)).await, Ok(None));
    record_at(&store, now, "e1").await;
    let quiet = now.plus_seconds(Window::Month.length_seconds() + 1);
    let stats = store.stats(quiet.into(), vec![key(KEY)]).await.pop().unwrap().unwrap().unwrap();
    assert_eq!(stats.counts, WindowCounts::default());
    assert_eq!(stats.first_seen, None);
    assert_eq!(stats.last_seen, None);
}

async fn repairs_of_unknown_anomalies_are_refused(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    record_at(&store, now, "e1").await;
    let batch = vec![attempt(1, "r1", true, now), attempt(KEY, "r2", true, now)];
    let results = store.record_repairs(now.into(), batch).await;
    assert_eq!(results[0], Ok(None));
    assert_eq!(results[1].as_ref().unwrap().as_ref().unwrap().history.total, 1);
    assert_eq!(store.mark_fixed(now.into(), fix_mark(1, "m1", now)).await, Ok(None));
    assert_eq!(store.unmark_fixed(now.into(), fix_removal(1, "u1", now)).await, Ok(None));
    assert_eq!(store.details(now.into(), key(1)).await, Ok(None));
}

async fn what_had_an_effect_is_audited_newest_first(mut fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    assert_eq!(store.audit(now.into(), key(KEY)).await, Ok(None));
    record_at(&store, now, "e1").await;
    assert_eq!(store.audit(now.into(), key(KEY)).await, Ok(Some(Vec::new())));

    let repair = attempt(KEY, "r1", false, now);
    let mark = fix_mark(KEY, "m1", now.plus_seconds(1));
    let removal = fix_removal(KEY, "u1", now.plus_seconds(2));
    let nothing_to_remove = fix_removal(KEY, "u2", now.plus_seconds(3));
    store.record_repairs(now.into(), vec![repair.clone(), repair.clone()]).await;
    for _ in 0..2 {
        store.mark_fixed(now.into(), mark.clone()).await.unwrap();
    }
    store.unmark_fixed(now.into(), removal.clone()).await.unwrap();
    store.unmark_fixed(now.into(), nothing_to_remove).await.unwrap();

    let expected: Vec<AuditEntry> = vec![(&removal).into(), (&mark).into(), (&repair).into()];
    assert_eq!(expected[0].actor, actor());
    assert_eq!(store.audit(now.into(), key(KEY)).await, Ok(Some(expected.clone())));
    drop(store);
    fixture.reopen().await;
    assert_eq!(fixture.store().audit(now.into(), key(KEY)).await, Ok(Some(expected)));
    // The audit of another anomaly is another one.
    assert_eq!(fixture.store().audit(now.into(), key(KEY + 1)).await, Ok(None));
}

async fn the_audit_keeps_the_newest_hundred_entries(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    record_at(&store, now, "e1").await;
    let at = |number: i64| now.plus_seconds(number);
    let batch: Vec<_> =
        (0..130).map(|number| attempt(KEY, &number.to_string(), true, at(number))).collect();
    store.record_repairs(now.into(), batch[..60].to_vec()).await;
    store.record_repairs(now.into(), batch[60..].to_vec()).await;
    let entries = store.audit(now.into(), key(KEY)).await.unwrap().unwrap();
    let times: Vec<_> = entries.iter().map(|entry| entry.at).collect();
    assert_eq!(times, (30..130).rev().map(at).collect::<Vec<_>>());
    assert_eq!(entries.len(), AUDIT_ENTRIES);
}

async fn a_repair_counts_once_by_its_id(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    record_at(&store, now, "e1").await;
    let batch = vec![attempt(KEY, "r1", false, now), attempt(KEY, "r1", false, now)];
    let results = store.record_repairs(now.into(), batch).await;
    let [first, second] = [0, 1].map(|i| results[i].clone().unwrap().unwrap());
    assert!(first.counted);
    assert!(!second.counted);
    assert_eq!(second.history, first.history);
    let later = store.record_repairs(now.into(), vec![attempt(KEY, "r2", true, now)]).await;
    let history = later[0].clone().unwrap().unwrap().history;
    assert_eq!(history.total, 2);
    let successes: Vec<_> = history.recent.iter().map(|attempt| attempt.success).collect();
    assert_eq!(successes, [true, false], "newest first");
    assert_eq!(
        store.details(now.into(), key(KEY)).await.unwrap().unwrap().stats.repair_attempts,
        2
    );
}

async fn the_ids_of_the_newest_repairs_and_marks_are_known(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    record_at(&store, now, "e1").await;
    let limit = i64::from(OPERATION_IDS);
    let repair = async |n: i64, at: i64| {
        let attempt = attempt(KEY, &format!("r{n}"), true, now);
        let result =
            store.record_repairs(now.plus_seconds(at).into(), vec![attempt]).await.pop().unwrap();
        result.unwrap().unwrap().counted
    };
    for n in 0..2 * limit {
        assert!(repair(n, n).await, "{n}");
    }
    for n in limit..2 * limit {
        assert!(!repair(n, 2 * limit).await, "{n}");
    }
    assert!(repair(0, 2 * limit).await, "its id is one of the oldest");
    let marked_at = now.plus_seconds(2 * limit + 1);
    store.mark_fixed(marked_at.into(), fix_mark(KEY, "mark", marked_at)).await.unwrap();
    for n in 0..limit - 2 {
        assert!(repair(3 * limit + n, 3 * limit).await, "{n}");
    }
    store.unmark_fixed(marked_at.into(), fix_removal(KEY, "removal", marked_at)).await.unwrap();
    store.mark_fixed(marked_at.into(), fix_mark(KEY, "mark", marked_at)).await.unwrap();
    let details = store.details(marked_at.into(), key(KEY)).await.unwrap().unwrap();
    assert_eq!(details.fix, None, "a second copy of the mark changes nothing");
    assert_eq!(details.repairs.total, (3 * limit - 1) as u64);
}

async fn the_history_keeps_the_newest_hundred_repairs(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    record_at(&store, now, "e1").await;
    let batch = (0..130).map(|i| attempt(KEY, &format!("r{i}"), i >= 100, now)).collect();
    store.record_repairs(now.into(), batch).await;
    let repairs = store.details(now.into(), key(KEY)).await.unwrap().unwrap().repairs;
    assert_eq!(repairs.total, 130);
    assert_eq!(repairs.recent.len(), 100);
    let figures = repairs.statistics("restart_pod");
    assert_eq!(figures.total, 100);
    assert_eq!(figures.success, 30);
}

async fn a_mark_holds_until_it_is_taken_back(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    record_at(&store, now, "e1").await;
    let marked_at = now.plus_seconds(10);
    let mark = fix_mark(KEY, "m1", marked_at);
    let fix = store.mark_fixed(marked_at.into(), mark.clone()).await.unwrap().unwrap();
    assert_eq!(fix.marked_at, marked_at);
    let details = store.details(marked_at.into(), key(KEY)).await.unwrap().unwrap();
    assert_eq!(details.fix, Some(fix));
    assert_eq!(details.stats.fixed_at, Some(marked_at));
    let after = record_at(&store, marked_at.plus_seconds(1), "e2").await;
    assert_eq!(after.stats.fixed_at, Some(marked_at));

    let removal = |id| fix_removal(KEY, id, marked_at);
    assert_eq!(store.unmark_fixed(marked_at.into(), removal("u1")).await, Ok(Some(true)));
    assert_eq!(store.unmark_fixed(marked_at.into(), removal("u2")).await, Ok(Some(false)));
    // A second copy of the mark comes late, and changes nothing.
    store.mark_fixed(marked_at.into(), mark).await.unwrap();
    let details = store.details(marked_at.into(), key(KEY)).await.unwrap().unwrap();
    assert_eq!(details.fix, None);
    assert_eq!(details.stats.fixed_at, None);
}

async fn the_newest_event_before_is_that_of_the_moment_before_where_a_mark_holds(
    fixture: impl Fixture,
) {
    let (store, now) = (fixture.store(), start_of_tests());
    assert_eq!(record_at(&store, now, "e1").await.previous_last_seen, None, "no mark holds");
    assert_eq!(record_at(&store, now, "e2").await.previous_last_seen, None, "no mark holds");
    let at = |seconds| now.plus_seconds(seconds);
    store.mark_fixed(at(10).into(), fix_mark(KEY, "m1", at(10))).await.unwrap();
    let batch = [("late", 5), ("e3", 20), ("e4", 21), ("e3", 20)];
    let batch = batch.map(|(id, second)| occurrence(KEY, id, at(second))).to_vec();
    let results = store.record(at(30).into(), batch).await;
    let results: Vec<Recorded> = results.into_iter().map(Result::unwrap).collect();
    let previous: Vec<_> = results.iter().map(|recorded| recorded.previous_last_seen).collect();
    assert_eq!(previous, [Some(now), Some(at(5)), Some(at(20)), Some(at(21))]);
    let has_just_regressed = |recorded: Recorded| {
        KnownStats::from(recorded.stats).has_just_regressed(recorded.previous_last_seen)
    };
    let have_regressed: Vec<bool> = results.into_iter().map(has_just_regressed).collect();
    assert_eq!(have_regressed, [false, true, false, false]);
}

async fn the_signature_is_kept_as_first_posted(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    let posted = r#"{"pod":"é \u0000 \"x\"","alert_name":"A"}"#;
    let mut first = occurrence(KEY, "e1", now);
    first.signature_json = posted.into();
    store.record(now.into(), vec![first, occurrence(KEY, "e2", now)]).await;
    let details = store.details(now.into(), key(KEY)).await.unwrap().unwrap();
    assert_eq!(details.signature_json.as_deref(), Some(posted));
    assert_eq!(details.known_since, Some(now));
}

async fn everything_is_there_after_a_restart(mut fixture: impl Fixture) {
    let now = start_of_tests();
    let store = fixture.store();
    record_at(&store, now, "e1").await;
    record_at(&store, now, "e2").await;
    store.record_repairs(now.into(), vec![attempt(KEY, "r1", true, now)]).await;
    store.mark_fixed(now.into(), fix_mark(KEY, "m1", now)).await.unwrap();
    let before = store.details(now.into(), key(KEY)).await.unwrap();
    assert!(before.is_some());

    drop(store);
    fixture.reopen().await;
    let store = fixture.store();
    assert_eq!(store.details(now.into(), key(KEY)).await.unwrap(), before);
    assert_eq!(record_at(&store, now, "e2").await.outcome, RecordOutcome::Duplicate);
    let again = store.record_repairs(now.into(), vec![attempt(KEY, "r1", true, now)]).await;
    assert!(!again[0].clone().unwrap().unwrap().counted);
}

async fn a_forgotten_anomaly_is_unknown_and_begins_anew(mut fixture: impl Fixture) {
    let now = start_of_tests();
    let store = fixture.store();
    assert_eq!(store.forget(now.into(), key(KEY)).await, Ok(false));
    // So many events that some are rolled up.
    let batch = (0..2 * EXACT_EVENTS).map(|n| occurrence(KEY, &format!("e{n}"), now)).collect();
    store.record(now.into(), batch).await;
    store.record(now.into(), vec![occurrence(KEY + 1, "e1", now)]).await;
    store.record_repairs(now.into(), vec![attempt(KEY, "r1", true, now)]).await;
    store.mark_fixed(now.into(), fix_mark(KEY, "m1", now)).await.unwrap();
    assert_eq!(store.forget(now.into(), key(KEY)).await, Ok(true));
    assert_eq!(store.forget(now.into(), key(KEY)).await, Ok(false));
    drop(store);
    fixture.reopen().await;
    let store = fixture.store();
    assert_eq!(store.stats(now.into(), vec![key(KEY)]).await, [Ok(None)]);
    assert_eq!(store.details(now.into(), key(KEY)).await, Ok(None));
    assert_eq!(store.audit(now.into(), key(KEY)).await, Ok(None));
    let others = store.stats(now.into(), vec![key(KEY + 1)]).await;
    assert_eq!(others[0].as_ref().unwrap().as_ref().unwrap().counts.month, 1);

    let later = now.plus_seconds(60);
    let mut first = occurrence(KEY, "e1", later);
    first.signature_json = r#"{"alert_name":"B"}"#.into();
    let recorded = store.record(later.into(), vec![first]).await.pop().unwrap().unwrap();
    assert_eq!(recorded.outcome, RecordOutcome::Counted);
    drop(store);
    fixture.reopen().await;
    let store = fixture.store();
    let details = store.details(later.into(), key(KEY)).await.unwrap().unwrap();
    assert_eq!(details.stats.counts.month, 1);
    assert_eq!(details.known_since, Some(later));
    assert_eq!(details.signature_json.as_deref(), Some(r#"{"alert_name":"B"}"#));
    assert_eq!(details.fix, None);
    assert_eq!(details.repairs.total, 0);
    assert_eq!(store.audit(later.into(), key(KEY)).await, Ok(Some(Vec::new())));
    let again = store.record_repairs(later.into(), vec![attempt(KEY, "r1", true, later)]).await;
    assert!(again[0].clone().unwrap().unwrap().counted, "its id was forgotten too");
}
