//! The faults of a store, in the classes by which callers decide what to do next.

use crate::telemetry::Label;

/// Why a store did not answer. The text is for the log, not for clients.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It did not happen; the same call may succeed later.
    #[error("{0}")]
    Transient(String),
    /// It did not happen, because this anomaly is just being moved to another server: the same call
    /// may succeed later, and says nothing about other anomalies.
    #[error("{0}")]
    Moving(String),
    /// It may or may not have happened. The same call with the same id is safe.
    #[error("{0} (it may have taken effect)")]
    Indeterminate(String),
    /// It did not happen, and will not for as long as the data are as they are.
    #[error("{0}")]
    Permanent(String),
}

/// The class of a [`StoreError`], as metrics and traces name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultClass {
    /// As [`StoreError::Transient`].
    Transient,
    /// As [`StoreError::Moving`].
    Moving,
    /// As [`StoreError::Indeterminate`].
    Indeterminate,
    /// As [`StoreError::Permanent`].
    Permanent,
}

impl Label for FaultClass {
    const ALL: &'static [Self] =
        &[Self::Transient, Self::Moving, Self::Indeterminate, Self::Permanent];

    fn value(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Moving => "moving",
            Self::Indeterminate => "indeterminate",
            Self::Permanent => "permanent",
        }
    }
}

impl StoreError {
    /// The class of the fault.
    pub fn class(&self) -> FaultClass {
        match self {
            Self::Transient(_) => FaultClass::Transient,
            Self::Moving(_) => FaultClass::Moving,
            Self::Indeterminate(_) => FaultClass::Indeterminate,
            Self::Permanent(_) => FaultClass::Permanent,
        }
    }

    /// The fault of a shard that is known to be unavailable, and was not called.
    pub fn unavailable() -> Self {
        Self::Transient("the store is unavailable".to_owned())
    }

    /// The fault of a call whose result is missing.
    pub fn no_result() -> Self {
        Self::Indeterminate("no result came back".to_owned())
    }

    /// Whether the same call may succeed later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Transient(_) | Self::Moving(_) | Self::Indeterminate(_) => true,
            Self::Permanent(_) => false,
        }
    }

    /// Whether the shard that returned it is at fault, and not the call.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Transient(_) | Self::Indeterminate(_) => true,
            Self::Moving(_) | Self::Permanent(_) => false,
        }
    }
}
