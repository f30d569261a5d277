//! The frequency of an anomaly, and the verdict of its rule, as callers receive them.

use super::{AnomalyKey, Counts, EscalationLevel, KnownStats, RuleRef, Timestamp, Verdict};

/// The stats of an anomaly, with the level that follows from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frequency {
    /// The key of the anomaly.
    pub key: AnomalyKey,
    /// The stats that the level follows from.
    pub stats: KnownStats,
    /// The level of the current counts.
    pub level: Option<EscalationLevel>,
    /// The level just before this occurrence; the current one if nothing was recorded.
    pub previous_level: Option<EscalationLevel>,
    /// The rule that both levels are judged by.
    pub rule: RuleRef,
    /// The reason of the level, as text.
    pub because: String,
    /// True if this occurrence is a step to a level that was not held recently.
    pub new_step: bool,
}

/// The counts and events before an occurrence, for recognising a step.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    /// The counts just before it.
    pub counts: Counts<'a>,
    /// True if the occurrence was counted.
    pub is_counted: bool,
    /// The events that show whether a step is new. Absent in an outage, in which every step is new:
    /// reporting it twice is better than never.
    pub events: Option<NewestEvents<'a>>,
}

/// The newest events after an occurrence.
#[derive(Clone, Copy, Debug)]
pub struct NewestEvents<'a> {
    /// The time of the occurrence, which is one of them.
    pub at: Timestamp,
    /// The time by which the windows were counted.
    pub now: Timestamp,
    /// The times of the events; empty if the counts are not those of a step.
    pub times: &'a [Timestamp],
}

impl Frequency {
    /// Judges stats by the rule of their anomaly, given the state before the occurrence that led to
    /// them, if there was one.
    pub fn judge(
        key: AnomalyKey,
        stats: KnownStats,
        rule: RuleRef,
        before: Option<Before<'_>>,
    ) -> Self {
        let Verdict { level, because } = rule.judge(stats.as_counts());
        let previous_level = before.map_or(level, |before| rule.rule().level(before.counts));
        let is_new = |level: EscalationLevel, before: Before<'_>| {
            let is_new_step = |newest: NewestEvents<'_>| {
                rule.is_new_step(level, newest.at, newest.now, newest.times)
            };
            before.is_counted && before.events.is_none_or(is_new_step)
        };
        let step = level.zip(before).filter(|_| level > previous_level);
        let new_step = step.is_some_and(|(level, before)| is_new(level, before));
        Self { key, stats, level, previous_level, rule, because, new_step }
    }
}
