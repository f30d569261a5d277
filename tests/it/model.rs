//! Every store against a naive model that keeps a plain list of events: both get the same random
//! operations, clock steps, duplicates and reorderings, and their answers are compared.

use anomaly_counter::{
    domain::{
        Action, AnomalyKey, AnomalyStats, COARSE_BUCKET_SECONDS, EventId, FINE_BUCKET_SECONDS,
        RecentAttempt, RepairAttempt, RepairHistory, Timestamp, WindowCounts,
    },
    store::RecordOutcome,
};
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
use tokio::runtime::Runtime;

use crate::support::{
    CheckpointingFixture, ClusterFixture, EXACT_EVENTS, EmbeddedFixture, Fixture, RedisFixture,
    actor, fix_mark, fix_removal, occurrence, start_of_tests,
};

const KEYS: u64 = 3;
const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;
/// Maximum length of a run: Redis expires whole keys after 35 days by its own clock.
const LONGEST_RUN: i64 = 34 * DAY;

#[derive(Clone, Debug)]
enum Step {
    /// Records a batch: key, id, seconds before now (up to a minute after it).
    Record(Vec<(u64, u8, i64)>),
    Repair(Vec<(u64, u8, bool)>),
    Mark(u64),
    Unmark(u64),
    Forget(u64),
    Look(u64),
    /// Moves the clock forward, or back.
    Wait(i64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let age = prop_oneof![
        6 => Just(0),
        2 => -60..2 * HOUR,
        2 => 0..3 * DAY,
        // Around the ends of the windows, to the second.
        2 => prop::sample::select(vec![HOUR, DAY, 7 * DAY, 30 * DAY])
            .prop_flat_map(|edge| edge - 1..=edge + 1),
        1 => 0..40 * DAY,
    ];
    let wait = prop_oneof![4 => 0..HOUR, 2 => 0..DAY, 2 => 0..12 * DAY, 1 => -2 * HOUR..0];
    prop_oneof![
        8 => vec((0..KEYS, 0..40_u8, age), 1..6).prop_map(Step::Record),
        2 => vec((0..KEYS, 0..12_u8, any::<bool>()), 1..4).prop_map(Step::Repair),
        1 => (0..KEYS).prop_map(Step::Mark),
        1 => (0..KEYS).prop_map(Step::Unmark),
        1 => (0..KEYS).prop_map(Step::Forget),
        4 => (0..KEYS).prop_map(Step::Look),
        4 => wait.prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

/// The model of one anomaly.
#[derive(Clone, Debug, Default)]
struct Naive {
    known: bool,
    events: Vec<(u8, Timestamp)>,
    /// All events, including the expired ones.
    all_events: Vec<(u8, Timestamp)>,
    repairs: Vec<(u8, bool, Timestamp)>,
    fixed_at: Option<Timestamp>,
}

fn is_inside(now: Timestamp, at: Timestamp) -> bool {
    at >= now.minus_seconds(30 * DAY)
}

fn bucket_start(at: Timestamp, seconds: i64) -> Timestamp {
    let width = seconds * 1_000_000;
    Timestamp::from_micros(at.as_micros().div_euclid(width) * width)
}

impl Naive {
    /// Returns the outcomes that a store may return for an event. If some events are rolled up,
    /// some ids are forgotten early, and others are known for longer than their events count.
    fn outcomes(
        &mut self,
        now: Timestamp,
        (id, at): (u8, Timestamp),
        exact_events: u32,
    ) -> Vec<RecordOutcome> {
        if !is_inside(now, at) {
            self.known = true;
            return vec![RecordOutcome::TooOld];
        }
        self.events.retain(|(_, at)| is_inside(now, *at));
        let holds = |events: &[(u8, Timestamp)]| {
            events.iter().any(|(known, at)| *known == id && is_inside(now, *at))
        };
        let beyond = |limit: u32| self.all_events.len() > limit as usize;
        match holds(&self.events) {
            true if beyond(exact_events + exact_events / 2) => {
                vec![RecordOutcome::Duplicate, RecordOutcome::Counted]
            }
            true => vec![RecordOutcome::Duplicate],
            false if beyond(exact_events) && holds(&self.all_events) => {
                vec![RecordOutcome::Duplicate, RecordOutcome::Counted]
            }
            false => vec![RecordOutcome::Counted],
        }
    }

    fn count(&mut self, event: (u8, Timestamp)) {
        self.events.push(event);
        self.all_events.push(event);
        self.known = true;
    }

    fn repair(&mut self, now: Timestamp, id: u8, success: bool) -> bool {
        let is_new = self.repairs.iter().all(|(known, ..)| *known != id);
        if is_new {
            self.repairs.push((id, success, now));
        }
        is_new
    }

    fn stats(&self, now: Timestamp) -> AnomalyStats {
        let since = |seconds: i64| {
            let inside = move |at: &Timestamp| *at >= now.minus_seconds(seconds);
            self.events.iter().map(|(_, at)| *at).filter(inside)
        };
        let count = |seconds| since(seconds).count() as u64;
        AnomalyStats {
            counts: WindowCounts {
                hour: count(HOUR),
                day: count(DAY),
                week: count(7 * DAY),
                month: count(30 * DAY),
            },
            extra: Vec::new(),
            is_approximate: false,
            first_seen: since(30 * DAY).min(),
            last_seen: since(30 * DAY).max(),
            repair_attempts: self.repairs.len() as u64,
            fixed_at: self.fixed_at,
        }
    }

    /// Returns the store's counts, if they are right: equal to the model's or, if they are marked
    /// as approximate, too high by the events of one bucket at most.
    fn agreed(&self, now: Timestamp, found: &AnomalyStats, exact_events: u32) -> AnomalyStats {
        let exact = self.stats(now);
        if !found.is_approximate {
            return exact;
        }
        assert!(self.all_events.len() > exact_events as usize, "nothing has been folded");
        let is_right = |count: u64, least: u64, window: i64, bucket_seconds: i64| {
            let from = bucket_start(now.minus_seconds(window), bucket_seconds);
            let most = self.all_events.iter().filter(|(_, at)| *at >= from).count() as u64;
            assert!((least..=most).contains(&count), "{least} <= {count} <= {most}");
        };
        let (counts, least) = (found.counts, exact.counts);
        is_right(counts.hour, least.hour, HOUR, FINE_BUCKET_SECONDS);
        is_right(counts.day, least.day, DAY, COARSE_BUCKET_SECONDS);
        is_right(counts.week, least.week, 7 * DAY, COARSE_BUCKET_SECONDS);
        is_right(counts.month, least.month, 30 * DAY, COARSE_BUCKET_SECONDS);
        let earliest = exact.first_seen.map(|first| bucket_start(first, COARSE_BUCKET_SECONDS));
        let first = found.first_seen;
        assert!(earliest <= first, "{earliest:?} {found:?}");
        assert!(first <= exact.first_seen, "{found:?} {exact:?}");
        AnomalyStats { counts, first_seen: found.first_seen, is_approximate: true, ..exact }
    }

    fn history(&self) -> RepairHistory {
        let attempts = self.repairs.iter().rev().map(|(_, success, at)| RecentAttempt {
            action: "restart_pod".to_owned(),
            success: *success,
            at: Some(*at),
        });
        RepairHistory { total: self.repairs.len() as u64, recent: attempts.take(100).collect() }
    }
}

async fn compare(fixture: &mut impl Fixture, exact_events: u32, steps: &[Step]) {
    fixture.clear().await;
    let mut now = start_of_tests();
    let mut model = vec![Naive::default(); KEYS as usize];
    for (number, step) in steps.iter().enumerate() {
        let fresh_id = format!("step-{number}");
        let store = fixture.store();
        match step {
            Step::Record(batch) => {
                let events: Vec<_> = batch
                    .iter()
                    .map(|(key, id, age)| (*key, *id, now.minus_seconds(*age)))
                    .collect();
                let occurrences =
                    events.iter().map(|(key, id, at)| occurrence(*key, &id.to_string(), *at));
                let results = store.record(now.into(), occurrences.collect()).await;
                assert_eq!(results.len(), events.len());
                for ((key, id, at), result) in events.into_iter().zip(results) {
                    let naive = &mut model[key as usize];
                    let recorded = result.unwrap();
                    let before = naive.stats(now).counts.day;
                    let newest = naive.fixed_at.and_then(|_| naive.stats(now).last_seen);
                    assert_eq!(recorded.previous_last_seen, newest, "{step:?}");
                    let outcomes = naive.outcomes(now, (id, at), exact_events);
                    assert!(outcomes.contains(&recorded.outcome), "{step:?} {outcomes:?}");
                    if recorded.outcome == RecordOutcome::Counted {
                        naive.count((id, at));
                    }
                    let agreed = naive.agreed(now, &recorded.stats, exact_events);
                    assert_eq!(recorded.stats, agreed, "{step:?}");
                    let previous = recorded.previous_count_24h;
                    if recorded.stats.is_approximate {
                        let most = recorded.stats.counts.day;
                        assert!((before..=most).contains(&previous), "{step:?} {previous}");
                    } else {
                        assert_eq!(previous, before, "{step:?}");
                    }
                }
            }
            Step::Repair(batch) => {
                let attempts = batch.iter().map(|(key, id, success)| RepairAttempt {
                    key: AnomalyKey::from_bits(*key),
                    id: EventId::parse(&id.to_string()).unwrap(),
                    action: Action::parse("restart_pod").unwrap(),
                    success: *success,
                    at: now,
                    actor: actor(),
                });
                let results = store.record_repairs(now.into(), attempts.collect()).await;
                for ((key, id, success), result) in batch.iter().zip(results) {
                    let naive = &mut model[*key as usize];
                    let expected = naive.known.then(|| {
                        let counted = naive.repair(now, *id, *success);
                        (counted, naive.history())
                    });
                    let found = result.unwrap().map(|r| (r.counted, r.history));
                    assert_eq!(found, expected, "{step:?}");
                }
            }
            Step::Mark(key) => {
                let naive = &mut model[*key as usize];
                let mark = fix_mark(*key, &fresh_id, now);
                let fix = store.mark_fixed(now.into(), mark).await.unwrap();
                naive.fixed_at = naive.known.then_some(now);
                assert_eq!(fix.map(|fix| fix.marked_at), naive.fixed_at, "{step:?}");
            }
            Step::Unmark(key) => {
                let naive = &mut model[*key as usize];
                let removal = fix_removal(*key, &fresh_id, now);
                let removed = store.unmark_fixed(now.into(), removal).await.unwrap();
                let expected = naive.known.then_some(naive.fixed_at.is_some());
                naive.fixed_at = None;
                assert_eq!(removed, expected, "{step:?}");
            }
            Step::Forget(key) => {
                let naive = &mut model[*key as usize];
                let was_known = std::mem::take(naive).known;
                let forgotten = store.forget(now.into(), AnomalyKey::from_bits(*key)).await;
                assert_eq!(forgotten, Ok(was_known), "{step:?}");
            }
            Step::Look(key) => {
                let naive = &model[*key as usize];
                let key = AnomalyKey::from_bits(*key);
                let found = store.stats(now.into(), vec![key]).await.pop().unwrap().unwrap();
                let agreed = |found: &AnomalyStats| naive.agreed(now, found, exact_events);
                let expected = naive.known.then(|| found.as_ref().map(agreed)).flatten();
                assert_eq!(naive.known, expected.is_some(), "{step:?}");
                assert_eq!(found, expected, "{step:?}");
                let details = store.details(now.into(), key).await.unwrap();
                assert_eq!(details.as_ref().map(|d| d.stats.clone()), expected, "{step:?}");
                let history = naive.known.then(|| naive.history());
                assert_eq!(details.map(|d| d.repairs), history, "{step:?}");
            }
            // Events that have expired with their bucket could come back with the clock.
            Step::Wait(..0) if exact_events == FEW => {}
            Step::Wait(seconds) => {
                let latest = start_of_tests().plus_seconds(LONGEST_RUN);
                now = now.plus_seconds(*seconds).clamp(start_of_tests(), latest);
            }
            Step::Restart => {
                drop(store);
                fixture.reopen().await;
            }
        }
    }
}

fn check<F: Fixture>(cases: u32, exact_events: u32) {
    let runtime = Runtime::new().unwrap();
    let fixture = std::cell::RefCell::new(runtime.block_on(F::keeping(exact_events)));
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&vec(step(), 1..60), |steps| {
            runtime.block_on(compare(&mut *fixture.borrow_mut(), exact_events, &steps));
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn an_event_that_a_duplicate_has_removed_stays_forgotten_after_a_restart() {
    let month = 30 * DAY;
    let steps = [
        // This lets the clock go back later.
        Step::Wait(HOUR),
        Step::Record(vec![(2, 19, 0), (2, 0, month - 1)]),
        Step::Wait(2),
        Step::Record(vec![(2, 19, 0)]),
        Step::Restart,
        Step::Wait(-2),
        Step::Record(vec![(2, 0, 0)]),
    ];
    compare(&mut EmbeddedFixture::new().await, EXACT_EVENTS, &steps).await;
}

/// Number of exact events: so few that most anomalies of a run are partly rolled up.
const FEW: u32 = 4;

/// Checks that expired events do not count again when a late event makes the last expired bucket
/// longer.
async fn a_late_event_in_the_last_expired_bucket_brings_no_other_back(fixture: &mut impl Fixture) {
    let month = 30 * DAY;
    let steps = [
        Step::Record(vec![(2, 9, 0), (2, 3, 0), (2, 10, 0), (2, 11, 0)]),
        Step::Record(vec![(2, 4, month - 1)]),
        Step::Record(vec![(2, 12, 0)]),
        Step::Wait(2_317),
        Step::Record(vec![(2, 4, month - 1)]),
        Step::Wait(50),
        Step::Record(vec![(2, 2, month)]),
        Step::Look(2),
    ];
    compare(fixture, FEW, &steps).await;
}

#[tokio::test]
async fn a_late_event_in_the_last_expired_bucket_brings_no_other_back_on_any_store() {
    let mut embedded = EmbeddedFixture::keeping(FEW).await;
    a_late_event_in_the_last_expired_bucket_brings_no_other_back(&mut embedded).await;
    let mut redis = RedisFixture::keeping(FEW).await;
    a_late_event_in_the_last_expired_bucket_brings_no_other_back(&mut redis).await;
}

#[test]
fn the_embedded_store_agrees_with_the_model() {
    check::<EmbeddedFixture>(200, EXACT_EVENTS);
    check::<EmbeddedFixture>(200, FEW);
}

#[test]
fn the_embedded_store_agrees_with_the_model_when_restarted_within_checkpoints() {
    check::<CheckpointingFixture>(100, EXACT_EVENTS);
    check::<CheckpointingFixture>(100, FEW);
}

#[test]
fn the_redis_store_agrees_with_the_model() {
    check::<RedisFixture>(200, EXACT_EVENTS);
    check::<RedisFixture>(200, FEW);
}

#[test]
fn the_redis_cluster_store_agrees_with_the_model() {
    check::<ClusterFixture>(60, EXACT_EVENTS);
    check::<ClusterFixture>(60, FEW);
}
