//! The counts for judging by a rule: those of the four windows, and those of a rule's additional
//! windows.

use crate::domain::{Timestamp, Window, WindowCounts};

/// Maximum number of additional windows of a rule, besides the four.
pub const MAX_EXTRA_WINDOWS: usize = 4;

/// An additional window in which a rule counts, besides the four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtraWindow {
    /// Its length in seconds.
    pub seconds: u32,
    /// The smallest count in any condition: a lower count need not be known.
    pub least: u64,
    /// The largest count in any condition: a higher count need not be known exactly.
    pub most: u64,
}

impl ExtraWindow {
    /// Returns the earliest time inside the window at `now`.
    pub fn start(&self, now: Timestamp) -> Timestamp {
        now.minus_seconds(self.seconds.into())
    }

    /// Returns true if only the events can show whether a condition holds: the count does not
    /// follow from those of the four windows, and may be high enough for a condition.
    pub fn needs_count(&self, counts: WindowCounts) -> bool {
        !self.follows_from(counts) && bounds(self.seconds, counts).1 >= self.least
    }

    /// Returns the upper bound of its count, from the counts of the four windows.
    pub fn at_most(&self, counts: WindowCounts) -> ExtraCount {
        let (_, count) = bounds(self.seconds, counts);
        ExtraCount { seconds: self.seconds, count, is_approximate: false }
    }

    /// Returns true if the next shorter of the four windows has as many events as the next longer
    /// one.
    pub fn follows_from(&self, counts: WindowCounts) -> bool {
        let (lower, upper) = bounds(self.seconds, counts);
        lower == upper
    }
}

/// The number of events in an additional window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtraCount {
    /// The length of the window, in seconds.
    pub seconds: u32,
    /// The number of events in the window.
    pub count: u64,
    /// True if it may be too high by the events of one bucket of time.
    pub is_approximate: bool,
}

/// The numbers of events in the windows at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts<'a> {
    /// The counts of the four windows.
    pub windows: WindowCounts,
    /// The counts of additional windows, as far as they were counted.
    pub extra: &'a [ExtraCount],
    /// True if one of the four may be too high.
    pub is_approximate: bool,
}

/// A count, and how exactly it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The count, or its lower bound if only bounds are known.
    pub(super) count: u64,
    /// The upper bound of a count that is not known exactly.
    pub(super) at_most: Option<u64>,
    pub(super) is_approximate: bool,
}

impl Counts<'_> {
    /// Returns the known count of the window with this length.
    pub(super) fn of(&self, seconds: u32) -> Known {
        if let Some(extra) = self.extra.iter().find(|extra| extra.seconds == seconds) {
            let ExtraCount { count, is_approximate, .. } = *extra;
            return Known { count, at_most: None, is_approximate };
        }
        let (lower, upper) = bounds(seconds, self.windows);
        let at_most = (lower < upper).then_some(upper);
        Known { count: lower, at_most, is_approximate: self.is_approximate }
    }

    /// Returns the count of the window with this length, or its lower bound.
    pub fn known_of(&self, seconds: u32) -> ExtraCount {
        let Known { count, is_approximate, .. } = self.of(seconds);
        ExtraCount { seconds, count, is_approximate }
    }
}

/// Returns the count of the longest of the four windows that is not longer than this one, and of
/// the shortest that is not shorter.
fn bounds(seconds: u32, counts: WindowCounts) -> (u64, u64) {
    let by_length = [
        (Window::Hour, counts.hour),
        (Window::Day, counts.day),
        (Window::Week, counts.week),
        (Window::Month, counts.month),
    ];
    let seconds = i64::from(seconds);
    let shorter = by_length.iter().rev().find(|(window, _)| window.length_seconds() <= seconds);
    let longer = by_length.iter().find(|(window, _)| window.length_seconds() >= seconds);
    let (_, lower) = shorter.copied().unwrap_or((Window::Hour, 0));
    let (_, upper) = longer.copied().unwrap_or((Window::Month, counts.month));
    (lower, upper)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTS: WindowCounts = WindowCounts { hour: 1, day: 4, week: 4, month: 9 };

    #[test]
    fn a_window_lies_between_two_of_the_four() {
        for (seconds, expected) in [
            (60, (0, 1)),
            (3_600, (1, 1)),
            (6 * 3_600, (1, 4)),
            (86_400, (4, 4)),
            (3 * 86_400, (4, 4)),
            (8 * 86_400, (4, 9)),
            (30 * 86_400, (9, 9)),
        ] {
            assert_eq!(bounds(seconds, COUNTS), expected, "{seconds}");
        }
    }

    #[test]
    fn only_what_can_decide_is_counted() {
        let window = |seconds, least| ExtraWindow { seconds, least, most: least };
        assert!(window(6 * 3_600, 4).needs_count(COUNTS));
        assert!(!window(6 * 3_600, 5).needs_count(COUNTS), "it can't be reached");
        assert!(!window(3 * 86_400, 2).needs_count(COUNTS), "it is known");
    }
}
