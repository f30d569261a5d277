//! The criteria of a list, and the properties of anomalies that they need.

use std::fmt::Write as _;

use super::{
    levels::LevelSet,
    rule_name::RuleName,
    text::{SearchWords, TextPattern, TextVerdict},
    time_limit::TimeLimit,
};
use crate::domain::{AnomalyKey, EscalationLevel, Signature, Timestamp, Window, WindowCounts};

/// The criteria of a list, all of which an anomaly must meet. Without any criterion, every anomaly
/// matches. An unknown property meets no criterion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The patterns for each identifying field. If there are any, one of them must match.
    pub fields: [Vec<TextPattern>; 4],
    /// Words, all of which must be found.
    pub words: SearchWords,
    /// The levels, one of which the anomaly must have.
    pub levels: Option<LevelSet>,
    /// The level that the anomaly must have reached.
    pub min_level: Option<EscalationLevel>,
    /// The rules, one of which must judge the anomaly; empty for any rule.
    pub rules: Vec<RuleName>,
    /// True for anomalies with a firing alert, false for those without.
    pub firing: Option<bool>,
    /// True for anomalies with a mark of a permanent fix, false for those without.
    pub fixed: Option<bool>,
    /// True for anomalies that have come back after the mark.
    pub regressed: Option<bool>,
    /// True for anomalies with a repair attempt.
    pub repaired: Option<bool>,
    /// The range for the time of the newest event.
    pub last_seen: TimeRange,
    /// The range for the time of the oldest event.
    pub first_seen: TimeRange,
    /// The minimum number of events in each window.
    pub min_counts: WindowCounts,
}

/// A range of time, from the first limit until before the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeRange {
    /// The earliest time inside.
    pub after: Option<TimeLimit>,
    /// The earliest time outside.
    pub before: Option<TimeLimit>,
}

/// The state of an anomaly that a list uses. A property that a list does not use need not be
/// computed.
pub trait Listable {
    /// Returns the key of the anomaly.
    fn key(&self) -> AnomalyKey;

    /// Returns the number of events in a window.
    fn count(&self, window: Window) -> u64;

    /// Returns the time of the oldest event inside 30 days.
    fn first_seen(&self) -> Option<Timestamp>;

    /// Returns the time of the newest event inside 30 days.
    fn last_seen(&self) -> Option<Timestamp>;

    /// Returns the level that it has reached, or an upper bound of it; `None` if that is not known.
    fn level(&self) -> Option<Option<EscalationLevel>>;

    /// Returns the name of the rule that judges it.
    fn rule_name(&self) -> &str;

    /// Returns true if one of its alerts fires; `None` if that is not known.
    fn is_firing(&self) -> Option<bool>;

    /// Returns true if the mark of a permanent fix holds; `None` if that is not known.
    fn is_fixed(&self) -> Option<bool>;

    /// Returns true if it has come back after the mark; `None` if that is not known.
    fn has_regressed(&self) -> Option<bool>;

    /// Returns true if a repair was attempted; `None` if that is not known.
    fn was_repaired(&self) -> Option<bool>;
}

impl TimeRange {
    fn contains(self, now: Timestamp, time: impl FnOnce() -> Option<Timestamp>) -> bool {
        let Self { after, before } = self;
        if after.is_none() && before.is_none() {
            return true;
        }
        time().is_some_and(|time| {
            after.is_none_or(|limit| time >= limit.at(now))
                && before.is_none_or(|limit| time < limit.at(now))
        })
    }
}

impl Selection {
    /// Returns true if a criterion uses the identifying fields.
    pub fn looks_at_texts(&self) -> bool {
        !self.words.is_empty() || self.fields.iter().any(|patterns| !patterns.is_empty())
    }

    /// Returns true if a criterion uses counts, or values that follow from counts.
    pub fn looks_at_counts(&self) -> bool {
        self.levels.is_some()
            || self.min_level.is_some()
            || self.min_counts != WindowCounts::default()
            || self.first_seen != TimeRange::default()
    }

    /// Returns true if a criterion uses the state.
    pub fn looks_at_state(&self) -> bool {
        let Self { fixed, regressed, repaired, firing, last_seen, .. } = self;
        let flags = [fixed, regressed, repaired, firing];
        self.looks_at_counts()
            || !self.rules.is_empty()
            || flags.into_iter().any(Option::is_some)
            || *last_seen != TimeRange::default()
    }

    /// Judges a text for [`Selection::meets_texts`].
    pub fn judge_text(&self, text: &str) -> TextVerdict {
        TextVerdict::new(&self.fields, &self.words, text)
    }

    /// Returns true if an anomaly meets the criteria about its key and its identifying fields,
    /// which have these verdicts; `None` if the fields are not known.
    pub fn meets_texts(&self, key: AnomalyKey, verdicts: Option<[TextVerdict; 4]>) -> bool {
        let in_texts = verdicts.map_or(0, |verdicts| {
            verdicts.into_iter().fold(0, |words, verdict| words | verdict.words())
        });
        let are_permitted = self.fields.iter().enumerate().all(|(field, patterns)| {
            patterns.is_empty() || verdicts.is_some_and(|verdicts| verdicts[field].permits(field))
        });
        are_permitted && self.words.are_in(key.to_bits(), in_texts)
    }

    /// Returns true if an anomaly meets the other criteria. If it `may_be_read` again, its level
    /// may turn out lower, and an alert that is not known to fire may fire: it matches if it may
    /// match then.
    pub fn meets_state(&self, now: Timestamp, anomaly: &impl Listable, may_be_read: bool) -> bool {
        let has_level = |set: LevelSet| {
            anomaly.level().is_some_and(|level| {
                set.contains(level) || may_be_read && set.contains_below(level)
            })
        };
        let has_rule = |rule: &RuleName| rule.as_str() == anomaly.rule_name();
        let has_count = |window: Window| {
            let min = self.min_counts.of(window);
            min == 0 || anomaly.count(window) >= min
        };
        [Window::Hour, Window::Day, Window::Week, Window::Month].into_iter().all(has_count)
            && self.levels.is_none_or(has_level)
            && self
                .min_level
                .is_none_or(|min| anomaly.level().is_some_and(|level| level >= Some(min)))
            && (self.rules.is_empty() || self.rules.iter().any(has_rule))
            && self
                .firing
                .is_none_or(|flag| anomaly.is_firing().map_or(may_be_read, |firing| firing == flag))
            && self.fixed.is_none_or(|flag| anomaly.is_fixed() == Some(flag))
            && self.regressed.is_none_or(|flag| anomaly.has_regressed() == Some(flag))
            && self.repaired.is_none_or(|flag| anomaly.was_repaired() == Some(flag))
            && self.last_seen.contains(now, || anomaly.last_seen())
            && self.first_seen.contains(now, || anomaly.first_seen())
    }

    /// Returns a number that distinguishes selections and is the same in every process: a cursor of
    /// one selection does not continue another.
    pub fn fingerprint(&self) -> u32 {
        crc32fast::hash(self.canonical().as_bytes())
    }

    /// Returns a text that is the same for the same criteria in another order.
    fn canonical(&self) -> String {
        let mut lines = Vec::new();
        for ((name, _), patterns) in Signature::FIELDS.into_iter().zip(&self.fields) {
            lines.extend(patterns.iter().map(|pattern| format!("{name}={:?}", pattern.source())));
        }
        lines.extend(self.rules.iter().map(|rule| format!("rule={:?}", rule.as_str())));
        lines.extend(self.words.folded().map(|word| format!("q={word:?}")));
        let mut add = |name: &str, value: Option<String>| {
            lines.extend(value.map(|value| format!("{name}={value}")));
        };
        add("level", self.levels.map(|levels| levels.to_string()));
        add("min_level", self.min_level.map(|level| level.as_str().to_owned()));
        for (name, flag) in
            [("fixed", self.fixed), ("regressed", self.regressed), ("repaired", self.repaired)]
                .into_iter()
                .chain([("firing", self.firing)])
        {
            add(name, flag.map(|flag| flag.to_string()));
        }
        for (name, range) in [("last_seen", self.last_seen), ("first_seen", self.first_seen)] {
            add(&format!("{name}_after"), range.after.map(|limit| limit.to_string()));
            add(&format!("{name}_before"), range.before.map(|limit| limit.to_string()));
        }
        let WindowCounts { hour, day, week, month } = self.min_counts;
        for (name, count) in [("1h", hour), ("24h", day), ("7d", week), ("30d", month)] {
            add(&format!("min_count_{name}"), (count > 0).then(|| count.to_string()));
        }
        lines.sort_unstable();
        lines.dedup();
        lines.iter().fold(String::new(), |mut text, line| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{line}");
            text
        })
    }
}
