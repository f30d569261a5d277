//! The time of a call. Counting and forgetting go by different times: a clock that is wrong gives
//! wrong counts until it is right again, but what it deletes never comes back.

use super::Timestamp;

/// The time of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The time that decides which events are in which window, and that writes are stamped with.
    pub now: Timestamp,
    /// Data that have expired as of this time may be forgotten, or called too old. Never later than
    /// `now`; [`Timestamp::MIN`] while nothing may be forgotten.
    pub horizon: Timestamp,
    /// The latest time that it may be: later than `now` while two clocks disagree.
    pub latest: Timestamp,
}

impl From<Timestamp> for Moment {
    /// A moment at which no clock is in doubt.
    fn from(now: Timestamp) -> Self {
        Self { now, horizon: now, latest: now }
    }
}
