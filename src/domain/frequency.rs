//! How often an anomaly has happened, and what its rule says of it, as a caller is answered.

use super::{AnomalyKey, Counts, EscalationLevel, KnownStats, RuleRef, Timestamp, Verdict};

/// Stats with the level that follows from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frequency {
    /// The anomaly.
    pub key: AnomalyKey,
    /// The stats that the level follows from.
    pub stats: KnownStats,
    /// The level of the current counts.
    pub level: Option<EscalationLevel>,
    /// The level just before this occurrence; the current one if nothing was recorded.
    pub previous_level: Option<EscalationLevel>,
    /// The rule by which both are judged.
    pub rule: RuleRef,
    /// The reason of the level, in words.
    pub because: String,
    /// True if this occurrence is a step to a level that was not held a while ago.
    pub new_step: bool,
}

/// The counts and events before an occurrence, by which a step is recognised.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    /// The counts just before it.
    pub counts: Counts<'a>,
    /// True if it was counted.
    pub is_counted: bool,
    /// The events by which a new step is told; absent in an outage, where each step is new: rather
    /// reported twice than never.
    pub events: Option<NewestEvents<'a>>,
}

/// The newest events after an occurrence.
#[derive(Clone, Copy, Debug)]
pub struct NewestEvents<'a> {
    /// The time of the occurrence, which is one of them.
    pub at: Timestamp,
    /// The time by which the windows were counted.
    pub now: Timestamp,
    /// The times of the events; none where the counts are those of no step.
    pub times: &'a [Timestamp],
}

impl Frequency {
    /// Judges stats by the rule of their anomaly, given what was before the occurrence that has led
    /// to them, if one has.
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
