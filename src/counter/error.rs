//! The faults of the counter, in the terms of its callers.

use super::batching::SubmitError;
use crate::{
    domain::EventId,
    spool::SpoolError,
    store::{FaultClass, StoreError},
};

/// A fault of the service, not of the call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CounterError {
    /// The store does not answer. The call had no effect.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// The disk of this service can't be used. The call had no effect. Clients see the text.
    #[error("{0}")]
    Disk(String),
    /// The store did not answer in time. It is not known whether anything was recorded.
    #[error("the store did not answer in time: {text}")]
    Unanswered {
        /// The error of the store or the spool.
        text: String,
        /// The fault of this service's disk, if that is the reason. Clients see it.
        disk: Option<String>,
    },
    /// The same as [`CounterError::Unanswered`], for an event whose id lets the store recognise a
    /// retry.
    #[error("the store did not answer in time, and the event may have been counted")]
    MayCount {
        /// The event's id, which its caller may not know.
        event_id: EventId,
        /// The fault of this service's disk, as in [`CounterError::Unanswered`].
        disk: Option<String>,
    },
    /// Writes wait for the store, and would bring back the data that is to be forgotten.
    #[error("writes wait for the store")]
    WritesWait,
    /// The queue of calls for the store is full.
    #[error("too many calls are waiting for the store")]
    Overloaded,
    /// The store has reached its maximum number of anomalies. Nothing was recorded; writes of known
    /// anomalies still succeed.
    #[error("{0}")]
    Full(String),
    /// The store can't execute this call while its data are as they are.
    #[error("the store refuses: {0}")]
    Refused(String),
}

impl CounterError {
    /// The result of a call is missing.
    pub(crate) fn no_result() -> Self {
        StoreError::no_result().into()
    }

    /// Returns the same error for the event with this id, which may have reached the store.
    pub(super) fn of_event(self, event_id: &EventId) -> Self {
        match self {
            Self::Unanswered { disk, .. } => Self::MayCount { event_id: event_id.clone(), disk },
            other => other,
        }
    }

    /// Creates the error of a write that the spool has not taken. If `maybe_sent` is set, the store
    /// may have it.
    pub(super) fn of_spooling(
        error: SpoolError,
        event_id: Option<EventId>,
        maybe_sent: bool,
    ) -> Self {
        if !maybe_sent && !matches!(error, SpoolError::Unconfirmed(_)) {
            return error.into();
        }
        let text = error.to_string();
        let disk = match error {
            SpoolError::Unusable(text) | SpoolError::Unconfirmed(text) => Some(text),
            SpoolError::Full | SpoolError::Failed(_) => None,
        };
        match event_id {
            Some(event_id) => Self::MayCount { event_id, disk },
            None => Self::Unanswered { text, disk },
        }
    }
}

impl From<StoreError> for CounterError {
    fn from(fault: StoreError) -> Self {
        let text = fault.to_string();
        match fault.class() {
            FaultClass::Transient | FaultClass::Moving => match fault.for_clients() {
                Some(shown) => Self::Disk(shown.to_owned()),
                None => Self::Unavailable(text),
            },
            FaultClass::Indeterminate => {
                Self::Unanswered { text, disk: fault.for_clients().map(str::to_owned) }
            }
            FaultClass::Full => Self::Full(text),
            FaultClass::Permanent => Self::Refused(text),
        }
    }
}

impl From<SpoolError> for CounterError {
    fn from(fault: SpoolError) -> Self {
        match fault {
            SpoolError::Unusable(text) => Self::Disk(text),
            SpoolError::Unconfirmed(text) => {
                Self::Unanswered { text: text.clone(), disk: Some(text) }
            }
            SpoolError::Full | SpoolError::Failed(_) => Self::Unavailable(fault.to_string()),
        }
    }
}

impl From<SubmitError> for CounterError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Full => Self::Overloaded,
            SubmitError::Cancelled => {
                Self::Unanswered { text: "a batch was aborted".to_owned(), disk: None }
            }
        }
    }
}
