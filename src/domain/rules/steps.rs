//! Decides whether a step to a level is new, or the level was already held a while ago. This
//! follows from the times of the newest events, so it survives restarts and is the same on every
//! instance.

use super::{condition::Condition, counts::Counts, rule::Rule};
use crate::domain::{EscalationLevel, RETENTION, Timestamp};

/// Maximum number of the newest events that are examined.
pub const MAX_NEWEST: usize = 64;
/// Maximum count of a term for which this can be decided: the newest [`MAX_NEWEST`] events decide.
pub const MAX_STEP_COUNT: u64 = 31;

impl Rule {
    /// Returns the number of newest events, including the occurrence itself, that decide whether a
    /// step is new; 0 if every step is new.
    pub fn newest_wanted(&self, rearm_seconds: u32) -> usize {
        if rearm_seconds == 0 {
            return 0;
        }
        let wanted = self.levels().terms().map(|term| match term.count {
            count if count > MAX_STEP_COUNT => 0,
            _ if rearm_seconds > term.window.seconds() => MAX_NEWEST,
            // A step implies that this many events are in the window now.
            count => 2 * count as usize + 1,
        });
        wanted.max().unwrap_or(0).min(MAX_NEWEST)
    }

    /// Returns the counts at which an occurrence may be a step, each with the length of its window
    /// in seconds.
    pub fn step_counts(&self) -> impl Iterator<Item = (u32, u64)> {
        self.levels().terms().map(|term| (term.window.seconds(), term.count))
    }

    /// Returns true if an occurrence that leads to these counts may be a step. Only then must the
    /// newest events be examined.
    pub fn may_step(&self, counts: Counts<'_>) -> bool {
        self.levels().terms().any(|term| term.known(counts).count == term.count)
    }

    /// Returns true if the level or a higher one was held at any time in the `rearm_seconds` before
    /// `now`, as far as `newest` shows: the times of the newest events, without the occurrence that
    /// causes the step. If it can't be decided, the level counts as not held: reporting a step
    /// twice is better than never.
    pub(super) fn was_held(
        &self,
        level: EscalationLevel,
        rearm_seconds: u32,
        now: Timestamp,
        newest: &[Timestamp],
    ) -> bool {
        // An event ahead of the clock was counted when it arrived.
        let mut times: Vec<Timestamp> = newest.iter().map(|at| (*at).min(now)).collect();
        times.sort_unstable();
        let start = now.minus_seconds(rearm_seconds.into());
        // A level begins to be held at an event. A level that is held at the start began before it.
        let moments = times.iter().copied().filter(|at| *at > start).chain([start]);
        let conditions = self.levels().conditions_from(level).filter(|c| is_decidable(c));
        let conditions: Vec<&Condition> = conditions.collect();
        moments
            .into_iter()
            .any(|at| conditions.iter().any(|condition| held_at(condition, at, &times)))
    }

    /// Returns the conditions for which it can't be decided whether they were held, each with the
    /// reason.
    pub fn undecidable_steps(&self, rearm_seconds: u32) -> Vec<(&Condition, String)> {
        if rearm_seconds == 0 {
            return Vec::new();
        }
        let reason = |condition: &Condition| {
            if !is_decidable(condition) {
                return Some(format!("its count is above {MAX_STEP_COUNT}"));
            }
            let reaches = |seconds: u32| i64::from(seconds) + i64::from(rearm_seconds);
            let mut windows = condition.terms().iter().map(|term| term.window.seconds());
            windows
                .any(|seconds| reaches(seconds) > RETENTION.length_seconds())
                .then(|| "its window and rules.rearm together exceed 30 days".to_owned())
        };
        let conditions = self.levels().conditions_from(EscalationLevel::Repeat);
        conditions.filter_map(|condition| Some((condition, reason(condition)?))).collect()
    }
}

fn is_decidable(condition: &Condition) -> bool {
    condition.terms().iter().all(|term| term.count <= MAX_STEP_COUNT)
}

/// Returns true if a condition held at `at`. `times` are in order.
fn held_at(condition: &Condition, at: Timestamp, times: &[Timestamp]) -> bool {
    let until = times.partition_point(|time| *time <= at);
    condition.terms().iter().all(|term| {
        let start = at.minus_seconds(term.window.seconds().into());
        let from = times.partition_point(|time| *time < start);
        until.saturating_sub(from) as u64 >= term.count
    })
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};
    use serde_json::json;

    use super::*;
    use crate::domain::{
        WindowCounts,
        rules::{Levels, RuleSource},
    };

    const MINUTE: i64 = 60;
    const HOUR: u32 = 3_600;

    fn minute(number: i64) -> Timestamp {
        Timestamp::from_micros(1_774_799_738_123_456).plus_seconds(number * MINUTE)
    }

    fn rule(levels: &serde_json::Value) -> Rule {
        let source = json!({"name": "r", "levels": levels}).to_string();
        let source: RuleSource = serde_json::from_str(&source).unwrap();
        Rule::parse(1, &source, &Levels::default()).unwrap()
    }

    fn default_rule() -> Rule {
        rule(&json!({
            "REPEAT": ["3 in 24h"], "ESCALATE": ["5 in 24h"], "PERMANENT_FIX": ["10 in 24h"],
        }))
    }

    #[test]
    fn a_steady_drip_steps_once() {
        let rule = default_rule();
        // Each occurrence is the fifth within 24 hours, as the oldest has just left.
        let drip = |count: i64| (1..=count).map(|n| minute(-n * 5 * 60)).collect::<Vec<_>>();
        let held = |times: &[Timestamp]| {
            rule.was_held(EscalationLevel::Escalate, 24 * HOUR, minute(0), times)
        };
        assert!(!held(&drip(4)), "the fifth ever");
        assert!(held(&drip(5)), "five were within 24 hours five hours ago");
        assert!(held(&drip(20)));
        // After a day without any occurrence, the step is new again.
        let before = |count: i64| drip(count).into_iter().map(|at| at.minus_seconds(2 * 86_400));
        let new: Vec<_> = before(20).chain((1..=4).map(|n| minute(-n))).collect();
        assert!(!held(&new));
    }

    #[test]
    fn a_higher_level_that_was_held_holds_the_lower_ones_too() {
        let rule = rule(&json!({"REPEAT": ["2 in 1h"], "ESCALATE": ["4 in 24h and 3 in 2h"]}));
        let times: Vec<_> = [-400, -390, -300, -290].map(minute).into();
        let held = |level, rearm| rule.was_held(level, rearm, minute(0), &times);
        assert!(held(EscalationLevel::Escalate, 5 * HOUR));
        assert!(held(EscalationLevel::Repeat, 4 * HOUR), "until minute -240");
        assert!(!held(EscalationLevel::Repeat, 3 * HOUR));
        assert!(!held(EscalationLevel::PermanentFix, 24 * HOUR));
    }

    #[test]
    fn as_many_of_the_newest_events_are_looked_at_as_decide() {
        let wanted =
            |conditions: &[&str], rearm| rule(&json!({"REPEAT": conditions})).newest_wanted(rearm);
        assert_eq!(default_rule().newest_wanted(24 * HOUR), 21);
        assert_eq!(default_rule().newest_wanted(0), 0);
        assert_eq!(default_rule().newest_wanted(25 * HOUR), MAX_NEWEST);
        assert_eq!(wanted(&["31 in 7d"], 24 * HOUR), 63);
        assert_eq!(wanted(&["32 in 7d"], 24 * HOUR), 0);
        assert_eq!(wanted(&["2 in 1h", "4 in 7d"], 24 * HOUR), MAX_NEWEST);
    }

    #[test]
    fn conditions_whose_steps_can_not_be_decided_are_named() {
        let rule = rule(&json!({
            "REPEAT": ["3 in 24h", "5 in 30d"], "PERMANENT_FIX": ["32 in 7d and 2 in 1h"],
        }));
        let named = |rearm| {
            let undecided = rule.undecidable_steps(rearm);
            undecided.into_iter().map(|(condition, _)| condition.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(named(24 * HOUR), ["5 in 30d", "32 in 7d and 2 in 1h"]);
        assert_eq!(named(0), Vec::<String>::new());
    }

    /// A condition with terms of at most 5 occurrences in at most 90 minutes.
    fn condition() -> impl Strategy<Value = String> {
        let term = (1..=5_u64, 1..=90_u32).prop_map(|(count, span)| format!("{count} in {span}m"));
        vec(term, 1..=3).prop_map(|terms| terms.join(" and "))
    }

    /// Returns true if `level` or a higher one was held, by checking each minute. All events are at
    /// full minutes, so levels begin and end there.
    fn held_in_any_minute(
        rule: &Rule,
        level: EscalationLevel,
        rearm_minutes: i64,
        events: &[i64],
    ) -> bool {
        (-rearm_minutes..=0).any(|now| {
            let extra: Vec<_> = rule
                .extra_windows()
                .iter()
                .map(|window| {
                    let from = now - i64::from(window.seconds) / MINUTE;
                    let count = events.iter().filter(|at| (from..=now).contains(*at)).count();
                    crate::domain::ExtraCount {
                        seconds: window.seconds,
                        count: count as u64,
                        is_approximate: false,
                    }
                })
                .collect();
            let hour = events.iter().filter(|at| (now - 60..=now).contains(*at)).count() as u64;
            let windows = WindowCounts { hour, day: hour, week: hour, month: hour };
            rule.level(Counts { windows, extra: &extra, is_approximate: false }) >= Some(level)
        })
    }

    proptest! {
        /// With all events, the result is correct. With only the newest events, a level that was
        /// not held is never reported as held.
        #[test]
        fn a_level_was_held_if_it_was_in_any_minute(
            repeat in condition(),
            escalate in condition(),
            level in select(vec![EscalationLevel::Repeat, EscalationLevel::Escalate]),
            rearm in 1..120_i64,
            mut events in vec(-250..=0_i64, 0..40),
        ) {
            let levels = json!({"REPEAT": [repeat], "ESCALATE": [escalate]});
            let source = json!({"name": "r", "levels": levels});
            let source: RuleSource = serde_json::from_str(&source.to_string()).unwrap();
            let Ok(rule) = Rule::parse(1, &source, &Levels::default()) else { return Ok(()) };
            let was_held = |events: &[i64]| {
                let times: Vec<Timestamp> = events.iter().copied().map(minute).collect();
                rule.was_held(level, (rearm * MINUTE) as u32, minute(0), &times)
            };
            let held = held_in_any_minute(&rule, level, rearm, &events);
            prop_assert_eq!(was_held(&events), held);
            events.sort_unstable();
            for count in 0..events.len() {
                let newest = &events[events.len() - count..];
                prop_assert!(held || !was_held(newest), "by the newest {}", count);
            }
        }

        /// If the level is not held now, the number of newest events that is asked for is
        /// sufficient.
        #[test]
        fn the_newest_events_that_are_asked_for_decide(
            count in 1..=5_u64,
            span in 1..=120_u32,
            rearm_of_span in 0.0..=1.0_f64,
            mut events in vec(-250..0_i64, 0..60),
        ) {
            let rearm = (f64::from(span) * rearm_of_span).ceil() as i64;
            let rule = rule(&json!({"REPEAT": [format!("{count} in {span}m")]}));
            let level = EscalationLevel::Repeat;
            if held_in_any_minute(&rule, level, 0, &events) {
                return Ok(());
            }
            let rearm_seconds = (rearm * MINUTE) as u32;
            events.sort_unstable();
            let wanted = rule.newest_wanted(rearm_seconds);
            // One of the events is the occurrence itself.
            let newest: Vec<Timestamp> =
                events.iter().rev().take(wanted.saturating_sub(1)).map(|at| minute(*at)).collect();
            let was_held = rearm > 0 && rule.was_held(level, rearm_seconds, minute(0), &newest);
            let held = rearm > 0 && held_in_any_minute(&rule, level, rearm, &events);
            prop_assert_eq!(was_held, held);
        }
    }
}
