//! The level that a rule gives to an anomaly's counts, and its reason as text.

use std::fmt::Write as _;

use super::{
    condition::{Condition, Term},
    counts::{Counts, Known},
    rule::Rule,
};
use crate::domain::EscalationLevel;

/// Maximum length of a reason in bytes.
pub const MAX_BECAUSE_BYTES: usize = 200;

/// A length that few reasons exceed, so that their text is allocated only once.
const USUAL_BYTES: usize = 64;

/// The level that counts reach by a rule, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The level that was reached.
    pub level: Option<EscalationLevel>,
    /// One line of at most [`MAX_BECAUSE_BYTES`], such as `5 in 24h >= 5 (rule default)`.
    pub because: String,
}

impl Rule {
    /// Returns the highest level with a condition that holds.
    pub fn level(&self, counts: Counts<'_>) -> Option<EscalationLevel> {
        self.levels().reached(counts)
    }

    /// Returns the level with its reason: the first of its conditions that holds or, without a
    /// level, the condition of the lowest level that is closest to holding. `ends` follows the name
    /// of the rule.
    pub(super) fn judge(&self, counts: Counts<'_>, ends: &str) -> Verdict {
        let level = self.level(counts);
        let condition = match level {
            Some(level) => self.levels().conditions(level).iter().find(|c| c.holds(counts)),
            None => nearest(self.lowest_conditions(), counts),
        };
        let mut because = String::with_capacity(USUAL_BYTES);
        let ending_bytes = " (rule )".len() + self.name().len() + ends.len();
        match condition {
            Some(condition) => {
                push_terms(&mut because, condition, counts, MAX_BECAUSE_BYTES - ending_bytes);
            }
            None => because.push_str("no levels"),
        }
        // Writing to a String cannot fail.
        let _ = write!(because, " (rule {}{ends})", self.name());
        Verdict { level, because }
    }

    /// Returns the conditions of the lowest level that has any.
    fn lowest_conditions(&self) -> &[Condition] {
        let of_level = EscalationLevel::ALL.into_iter().map(|l| self.levels().conditions(l));
        of_level.into_iter().find(|conditions| !conditions.is_empty()).unwrap_or_default()
    }
}

/// A count and the count that a term requires, as a fraction.
type Share = (u64, u64);

/// Returns the condition whose worst term is closest to its required count. If several are equal,
/// returns the first.
fn nearest<'a>(conditions: &'a [Condition], counts: Counts<'_>) -> Option<&'a Condition> {
    let is_less = |(a, b): Share, (c, d): Share| {
        u128::from(a) * u128::from(d) < u128::from(c) * u128::from(b)
    };
    let share = |term: &Term| {
        let Known { count, at_most, .. } = term.known(counts);
        (at_most.unwrap_or(count), term.count)
    };
    let worst = |condition: &Condition| {
        let shares = condition.terms().iter().map(share);
        shares.reduce(|a, b| if is_less(b, a) { b } else { a }).unwrap_or((0, 1))
    };
    let with_share = conditions.iter().map(|condition| (condition, worst(condition)));
    with_share.reduce(|a, b| if is_less(a.1, b.1) { b } else { a }).map(|(nearest, _)| nearest)
}

/// Appends the terms with their counts, as many as fit.
fn push_terms(text: &mut String, condition: &Condition, counts: Counts<'_>, max_bytes: usize) {
    const MORE: &str = " and more";
    let last = condition.terms().len() - 1;
    for (index, term) in condition.terms().iter().enumerate() {
        let length = text.len();
        text.push_str(if index > 0 { " and " } else { "" });
        push_term(text, term, counts);
        let room = if index < last { MORE.len() } else { 0 };
        if text.len() + room > max_bytes {
            text.truncate(length);
            text.push_str(MORE);
            return;
        }
    }
}

/// Appends a term with its current count: `2 in 24h < 3`.
fn push_term(text: &mut String, term: &Term, counts: Counts<'_>) {
    let Known { count, at_most, is_approximate } = term.known(counts);
    let holds = term.holds(counts);
    let (lead, count) = match at_most {
        Some(most) if !holds => ("at most ", most),
        Some(_) => ("at least ", count),
        None if is_approximate => ("about ", count),
        None => ("", count),
    };
    let relation = if holds { ">=" } else { "<" };
    // Writing to a String cannot fail.
    let _ = write!(text, "{lead}{count} in {} {relation} {}", term.window, term.count);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{
        Thresholds, WindowCounts,
        rules::{ExtraCount, Levels, RuleSource},
    };

    fn rule(levels: &serde_json::Value) -> Rule {
        rule_of("batch", levels)
    }

    fn rule_of(name: &str, levels: &serde_json::Value) -> Rule {
        let source = json!({"name": name, "levels": levels}).to_string();
        let source: RuleSource = serde_json::from_str(&source).unwrap();
        let default = Levels::from(Thresholds::new(3, 5, 10).unwrap());
        Rule::parse(1, &source, &default).unwrap()
    }

    fn counts(hour: u64, day: u64, week: u64, month: u64) -> Counts<'static> {
        Counts { windows: WindowCounts { hour, day, week, month }, ..Counts::default() }
    }

    fn because(rule: &Rule, counts: Counts<'_>) -> String {
        rule.judge(counts, "").because
    }

    #[test]
    fn the_reason_of_a_level_is_its_first_condition_that_holds() {
        let rule = rule(&json!({
            "REPEAT": ["3 in 24h"],
            "ESCALATE": ["5 in 24h", "4 in 1h"],
            "PERMANENT_FIX": ["20 in 7d and 3 in 24h"],
        }));
        for (counts, level, expected) in [
            (counts(0, 2, 9, 9), None, "2 in 24h < 3 (rule batch)"),
            (counts(0, 3, 9, 9), Some(EscalationLevel::Repeat), "3 in 24h >= 3 (rule batch)"),
            (counts(4, 4, 9, 9), Some(EscalationLevel::Escalate), "4 in 1h >= 4 (rule batch)"),
            (counts(5, 6, 9, 9), Some(EscalationLevel::Escalate), "6 in 24h >= 5 (rule batch)"),
            (
                counts(0, 3, 21, 22),
                Some(EscalationLevel::PermanentFix),
                "21 in 7d >= 20 and 3 in 24h >= 3 (rule batch)",
            ),
        ] {
            let verdict = rule.judge(counts, "");
            assert_eq!(verdict.because, expected);
            assert_eq!(verdict.level, level, "{expected}");
        }
    }

    #[test]
    fn without_a_level_the_nearest_condition_of_the_lowest_is_the_reason() {
        let rule = rule(&json!({
            "REPEAT": ["8 in 24h", "4 in 1h", "10 in 7d and 4 in 24h"],
            "PERMANENT_FIX": ["1 in 1m"],
        }));
        for (counts, expected) in [
            (counts(0, 0, 0, 0), "0 in 24h < 8 (rule batch)"),
            (counts(0, 4, 4, 4), "4 in 24h < 8 (rule batch)"),
            (counts(3, 4, 4, 4), "3 in 1h < 4 (rule batch)"),
            (counts(0, 3, 9, 9), "9 in 7d < 10 and 3 in 24h < 4 (rule batch)"),
            (counts(0, 3, 12, 12), "12 in 7d >= 10 and 3 in 24h < 4 (rule batch)"),
        ] {
            let counts = Counts { extra: &[NOTHING_IN_A_MINUTE], ..counts };
            assert_eq!(because(&rule, counts), expected);
        }
    }

    const NOTHING_IN_A_MINUTE: ExtraCount =
        ExtraCount { seconds: 60, count: 0, is_approximate: false };

    #[test]
    fn a_count_that_is_not_known_exactly_says_so() {
        let rule = rule(&json!({"REPEAT": ["6 in 6h"]}));
        assert_eq!(because(&rule, counts(1, 4, 9, 9)), "at most 4 in 6h < 6 (rule batch)");
        assert_eq!(because(&rule, counts(4, 4, 9, 9)), "4 in 6h < 6 (rule batch)");
        assert_eq!(because(&rule, counts(7, 9, 9, 9)), "at least 7 in 6h >= 6 (rule batch)");
        let six = ExtraCount { seconds: 21_600, count: 6, is_approximate: true };
        let extra = Counts { extra: &[six], ..counts(1, 9, 9, 9) };
        assert_eq!(because(&rule, extra), "about 6 in 6h >= 6 (rule batch)");
        let default = Rule::of_thresholds(Thresholds::new(3, 5, 10).unwrap());
        let many = Counts { is_approximate: true, ..counts(9, 10_412, 10_412, 10_412) };
        assert_eq!(because(&default, many), "about 10412 in 24h >= 10 (rule default)");
    }

    #[test]
    fn a_rule_without_levels_never_reaches_one() {
        let rule = rule(&"none".into());
        let verdict = rule.judge(counts(9, 99, 999, 9_999), "");
        assert_eq!(verdict.level, None);
        assert_eq!(verdict.because, "no levels (rule batch)");
    }

    #[test]
    fn the_longest_reason_is_cut_at_a_term() {
        let name = "n".repeat(64);
        let term = |span| format!("1000000 in {span}");
        let condition = ["43199m", "43198m", "43197m", "43196m"].map(term).join(" and ");
        let rule = rule_of(&name, &json!({"REPEAT": [condition]}));
        let most = Counts { is_approximate: true, ..counts(9, 99, 999, u64::MAX) };
        let because = because(&rule, most);
        assert!(because.len() <= MAX_BECAUSE_BYTES, "{} bytes", because.len());
        assert!(because.ends_with(&format!(" and more (rule {name})")), "{because}");
    }
}
