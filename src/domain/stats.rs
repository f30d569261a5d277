//! The stats of an anomaly, as a store returns them.

use super::{Timestamp, WindowCounts};

/// An anomaly's occurrences, repairs and mark at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnomalyStats {
    /// Events in each window.
    pub counts: WindowCounts,
    /// True if a count may be too high, or the oldest event's time too early, by the events of one
    /// bucket of time: there are more events than are kept exactly.
    pub is_approximate: bool,
    /// The oldest event inside 30 days.
    pub first_seen: Option<Timestamp>,
    /// The newest event inside 30 days.
    pub last_seen: Option<Timestamp>,
    /// The number of all repair attempts.
    pub repair_attempts: u64,
    /// The time of the mark that holds, if any.
    pub fixed_at: Option<Timestamp>,
}
