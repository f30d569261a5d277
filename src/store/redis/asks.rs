//! What the rules of occurrences ask the scripts for beside the four windows.

use std::fmt::Write as _;

use super::time::to_unix_seconds;
use crate::domain::{Occurrence, RuleRef, Timestamp, Window};

/// What the rules of the occurrences of a batch ask for.
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

    /// Returns what most ask for, as the first one does.
    pub(super) fn of_most(&self) -> &str {
        self.0.first().map_or("0;;", |(_, text)| text)
    }

    /// Returns what the rule of an occurrence asks for; empty where that is what most ask for.
    pub(super) fn of_one(&self, occurrence: &Occurrence) -> &str {
        let index = self.0.iter().position(|(rule, _)| *rule == occurrence.rule);
        index.filter(|index| *index > 0).map_or("", |index| &self.0[index].1)
    }
}

/// What a rule asks for beside the four windows, as record.lua takes it.
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

/// What may be a step to a level by any of some rules, and how many of the newest events tell
/// whether it is new. That a rule has no such step is seen when it judges.
#[derive(Debug)]
pub(super) struct Steps<'a> {
    pub(super) newest_wanted: usize,
    /// The counts, each between blanks.
    pub(super) text: String,
    pub(super) largest: u64,
    /// One of the rules.
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

/// The windows of a rule beside the four, as the scripts take them.
pub(super) fn rule_windows(rule: Option<&RuleRef>, now: Timestamp) -> String {
    let windows = rule.map(RuleRef::extra_windows).unwrap_or_default();
    let text = windows.iter().map(|window| {
        let start = to_unix_seconds(window.start(now));
        let is_longer = |of_four: &Window| of_four.length_seconds() > i64::from(window.seconds);
        let upper = BY_LENGTH.iter().rposition(is_longer).map_or(1, |index| index + 1);
        format!("{start}:{upper}:{}", window.least)
    });
    text.collect::<Vec<_>>().join(" ")
}

/// The four windows in the order in which the scripts have them.
pub(super) const BY_LENGTH: [Window; 4] = [Window::Month, Window::Week, Window::Day, Window::Hour];
