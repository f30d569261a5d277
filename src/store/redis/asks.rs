//! The data that the rules of occurrences request from the scripts, besides the four windows.

use std::fmt::Write as _;

use super::time::UnixSeconds;
use crate::domain::{Occurrence, RuleRef, Timestamp, Window};

/// The requests of the rules of a batch's occurrences.
#[derive(Debug)]
pub(super) struct Asks(Vec<(Option<RuleRef>, String)>);

impl Asks {
    pub(super) fn of<'a>(
        occurrences: impl Iterator<Item = &'a Occurrence>,
        now: Timestamp,
    ) -> Self {
        let mut asked = Vec::<(Option<RuleRef>, String)>::new();
        for Occurrence { rule, .. } in occurrences {
            if !asked.iter().any(|(other, _)| other == rule) {
                asked.push((rule.clone(), asks(rule.as_ref(), now)));
            }
        }
        Self(asked)
    }

    /// Returns the most frequent request. The request of the first occurrence is taken for it.
    pub(super) fn of_most(&self) -> &str {
        self.0.first().map_or("0;;", |(_, text)| text)
    }

    /// Returns the request of an occurrence's rule; empty if it is the most frequent one.
    pub(super) fn of_one(&self, occurrence: &Occurrence) -> &str {
        let index = self.0.iter().position(|(rule, _)| *rule == occurrence.rule);
        index.filter(|index| *index > 0).map_or("", |index| &self.0[index].1)
    }
}

/// Returns the request of a rule, in the form that record.lua takes.
fn asks(rule: Option<&RuleRef>, now: Timestamp) -> String {
    let Some(rule) = rule else { return "0;;".to_owned() };
    let windows = rule.extra_windows();
    let mut text = format!("{};", rule.newest_wanted());
    for (seconds, count) in rule.rule().step_counts() {
        let extra = windows.iter().position(|window| window.seconds == seconds);
        let window = match extra {
            Some(index) => Some(BY_LENGTH.len() + index),
            None => BY_LENGTH.iter().position(|w| w.length_seconds() == i64::from(seconds)),
        };
        if let Some(index) = window {
            // Writing to a String cannot fail.
            let _ = write!(text, "{}:{count} ", index + 1);
        }
    }
    text + ";" + &rule_windows(Some(rule), now)
}

/// The counts that may be a step to a level by any of several rules, and the number of newest
/// events that show whether the step is new. A rule without such a step is recognised when it
/// judges.
#[derive(Debug)]
pub(super) struct Steps<'a> {
    pub(super) newest_wanted: usize,
    /// The counts, each between blanks.
    pub(super) text: String,
    pub(super) largest: u64,
    /// Any one of the rules.
    pub(super) rule: Option<&'a RuleRef>,
}

impl<'a> Steps<'a> {
    pub(super) fn of(occurrences: impl Iterator<Item = &'a Occurrence>) -> Self {
        let mut steps = Self { newest_wanted: 0, text: " ".to_owned(), largest: 0, rule: None };
        let mut seen = Vec::<&RuleRef>::new();
        for rule in occurrences.filter_map(|occurrence| occurrence.rule.as_ref()) {
            if seen.contains(&rule) {
                continue;
            }
            seen.push(rule);
            steps.newest_wanted = steps.newest_wanted.max(rule.newest_wanted());
            for (_, count) in rule.rule().step_counts() {
                // Writing to a String cannot fail.
                let _ = write!(steps.text, "{count} ");
                steps.largest = steps.largest.max(count);
            }
        }
        steps.rule = seen.first().copied();
        steps
    }
}

/// Returns the lengths of the additional windows of a rule, in seconds.
pub(super) fn window_lengths(rule: Option<&RuleRef>) -> impl Iterator<Item = u32> {
    let windows = rule.map(RuleRef::extra_windows).unwrap_or_default();
    windows.iter().map(|window| window.seconds)
}

/// Returns the additional windows of a rule, in the form that the scripts take.
pub(super) fn rule_windows(rule: Option<&RuleRef>, now: Timestamp) -> String {
    let windows = rule.map(RuleRef::extra_windows).unwrap_or_default();
    let text = windows.iter().map(|window| {
        let start = UnixSeconds(window.start(now));
        let is_longer = |of_four: &Window| of_four.length_seconds() > i64::from(window.seconds);
        let upper = BY_LENGTH.iter().rposition(is_longer).map_or(1, |index| index + 1);
        format!("{start}:{upper}:{}", window.least)
    });
    text.collect::<Vec<_>>().join(" ")
}

/// The four windows, in the order that the scripts use.
pub(super) const BY_LENGTH: [Window; 4] = [Window::Month, Window::Week, Window::Day, Window::Hour];
