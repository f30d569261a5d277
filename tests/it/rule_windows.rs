//! The counts and the newest events that rules ask for: every store returns the same as a naive
//! count of all events.

use std::sync::Arc;

use anomaly_counter::{
    domain::{
        AnomalyKey, COARSE_BUCKET_SECONDS, EscalationLevel, ExtraCount, FINE_BUCKET_SECONDS,
        Occurrence, RuleRef, RuleSet, RuleSource, Thresholds, Timestamp, WindowCounts,
    },
    store::{Judged, RecordOutcome},
};
use serde_json::json;

use crate::support::{EXACT_EVENTS, Fixture, occurrence, over_every_store, start_of_tests};

const KEY: u64 = 0xb119_b2ed_aa9f_b08c;
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// The windows of [`rule`] beside the usual four, each with the smallest count that it asks for.
const WINDOWS: [(i64, u64); 4] = [(10 * 60, 2), (6 * HOUR, 3), (3 * DAY, 4), (20 * DAY, 5)];

over_every_store!(
    EXACT_EVENTS;
    windows_of_a_rule_are_counted_as_the_four_are,
    elements_of_one_batch_have_the_windows_of_their_own_rules,
    the_newest_events_come_with_a_step_and_with_nothing_else,
    a_store_without_rules_counts_nothing_more,
    the_object_that_was_posted_first_can_be_read_alone,
);

mod rolled_up {
    use super::*;

    over_every_store!(4; windows_of_a_rule_err_by_one_bucket_at_most);
}

fn rule_of(levels: &serde_json::Value) -> RuleRef {
    let rules = json!([{"name": "r", "levels": levels}]).to_string();
    let sources: Vec<RuleSource> = serde_json::from_str(&rules).unwrap();
    let thresholds = Thresholds::new(3, 5, 10).unwrap();
    let set = RuleSet::parse(&sources, thresholds, DAY as u32, None).unwrap();
    RuleRef::new(Arc::new(set), 0)
}

fn rule() -> RuleRef {
    rule_of(&json!({"REPEAT": ["2 in 10m", "3 in 6h"], "ESCALATE": ["4 in 72h", "5 in 20d"]}))
}

fn judged(key: u64, rule: &RuleRef) -> Judged {
    Judged { key: AnomalyKey::from_bits(key), rule: Some(rule.clone()) }
}

fn with_rule(rule: &RuleRef, key: u64, id: &str, at: Timestamp) -> Occurrence {
    Occurrence { rule: Some(rule.clone()), ..occurrence(key, id, at) }
}

/// Numbers in no order, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: i64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((self.0 >> 33) % limit.unsigned_abs()) as i64
    }

    /// Returns an age that is often near the edge of a window.
    fn age(&mut self) -> i64 {
        let edge =
            [0, 600, HOUR, 6 * HOUR, DAY, 3 * DAY, 7 * DAY, 20 * DAY][self.below(8) as usize];
        match self.below(3) {
            0 => edge,
            1 => edge + self.below(3) - 1,
            _ => self.below(29 * DAY),
        }
        .max(0)
    }
}

fn inside(events: &[Timestamp], now: Timestamp, seconds: i64) -> u64 {
    events.iter().filter(|at| **at >= now.minus_seconds(seconds)).count() as u64
}

/// Returns the expected counts beside the four windows.
fn expected(events: &[Timestamp], now: Timestamp) -> Vec<ExtraCount> {
    let counted = WINDOWS.into_iter().filter_map(|(seconds, least)| {
        let four = [HOUR, DAY, 7 * DAY, 30 * DAY];
        let longer = four.into_iter().find(|length| *length > seconds).unwrap();
        let shorter = four.into_iter().rfind(|length| *length < seconds);
        let upper = inside(events, now, longer);
        let lower = shorter.map_or(0, |length| inside(events, now, length));
        let count = inside(events, now, seconds);
        let seconds = seconds as u32;
        let has_all = count == inside(events, now, 30 * DAY);
        let is_counted = lower < upper && (upper >= least || has_all);
        is_counted.then_some(ExtraCount { seconds, count, is_approximate: false })
    });
    counted.collect()
}

/// Returns the level of [`rule`] by a naive count.
fn naive_level(events: &[Timestamp], now: Timestamp) -> Option<EscalationLevel> {
    let holds = |index: usize| {
        let (seconds, least) = WINDOWS[index];
        inside(events, now, seconds) >= least
    };
    if holds(2) || holds(3) {
        return Some(EscalationLevel::Escalate);
    }
    (holds(0) || holds(1)).then_some(EscalationLevel::Repeat)
}

async fn windows_of_a_rule_are_counted_as_the_four_are(fixture: impl Fixture) {
    let (store, rule) = (fixture.store(), rule());
    let mut numbers = Numbers(7);
    for round in 0..12 {
        let (key, mut events) = (KEY + round, Vec::new());
        let mut now = start_of_tests();
        for step in 0..14 {
            now = now.plus_seconds(numbers.below(2 * HOUR));
            let ages: Vec<i64> = (0..=numbers.below(2)).map(|_| numbers.age()).collect();
            let batch = ages.iter().enumerate().map(|(n, age)| {
                with_rule(&rule, key, &format!("{step}-{n}"), now.minus_seconds(*age))
            });
            let results = store.record(now.into(), batch.collect()).await;
            for (age, result) in ages.iter().zip(results) {
                let before = naive_level(&events, now);
                events.push(now.minus_seconds(*age));
                let recorded = result.unwrap();
                assert_eq!(recorded.outcome, RecordOutcome::Counted);
                assert_eq!(recorded.now, now);
                assert_eq!(recorded.stats.extra, expected(&events, now), "{events:?}");
                let level = rule.judge(recorded.stats.as_counts()).level;
                assert_eq!(level, naive_level(&events, now), "{events:?}");
                assert!(level == before || !recorded.newest.is_empty(), "a step: {events:?}");
            }
            let read = store.stats_by_rule(now.into(), vec![judged(key, &rule)]).await;
            let read = read.into_iter().next().unwrap().unwrap().unwrap();
            assert_eq!(read.extra, expected(&events, now));
            let details = store.details_by_rule(now.into(), judged(key, &rule)).await;
            assert_eq!(details.unwrap().unwrap().stats, read);
        }
    }
}

async fn elements_of_one_batch_have_the_windows_of_their_own_rules(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    let days = rule_of(&json!({"REPEAT": ["2 in 2d"]}));
    let rules = [Some(rule()), None, Some(days), Some(rule_of(&json!("none")))];
    let batch = |id: &str, age: i64| {
        let at = now.minus_seconds(age);
        let of_rule = |(key, rule): (usize, &Option<RuleRef>)| Occurrence {
            rule: rule.clone(),
            ..occurrence(key as u64, id, at)
        };
        rules.iter().enumerate().map(of_rule).collect::<Vec<_>>()
    };
    for (id, age) in [("a", 2 * HOUR), ("b", 36 * HOUR), ("c", 40 * HOUR)] {
        for result in store.record(now.into(), batch(id, age)).await {
            assert_eq!(result.unwrap().outcome, RecordOutcome::Counted);
        }
    }
    let results = store.record(now.into(), batch("d", 0)).await;
    let extra: Vec<Vec<(u32, u64)>> = results
        .into_iter()
        .map(|result| {
            let stats = result.unwrap().stats;
            assert_eq!(stats.counts, WindowCounts { hour: 1, day: 2, week: 4, month: 4 });
            stats.extra.iter().map(|extra| (extra.seconds, extra.count)).collect()
        })
        .collect();
    // Within 6 hours there can be at most two, which is too few for that rule.
    let of_first = vec![(3 * DAY as u32, 4)];
    assert_eq!(extra, [of_first, Vec::new(), vec![(2 * DAY as u32, 4)], Vec::new()]);
}

async fn the_newest_events_come_with_a_step_and_with_nothing_else(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    let rule = rule_of(&json!({"REPEAT": ["3 in 24h"], "ESCALATE": ["5 in 48h"]}));
    let at = |n: i64| now.minus_seconds(60 * n);
    let mut occurrences: Vec<_> =
        (0..8).map(|n| with_rule(&rule, KEY, &n.to_string(), at(8 - n))).collect();
    occurrences.push(with_rule(&rule, KEY, "4", at(0)));
    let results = store.record(now.into(), occurrences).await;
    let newest: Vec<_> = results.into_iter().map(|result| result.unwrap().newest).collect();
    let sorted = |mut times: Vec<Timestamp>| {
        times.sort_unstable();
        times
    };
    let mut steps = Vec::new();
    for (index, times) in newest.into_iter().enumerate() {
        if !times.is_empty() {
            // All of them are of one moment: none that comes later in the batch is among them.
            assert_eq!(sorted(times), (0..=index as i64).map(|n| at(8 - n)).collect::<Vec<_>>());
            steps.push(index + 1);
        }
    }
    assert_eq!(steps, [3, 5]);
}

async fn a_store_without_rules_counts_nothing_more(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    for n in 0..12 {
        let at = now.minus_seconds(n * 2 * HOUR);
        let recorded = store.record(now.into(), vec![occurrence(KEY, &n.to_string(), at)]).await;
        let recorded = recorded.into_iter().next().unwrap().unwrap();
        assert!(recorded.newest.is_empty() && recorded.stats.extra.is_empty());
    }
}

async fn the_object_that_was_posted_first_can_be_read_alone(mut fixture: impl Fixture) {
    let now = start_of_tests();
    let key = AnomalyKey::from_bits(KEY);
    assert_eq!(fixture.store().signature_json(key).await, Ok(None));
    fixture.store().record(now.into(), vec![occurrence(KEY, "a", now)]).await;
    let posted = occurrence(KEY, "a", now).signature_json.to_stored().to_string();
    assert_eq!(fixture.store().signature_json(key).await, Ok(Some(posted.clone())));
    fixture.reopen().await;
    assert_eq!(fixture.store().signature_json(key).await, Ok(Some(posted)));
}

async fn windows_of_a_rule_err_by_one_bucket_at_most(fixture: impl Fixture) {
    let (store, rule, now) = (fixture.store(), rule(), start_of_tests());
    let mut numbers = Numbers(3);
    let mut events: Vec<Timestamp> = (0..120).map(|_| now.minus_seconds(numbers.age())).collect();
    for (n, at) in events.iter().enumerate() {
        let batch = vec![with_rule(&rule, KEY, &n.to_string(), *at)];
        store.record(now.into(), batch).await.pop().unwrap().unwrap();
    }
    events.sort_unstable();
    let read = store.stats_by_rule(now.into(), vec![judged(KEY, &rule)]).await;
    let stats = read.into_iter().next().unwrap().unwrap().unwrap();
    assert!(stats.is_approximate);
    assert_eq!(stats.extra.len(), WINDOWS.len(), "{stats:?}");
    for extra in stats.extra {
        let start = now.minus_seconds(extra.seconds.into());
        let width = match i64::from(extra.seconds) < DAY {
            true => FINE_BUCKET_SECONDS,
            false => COARSE_BUCKET_SECONDS,
        };
        let bucket = start.as_micros().div_euclid(width * 1_000_000) * width * 1_000_000;
        let since = |from: Timestamp| events.iter().filter(|at| **at >= from).count() as u64;
        let (least, most) = (since(start), since(Timestamp::from_micros(bucket)));
        assert!((least..=most).contains(&extra.count), "{extra:?}: {least} to {most}");
        assert!(extra.is_approximate || extra.count == least, "{extra:?}: {least}");
    }
}
