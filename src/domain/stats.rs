//! The stats of an anomaly, as a store returns them.

use super::{Counts, ExtraCount, ExtraWindow, Timestamp, WindowCounts};

/// An anomaly's occurrences, repairs and mark at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnomalyStats {
    /// The number of events in each window.
    pub counts: WindowCounts,
    /// The number of events in the additional windows of the anomaly's rule, if they were requested
    /// and do not follow from the four.
    pub extra: Vec<ExtraCount>,
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

impl AnomalyStats {
    /// Sets the counts in a rule's windows. `count` counts those that must be counted; others
    /// follow from the rest. The remaining windows are too small to matter, and their counts stay
    /// unknown.
    pub fn set_extra(
        &mut self,
        now: Timestamp,
        windows: &[ExtraWindow],
        mut count: impl FnMut(usize, &ExtraWindow) -> Option<ExtraCount>,
    ) {
        for (index, window) in windows.iter().enumerate() {
            // If the oldest event is inside, all events are.
            let has_all = self.first_seen.is_some_and(|first| first >= window.start(now));
            let (count_of_all, is_approximate) = (self.counts.month, self.is_approximate);
            let all =
                || ExtraCount { seconds: window.seconds, count: count_of_all, is_approximate };
            let is_known = window.follows_from(self.counts);
            let counted = if window.needs_count(self.counts) { count(index, window) } else { None };
            self.extra.extend(counted.or_else(|| (has_all && !is_known).then(all)));
        }
    }

    /// Returns the counts for judging by a rule.
    pub fn as_counts(&self) -> Counts<'_> {
        Counts { windows: self.counts, extra: &self.extra, is_approximate: self.is_approximate }
    }
}
