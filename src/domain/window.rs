//! The four sliding windows in which occurrences are counted.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// A sliding window that ends now. An event is inside if its time ≥ now − length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// A window of 1 hour.
    Hour,
    /// A window of 24 hours.
    Day,
    /// A window of 7 days.
    Week,
    /// A window of 30 days.
    Month,
}

/// The longest window: older events have expired.
pub const RETENTION: Window = Window::Month;

impl Window {
    /// Returns the length of the window in seconds.
    pub const fn length_seconds(self) -> i64 {
        match self {
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Week => 7 * 86_400,
            Self::Month => 30 * 86_400,
        }
    }

    /// Returns the earliest time inside the window at `now`.
    pub fn start(self, now: Timestamp) -> Timestamp {
        now.minus_seconds(self.length_seconds())
    }
}

/// The number of events in each window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowCounts {
    /// The number of events in the last hour.
    pub hour: u64,
    /// The number of events in the last 24 hours.
    pub day: u64,
    /// The number of events in the last 7 days.
    pub week: u64,
    /// The number of events in the last 30 days.
    pub month: u64,
}

impl WindowCounts {
    /// Returns the count of a window.
    pub fn of(&self, window: Window) -> u64 {
        match window {
            Window::Hour => self.hour,
            Window::Day => self.day,
            Window::Week => self.week,
            Window::Month => self.month,
        }
    }

    /// Returns the counts from the shortest window on.
    pub fn by_length(&self) -> [u64; 4] {
        [self.hour, self.day, self.week, self.month]
    }

    /// Combines the counts of each window.
    fn zip(self, other: Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            hour: combine(self.hour, other.hour),
            day: combine(self.day, other.day),
            week: combine(self.week, other.week),
            month: combine(self.month, other.month),
        }
    }

    /// Returns the counts of the union of two disjoint sets of events.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    /// Returns the counts without those of a subset.
    #[must_use]
    pub fn minus(self, subset: Self) -> Self {
        self.zip(subset, u64::saturating_sub)
    }

    /// Returns the higher count of each window: a lower bound for the union of two sets.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        self.zip(other, u64::max)
    }
}
