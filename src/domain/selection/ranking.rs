//! The order of a list. It is total, because anomalies with equal sort values are ordered by their
//! keys.

use std::str::FromStr;

use super::criteria::Listable;
use crate::domain::{AnomalyKey, Timestamp, Window};

/// The value that a list is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// The number of events in the last hour.
    Count1h,
    /// The number of events in the last 24 hours.
    #[default]
    Count24h,
    /// The number of events in the last 7 days.
    Count7d,
    /// The number of events in the last 30 days.
    Count30d,
    /// The time of the newest event.
    LastSeen,
    /// The time of the oldest event.
    FirstSeen,
    /// The key of the anomaly.
    Key,
}

/// The direction of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Highest value first.
    Descending,
    /// Lowest value first.
    Ascending,
}

/// The order of a list: a sort value and a direction that is valid for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranking {
    sort: Sort,
    order: Order,
}

/// The position of an anomaly in a list. A lower one comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    rank: u64,
    tie: u64,
}

/// The error for an ascending order of counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be desc if the list is sorted by a count: asc is allowed with last_seen, first_seen and \
     key"
)]
pub struct InvalidOrder;

/// The error for a text that is not a [`Sort`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be one of count_24h, count_1h, count_7d, count_30d, last_seen, first_seen, key, not \
    {0:?}"
)]
pub struct UnknownSort(String);

/// The error for a text that is not an [`Order`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be asc or desc, not {0:?}")]
pub struct UnknownOrder(String);

/// The sort value of an anomaly that has none, such as one without an event. It comes last in both
/// directions.
const NO_VALUE: i64 = i64::MIN;
const SIGN: u64 = 1 << 63;

impl Sort {
    /// All sort values. Their indexes are their numbers in a cursor.
    pub(super) const ALL: [Self; 7] = [
        Self::Count1h,
        Self::Count24h,
        Self::Count7d,
        Self::Count30d,
        Self::LastSeen,
        Self::FirstSeen,
        Self::Key,
    ];

    fn is_count(self) -> bool {
        matches!(self, Self::Count1h | Self::Count24h | Self::Count7d | Self::Count30d)
    }
}

impl Order {
    pub(super) const ALL: [Self; 2] = [Self::Ascending, Self::Descending];
}

impl Default for Ranking {
    fn default() -> Self {
        Self { sort: Sort::default(), order: Order::Descending }
    }
}

impl Ranking {
    /// Creates an order. Without a direction, keys are ascending, and all other values are
    /// descending.
    ///
    /// # Errors
    /// Fails for ascending counts: such a list would begin with the anomalies that happened once,
    /// and there is no end of these.
    pub fn new(sort: Sort, order: Option<Order>) -> Result<Self, InvalidOrder> {
        let usual = if sort == Sort::Key { Order::Ascending } else { Order::Descending };
        match order.unwrap_or(usual) {
            Order::Ascending if sort.is_count() => Err(InvalidOrder),
            order => Ok(Self { sort, order }),
        }
    }

    pub(super) fn sort(self) -> Sort {
        self.sort
    }

    pub(super) fn order(self) -> Order {
        self.order
    }

    /// Returns true if it uses counts, or other values that change as time passes.
    pub fn looks_at_counts(self) -> bool {
        self.sort.is_count() || self.sort == Sort::FirstSeen
    }

    /// Returns the position of an anomaly.
    pub fn position(self, anomaly: &impl Listable) -> Position {
        let count = |window: Window| i64::try_from(anomaly.count(window)).unwrap_or(i64::MAX);
        let time = |time: Option<Timestamp>| time.map_or(NO_VALUE, Timestamp::as_micros);
        let value = match self.sort {
            Sort::Count1h => count(Window::Hour),
            Sort::Count24h => count(Window::Day),
            Sort::Count7d => count(Window::Week),
            Sort::Count30d => count(Window::Month),
            Sort::LastSeen => time(anomaly.last_seen()),
            Sort::FirstSeen => time(anomaly.first_seen()),
            Sort::Key => 0,
        };
        self.position_of(value, anomaly.key())
    }

    pub(super) fn position_of(self, value: i64, key: AnomalyKey) -> Position {
        let rising = value.cast_unsigned() ^ SIGN;
        let rank = match self.order {
            Order::Ascending if value == NO_VALUE => u64::MAX,
            Order::Ascending => rising,
            Order::Descending => !rising,
        };
        let has_falling_keys = self.sort == Sort::Key && self.order == Order::Descending;
        let tie = if has_falling_keys { !key.to_bits() } else { key.to_bits() };
        Position { rank, tie }
    }

    /// Returns the value and the key at a position.
    pub(super) fn value_at(self, position: Position) -> (i64, AnomalyKey) {
        let Position { rank, tie } = position;
        let value = match self.order {
            Order::Ascending if rank == u64::MAX => NO_VALUE,
            Order::Ascending => (rank ^ SIGN).cast_signed(),
            Order::Descending => (!rank ^ SIGN).cast_signed(),
        };
        let has_falling_keys = self.sort == Sort::Key && self.order == Order::Descending;
        (value, AnomalyKey::from_bits(if has_falling_keys { !tie } else { tie }))
    }
}

impl FromStr for Sort {
    type Err = UnknownSort;

    fn from_str(text: &str) -> Result<Self, UnknownSort> {
        Ok(match text {
            "count_1h" => Self::Count1h,
            "count_24h" => Self::Count24h,
            "count_7d" => Self::Count7d,
            "count_30d" => Self::Count30d,
            "last_seen" => Self::LastSeen,
            "first_seen" => Self::FirstSeen,
            "key" => Self::Key,
            other => return Err(UnknownSort(other.to_owned())),
        })
    }
}

impl FromStr for Order {
    type Err = UnknownOrder;

    fn from_str(text: &str) -> Result<Self, UnknownOrder> {
        match text {
            "asc" => Ok(Self::Ascending),
            "desc" => Ok(Self::Descending),
            other => Err(UnknownOrder(other.to_owned())),
        }
    }
}
