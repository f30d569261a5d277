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

    /// Returns the attempts that count at `now`. An attempt counts for `kept_seconds`, and for as
    /// long as those after it do, if the first of them came in that time.
    pub fn at(&self, now: Timestamp, kept_seconds: i64) -> Self {
        let counted = self.counted(now, kept_seconds);
        Self { total: self.total_of(counted), recent: self.recent[..counted].to_vec() }
    }

    /// Returns the number of the attempts that count at `now`.
    pub fn total_at(&self, now: Timestamp, kept_seconds: i64) -> u64 {
        self.total_of(self.counted(now, kept_seconds))
    }

    /// Removes the attempts that do not count at `horizon`.
    pub fn forget_expired(&mut self, horizon: Timestamp, kept_seconds: i64) {
        let counted = self.counted(horizon, kept_seconds);
        self.total = self.total_of(counted);
        self.recent.truncate(counted);
    }

    /// Returns how many of the newest attempts count at a time.
    fn counted(&self, time: Timestamp, kept_seconds: i64) -> usize {
        // The earliest time after an attempt: a later attempt may have had a clock that was ahead.
        let mut next = time;
        let has_expired = |attempt: &RecentAttempt| {
            let Some(at) = attempt.at else { return false };
            let has_expired = at.plus_seconds(kept_seconds) <= next;
            next = next.min(at);
            has_expired
        };
        self.recent.iter().position(has_expired).unwrap_or(self.recent.len())
    }

    /// Returns the number of all attempts, given how many of the newest count.
    fn total_of(&self, counted: usize) -> u64 {
        // If some of the newest are too old, so are all before them.
        if counted < self.recent.len() { counted as u64 } else { self.total }
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

    const KEPT_DAYS: i64 = 35;
    const KEPT: i64 = KEPT_DAYS * 86_400;

    fn day(day: i64) -> Timestamp {
        Timestamp::from_micros(1_774_799_738_000_000).plus_seconds(day * 86_400)
    }

    /// Attempts at these days, in the order of their arrival.
    fn attempts_at(days: &[i64]) -> RepairHistory {
        let mut history = RepairHistory::default();
        for at in days {
            let at = Some(day(*at));
            history.push(RecentAttempt { action: "r".to_owned(), success: false, at });
        }
        history
    }

    #[test]
    fn attempts_count_until_none_was_added_for_the_time_that_they_are_kept() {
        let history = attempts_at(&[0, 0, 20, 50]);
        for (now, total) in [(0, 4), (50, 4), (84, 4), (85, 0), (90, 0)] {
            assert_eq!(history.total_at(day(now), KEPT), total, "day {now}");
            assert_eq!(history.at(day(now), KEPT).total, total, "day {now}");
            assert_eq!(history.at(day(now), KEPT).recent.len() as u64, total, "day {now}");
        }
    }

    #[test]
    fn attempts_that_have_expired_do_not_count_again_with_a_new_one() {
        let mut history = attempts_at(&[0, 0, 0, 36]);
        assert_eq!(history.total_at(day(36), KEPT), 1);
        assert_eq!(history.at(day(36), KEPT).recent.len(), 1);
        history.forget_expired(Timestamp::MIN, KEPT);
        assert_eq!(history.total, 4, "nothing may be forgotten yet");
        history.forget_expired(day(36), KEPT);
        assert_eq!(history, attempts_at(&[36]));
    }

    #[test]
    fn an_attempt_by_a_clock_that_is_ahead_hides_no_other_once_the_clock_is_right() {
        let mut history = attempts_at(&[0, 40, 1]);
        for now in [1, 35] {
            assert_eq!(history.total_at(day(now), KEPT), 3, "day {now}");
            history.forget_expired(day(now), KEPT);
        }
        assert_eq!(history.total, 3);
    }

    #[test]
    fn nothing_but_zero_to_one_is_a_rate() {
        for wrong in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(SuccessRate::new(wrong), Err(InvalidSuccessRate), "{wrong}");
        }
    }
}
