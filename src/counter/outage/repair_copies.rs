//! Finds out which waiting repair attempts may already be in the anomaly's history. A history has
//! no ids, so an attempt that may have been recorded is compared by its content.

use crate::domain::{RecentAttempt, RepairHistory};

/// A waiting repair attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WaitingAttempt {
    pub(super) attempt: RecentAttempt,
    /// True if the store may already have had it. A caller's second report of an attempt may have
    /// another time than the first.
    pub(super) is_doubtful: bool,
}

/// Returns the waiting attempts in their order, without those that may be in the history: each
/// attempt in the history matches one copy.
pub(super) fn without_copies(
    history: &RepairHistory,
    mut waiting: Vec<WaitingAttempt>,
) -> Vec<WaitingAttempt> {
    let mut unmatched: Vec<&RecentAttempt> = history.recent.iter().collect();
    let mut take = |is_copy: &dyn Fn(&RecentAttempt) -> bool| {
        let found = unmatched.iter().position(|attempt| is_copy(attempt));
        found.map(|index| unmatched.swap_remove(index)).is_some()
    };
    // Identical attempts match first; otherwise, another one could match in their place.
    waiting.retain(|waits| !take(&|known| *known == waits.attempt));
    waiting.retain(|WaitingAttempt { attempt, is_doubtful }| {
        let is_like = |known: &RecentAttempt| {
            known.action == attempt.action && known.success == attempt.success
        };
        !(*is_doubtful && take(&is_like))
    });
    waiting
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    fn attempt(success: bool, second: i64) -> RecentAttempt {
        let at = Some(Timestamp::from_micros(second * 1_000_000));
        RecentAttempt { action: "restart".to_owned(), success, at }
    }

    fn waits(is_doubtful: bool, success: bool, second: i64) -> WaitingAttempt {
        WaitingAttempt { attempt: attempt(success, second), is_doubtful }
    }

    #[test]
    fn each_attempt_of_a_history_is_taken_for_one_copy() {
        let mut history = RepairHistory::default();
        history.push(attempt(false, 1));
        history.push(attempt(false, 2));
        let fresh = waits(false, false, 3);
        let waiting = vec![
            waits(true, false, 4),
            waits(false, false, 2),
            fresh.clone(),
            waits(true, true, 1),
            waits(true, false, 5),
        ];
        // The second one is in the history, and the first one may be the other one in it.
        let left = vec![fresh, waits(true, true, 1), waits(true, false, 5)];
        assert_eq!(without_copies(&history, waiting), left);
    }
}
