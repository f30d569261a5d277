//! Automatic repairs: the attempts on an anomaly, the success of each action, and the actions to
//! skip.

use std::{cmp::Reverse, collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{Actor, AnomalyKey, EventId, Timestamp};

/// Maximum number of attempts in an anomaly's history.
pub const RECENT_ATTEMPTS: usize = 100;

/// Minimum number of attempts before an action is skipped: fewer attempts do not show whether it
/// works.
const ATTEMPTS_BEFORE_SKIPPING: u64 = 2;

/// The name of a repair action: 1 to 200 characters, none of them a control character.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Action(String);

/// The error for a text that is not an action's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 200 characters without control characters, such as restart_pod")]
pub struct InvalidAction;

impl Action {
    const MAX_CHARACTERS: usize = 200;

    /// Parses an action's name.
    ///
    /// # Errors
    /// Fails if it is empty, too long, or holds control characters.
    pub fn parse(text: &str) -> Result<Self, InvalidAction> {
        let fits = (1..=Self::MAX_CHARACTERS).contains(&text.chars().count());
        if fits && !text.chars().any(char::is_control) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidAction)
        }
    }

    /// Returns the name as it was given.
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
    /// The anomaly that was repaired.
    pub key: AnomalyKey,
    /// The id that identifies a retry of the report.
    pub id: EventId,
    /// The action that was attempted.
    pub action: Action,
    /// True if the repair succeeded.
    pub success: bool,
    /// The time of the report.
    pub at: Timestamp,
    /// The caller who reports the attempt.
    pub actor: Actor,
}

/// One attempt in a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentAttempt {
    /// The action that was attempted. Older writers named actions freely, so this is any text.
    pub action: String,
    /// True if the repair succeeded.
    pub success: bool,
    /// The time of the report; absent if an older writer left no readable time.
    pub at: Option<Timestamp>,
}

impl From<&RepairAttempt> for RecentAttempt {
    fn from(attempt: &RepairAttempt) -> Self {
        let RepairAttempt { action, success, at, .. } = attempt;
        Self { action: action.to_string(), success: *success, at: Some(*at) }
    }
}

/// The repair attempts of an anomaly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairHistory {
    /// The number of all attempts, including those older than the newest [`RECENT_ATTEMPTS`].
    pub total: u64,
    /// The newest attempts, newest first.
    pub recent: Vec<RecentAttempt>,
}

/// The attempts of one action among the newest ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairStatistics {
    /// The number of all attempts of the action.
    pub total: u64,
    /// The number of successful attempts.
    pub success: u64,
}

/// A share between 0 and 1, both included.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
pub struct SuccessRate(f64);

/// The error for a number that is not a rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a number from 0 to 1, such as 0.2")]
pub struct InvalidSuccessRate;

impl SuccessRate {
    /// The rate below which an action is skipped, if the caller gives none.
    pub const DEFAULT_MINIMUM: Self = Self(0.2);

    /// Creates a rate.
    ///
    /// # Errors
    /// Fails if it lies outside 0 to 1 or is not a number.
    pub fn new(share: f64) -> Result<Self, InvalidSuccessRate> {
        if (0.0..=1.0).contains(&share) { Ok(Self(share)) } else { Err(InvalidSuccessRate) }
    }
}

impl FromStr for SuccessRate {
    type Err = InvalidSuccessRate;

    fn from_str(text: &str) -> Result<Self, InvalidSuccessRate> {
        text.parse().map_err(|_| InvalidSuccessRate).and_then(Self::new)
    }
}

impl RepairHistory {
    /// Adds the newest attempt, and drops the oldest beyond [`RECENT_ATTEMPTS`].
    pub fn push(&mut self, attempt: RecentAttempt) {
        self.total += 1;
        self.recent.insert(0, attempt);
        self.recent.truncate(RECENT_ATTEMPTS);
    }

    /// Returns the statistics of one action; zeros if it was never attempted.
    pub fn statistics(&self, action: &str) -> RepairStatistics {
        let mut statistics = RepairStatistics::default();
        for attempt in self.recent.iter().filter(|attempt| attempt.action == action) {
            statistics.add(attempt.success);
        }
        statistics
    }

    /// Returns the statistics of every action among the newest attempts, the most attempted first.
    pub fn statistics_by_action(&self) -> Vec<(&str, RepairStatistics)> {
        let mut by_action: BTreeMap<&str, RepairStatistics> = BTreeMap::new();
        for attempt in &self.recent {
            by_action.entry(&attempt.action).or_default().add(attempt.success);
        }
        let mut by_action: Vec<_> = by_action.into_iter().collect();
        by_action.sort_by_key(|(_, statistics)| Reverse(statistics.total));
        by_action
    }
}

impl RepairStatistics {
    fn add(&mut self, success: bool) {
        self.total += 1;
        self.success += u64::from(success);
    }

    /// Returns the share of successful attempts, or 0 if there are no attempts.
    pub fn success_rate(self) -> SuccessRate {
        if self.total == 0 {
            return SuccessRate(0.0);
        }
        SuccessRate(self.success as f64 / self.total as f64)
    }

    /// Returns true if the action was attempted often enough and succeeds too rarely.
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
