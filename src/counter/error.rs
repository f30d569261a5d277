//! Why the counter could not do as asked, in the terms of its callers.

use super::batcher::SubmitError;
use crate::{spool::SpoolError, store::StoreError};

/// A fault of the service, not of the call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CounterError {
    /// The store does not answer. Nothing was recorded.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// The store did not answer in time. Whether it has recorded is not known.
    #[error("the store did not answer in time: {0}")]
    Unanswered(String),
    /// More calls wait than may.
    #[error("too many calls are waiting for the store")]
    Overloaded,
    /// The store can't do this for as long as its data are as they are.
    #[error("the store refuses: {0}")]
    Refused(String),
}

impl From<StoreError> for CounterError {
    fn from(fault: StoreError) -> Self {
        match fault {
            StoreError::Transient(text) | StoreError::Moving(text) => Self::Unavailable(text),
            StoreError::Indeterminate(text) => Self::Unanswered(text),
            StoreError::Permanent(text) => Self::Refused(text),
        }
    }
}

impl From<SpoolError> for CounterError {
    fn from(fault: SpoolError) -> Self {
        Self::Unavailable(fault.to_string())
    }
}

impl From<SubmitError> for CounterError {
    fn from(no_results: SubmitError) -> Self {
        match no_results {
            SubmitError::Full => Self::Overloaded,
            SubmitError::Cancelled => Self::Unanswered("a batch was cut off".to_owned()),
        }
    }
}
