//! The time of a call. Counting and forgetting use different times: a wrong clock gives wrong
//! counts until it is right again, but deleted data never comes back.

use super::Timestamp;

/// The time of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The time that decides which events are in which window. Writes are stamped with it.
    pub now: Timestamp,
    /// Data that have expired at this time may be forgotten, or rejected as too old. Never later
    /// than `now`; [`Timestamp::MIN`] while nothing may be forgotten.
    pub horizon: Timestamp,
    /// The latest possible time: later than `now` while two clocks disagree.
    pub latest: Timestamp,
}

impl From<Timestamp> for Moment {
    /// Creates a moment for which no clock is in doubt.
    fn from(now: Timestamp) -> Self {
        Self { now, horizon: now, latest: now }
    }
}
