//! The faults of a store, in the classes by which callers decide what to do next.

use crate::telemetry::Fault;

/// Why a store did not answer. The text is for the log, not for clients.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It did not happen; the same call may succeed later.
    #[error("{0}")]
    Transient(String),
    /// It did not happen, since this anomaly is just being moved to another server: the same call may
    /// succeed later, and says nothing about other anomalies.
    #[error("{0}")]
    Moving(String),
    /// It may or may not have happened. The same call with the same id is safe.
    #[error("{0} (it may have taken effect)")]
    Indeterminate(String),
    /// It did not happen, and will not for as long as the data are as they are.
    #[error("{0}")]
    Permanent(String),
}

impl StoreError {
    /// Its class, as metrics name it.
    pub fn class(&self) -> Fault {
        match self {
            Self::Transient(_) => Fault::Transient,
            Self::Moving(_) => Fault::Moving,
            Self::Indeterminate(_) => Fault::Indeterminate,
            Self::Permanent(_) => Fault::Permanent,
        }
    }

    /// That of a part of the store which is known to be away.
    pub fn away() -> Self {
        Self::Transient("the store is away".to_owned())
    }

    /// Whether the same call may succeed later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Transient(_) | Self::Moving(_) | Self::Indeterminate(_) => true,
            Self::Permanent(_) => false,
        }
    }

    /// Whether the part of the store that gave it is at fault, and not the call.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Transient(_) | Self::Indeterminate(_) => true,
            Self::Moving(_) | Self::Permanent(_) => false,
        }
    }
}
