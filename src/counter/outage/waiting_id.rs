//! The ids of one anomaly's waiting operations, by which copies are recognised.

use crate::domain::{Occurrence, Operation};

/// The id of a waiting operation. Occurrences and alerts have ids of their own, separate from those
/// of all other operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id {
    pub(super) of: IdOf,
    pub(super) short: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum IdOf {
    Occurrence,
    Alert,
    Other,
}

impl Id {
    pub(super) fn of(operation: &Operation) -> Self {
        let of = match operation {
            Operation::Occurrence(Occurrence { episode: None, .. }) => IdOf::Occurrence,
            Operation::Occurrence(_) => IdOf::Alert,
            Operation::Repair(_) | Operation::Mark(_) | Operation::Unmark(_) => IdOf::Other,
        };
        Self { of, short: operation.id().digest().short() }
    }

    /// Creates the id of an occurrence or an alert from its 56 bits.
    pub(super) fn of_one(of: IdOf, [a, b, c, d, e, f, g]: [u8; 7]) -> Self {
        Self { of, short: u64::from_be_bytes([0, a, b, c, d, e, f, g]) }
    }
}
