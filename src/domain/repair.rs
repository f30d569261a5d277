//! Automatic repairs: which were tried on an anomaly, how often they worked, and which to skip.

use std::{cmp::Reverse, collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{Actor, AnomalyKey, EventId, Timestamp};

/// How many attempts an anomaly's history keeps.
pub const RECENT_ATTEMPTS: usize = 100;

/// Fewer attempts than this say nothing about an action, so it is not skipped.
const ATTEMPTS_BEFORE_SKIPPING: u64 = 2;

/// What a repair does, as its pipeline names it: 1 to 200 characters, none of them a control.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Action(String);

/// Why a text names no action.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 200 characters without control characters, such as restart_pod")]
pub struct InvalidAction;

impl Action {
    const MAX_CHARACTERS: usize = 200;

    /// Takes `text` as an action's name.
    ///
    /// # Errors
    /// When it is empty, too long, or holds control characters.
    pub fn parse(text: &str) -> Result<Self, InvalidAction> {
        let fits = (1..=Self::MAX_CHARACTERS).contains(&text.chars().count());
        if fits && !text.chars().any(char::is_control) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidAction)
        }
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One attempt, ready to be recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairAttempt {
    /// The anomaly it was made on.
    pub key: AnomalyKey,
    /// By what a retry of the report is recognised.
    pub id: EventId,
    /// What was tried.
    pub action: Action,
    /// Whether it worked.
    pub success: bool,
    /// When it was reported.
    pub at: Timestamp,
    /// Where the report came from.
    pub actor: Actor,
}

/// One attempt as the history keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentAttempt {
    /// What was tried. Older writers were free in their naming, so this is any text.
    pub action: String,
    /// Whether it worked.
    pub success: bool,
    /// When; absent where an older writer left no readable time.
    pub at: Option<Timestamp>,
}

impl From<&RepairAttempt> for RecentAttempt {
    fn from(attempt: &RepairAttempt) -> Self {
        let RepairAttempt { action, success, at, .. } = attempt;
        Self { action: action.to_string(), success: *success, at: Some(*at) }
    }
}

/// What is known of an anomaly's repairs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairHistory {
    /// All attempts, also those beyond the newest [`RECENT_ATTEMPTS`].
    pub total: u64,
    /// The newest attempts, newest first.
    pub recent: Vec<RecentAttempt>,
}

/// How often one action was tried among the newest attempts, and how often it worked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairStatistics {
    /// Attempts.
    pub total: u64,
    /// Those that worked.
    pub success: u64,
}

/// A share between 0 and 1, both included.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
pub struct SuccessRate(f64);

/// Why a number is no rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a number from 0 to 1, such as 0.2")]
pub struct InvalidSuccessRate;

impl SuccessRate {
    /// The share under which an action is skipped when a caller names none.
    pub const DEFAULT_MINIMUM: Self = Self(0.2);

    /// Takes `share` as a rate.
    ///
    /// # Errors
    /// When it lies outside 0 to 1 or is not a number.
    pub fn new(share: f64) -> Result<Self, InvalidSuccessRate> {
        if (0.0..=1.0).contains(&share) { Ok(Self(share)) } else { Err(InvalidSuccessRate) }
    }
}

impl RepairHistory {
    /// Adds the newest attempt, and lets the oldest beyond [`RECENT_ATTEMPTS`] go.
    pub fn push(&mut self, attempt: RecentAttempt) {
        self.total += 1;
        self.recent.insert(0, attempt);
        self.recent.truncate(RECENT_ATTEMPTS);
    }

    /// The figures of one action; zeros where it was never tried.
    pub fn statistics(&self, action: &str) -> RepairStatistics {
        let mut figures = RepairStatistics::default();
        for attempt in self.recent.iter().filter(|attempt| attempt.action == action) {
            figures.add(attempt.success);
        }
        figures
    }

    /// The figures of every action among the newest attempts, the most tried first.
    pub fn statistics_by_action(&self) -> Vec<(&str, RepairStatistics)> {
        let mut by_action: BTreeMap<&str, RepairStatistics> = BTreeMap::new();
        for attempt in &self.recent {
            by_action.entry(&attempt.action).or_default().add(attempt.success);
        }
        let mut figures: Vec<_> = by_action.into_iter().collect();
        figures.sort_by_key(|(_, figures)| Reverse(figures.total));
        figures
    }
}

impl RepairStatistics {
    fn add(&mut self, success: bool) {
        self.total += 1;
        self.success += u64::from(success);
    }

    /// Successes / attempts, 0 where there are no attempts.
    pub fn success_rate(self) -> SuccessRate {
        if self.total == 0 {
            return SuccessRate(0.0);
        }
        SuccessRate(self.success as f64 / self.total as f64)
    }

    /// Whether the action has been tried often enough to tell, and works too seldom.
    pub fn should_skip(self, minimum: SuccessRate) -> bool {
        self.total >= ATTEMPTS_BEFORE_SKIPPING && self.success_rate() < minimum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(outcomes: &[(&str, bool)]) -> RepairHistory {
        let mut history = RepairHistory::default();
        for (action, success) in outcomes {
            history.push(RecentAttempt {
                action: (*action).to_owned(),
                success: *success,
                at: None,
            });
        }
        history
    }

    #[test]
    fn one_failure_is_not_enough_to_skip_and_two_are() {
        let minimum = SuccessRate::DEFAULT_MINIMUM;
        assert!(!history(&[("restart", false)]).statistics("restart").should_skip(minimum));
        let twice = history(&[("restart", false), ("restart", false)]);
        assert!(twice.statistics("restart").should_skip(minimum));
        assert!(!twice.statistics("other").should_skip(minimum));
    }

    #[test]
    fn a_rate_equal_to_the_minimum_is_not_skipped() {
        let fifth = history(&[("r", true), ("r", false), ("r", false), ("r", false), ("r", false)]);
        assert_eq!(fifth.statistics("r").success_rate(), SuccessRate(0.2));
        assert!(!fifth.statistics("r").should_skip(SuccessRate::DEFAULT_MINIMUM));
    }

    #[test]
    fn rates_come_from_the_newest_hundred_and_the_total_from_all() {
        let mut outcomes = vec![("r", true); 50];
        outcomes.extend(vec![("r", false); 100]);
        let history = history(&outcomes);
        assert_eq!(history.total, 150);
        assert_eq!(history.recent.len(), RECENT_ATTEMPTS);
        assert_eq!(history.statistics("r").success_rate(), SuccessRate(0.0));
    }

    #[test]
    fn nothing_but_zero_to_one_is_a_rate() {
        for wrong in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(SuccessRate::new(wrong), Err(InvalidSuccessRate), "{wrong}");
        }
    }
}
