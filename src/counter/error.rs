//! The faults of the counter, in the terms of its callers.

use super::batching::SubmitError;
use crate::{
    spool::SpoolError,
    store::{FaultClass, StoreError},
};

/// A fault of the service, not of the call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CounterError {
    /// The store does not answer. Nothing was recorded.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// The store did not answer in time. It is not known whether anything was recorded.
    #[error("the store did not answer in time: {0}")]
    Unanswered(String),
    /// The queue of calls for the store is full.
    #[error("too many calls are waiting for the store")]
    Overloaded,
    /// The store holds as many anomalies as it may. Nothing was recorded; known anomalies go on.
    #[error("{0}")]
    Full(String),
    /// The store can't do this for as long as its data are as they are.
    #[error("the store refuses: {0}")]
    Refused(String),
}

impl CounterError {
    /// The result of a call is missing.
    pub(super) fn no_result() -> Self {
        StoreError::no_result().into()
    }
}

impl From<StoreError> for CounterError {
    fn from(fault: StoreError) -> Self {
        let text = fault.to_string();
        match fault.class() {
            FaultClass::Transient | FaultClass::Moving => Self::Unavailable(text),
            FaultClass::Full => Self::Full(text),
            FaultClass::Indeterminate => Self::Unanswered(text),
            FaultClass::Permanent => Self::Refused(text),
        }
    }
}

impl From<SpoolError> for CounterError {
    fn from(fault: SpoolError) -> Self {
        Self::Unavailable(fault.to_string())
    }
}

impl From<SubmitError> for CounterError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Full => Self::Overloaded,
            SubmitError::Cancelled => Self::Unanswered("a batch was aborted".to_owned()),
        }
    }
}
