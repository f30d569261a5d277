//! The operations that wait, and what becomes of them.

use crate::domain::Operation;

/// A waiting operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spooled {
    /// Its position in the order; later ones are larger.
    pub sequence: u64,
    /// The size of its record.
    pub bytes: usize,
    /// The operation itself.
    pub operation: Operation,
    /// True if it may have been sent to the store: before it was spooled, or by an earlier process.
    pub maybe_sent: bool,
}

/// A waiting operation that becomes a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Its position in the order.
    pub sequence: u64,
    /// Why it is rejected.
    pub reason: String,
    /// True if it may have been sent to the store.
    pub maybe_sent: bool,
}

/// The outcome of a page of waiting operations.
#[derive(Clone, Debug, Default)]
pub struct Settlement {
    /// The sequences of the operations that were applied.
    pub applied: Vec<u64>,
    /// The operations that become dead letters.
    pub rejected: Vec<Rejection>,
    /// The next page, by its first possible sequence, and its length in operations and in bytes at
    /// most: it counts as sent from now on.
    pub next_page: Option<(u64, usize, usize)>,
}
