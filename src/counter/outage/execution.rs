//! The outcome of an executed write.

use super::{applying::Applied, reported::Source};
use crate::{
    domain::{Occurrence, Operation, RETENTION},
    store::{RecordOutcome, StoreError},
};

/// The reason of a write that only an operator can decide.
const UNRECOGNISABLE: &str = "it may have been counted before, and its id is not stored any more: \
                              a retry counts it in any case, so drop it if it was counted";

/// The outcome of one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Execution {
    Applied {
        /// False if it was applied before.
        is_new: bool,
    },
    /// It was not applied, and never will be without an operator.
    Rejected {
        reason: String,
        /// True if it counts when an operator retries it, even if it may have counted before.
        retry_counts: bool,
    },
    /// Its shard does not answer. It continues to wait.
    Deferred {
        /// True if it may have taken effect.
        maybe_sent: bool,
    },
    /// Its anomaly is being moved, or an earlier write of the anomaly waits. It continues to wait.
    /// Says nothing about its shard.
    Held {
        /// True if it may have taken effect.
        maybe_sent: bool,
    },
    /// The store has refused a call with only this write, although it takes others or answers
    /// probes. It continues to wait.
    RefusedAlone(StoreError),
    /// It was not tried alone, because its shard has refused so many others. It continues to wait.
    NotTried {
        /// True if it may have taken effect.
        maybe_sent: bool,
    },
}

pub(super) fn rejected(reason: impl Into<String>) -> Execution {
    Execution::Rejected { reason: reason.into(), retry_counts: false }
}

/// Returns the outcome of an operation that the store has answered.
pub(super) fn execution(source: Source, operation: &Operation, applied: &Applied) -> Execution {
    match applied {
        Applied::Yes { is_new } => Execution::Applied { is_new: *is_new },
        Applied::UnknownAnomaly => rejected("the anomaly is not known"),
        Applied::Recorded(outcome) => match outcome {
            RecordOutcome::Counted => Execution::Applied { is_new: true },
            RecordOutcome::Duplicate
            | RecordOutcome::Ongoing
            | RecordOutcome::SameIncident
            | RecordOutcome::Resolved
            | RecordOutcome::Stale => Execution::Applied { is_new: false },
            // The event was counted, and would have left every window since; or it was never to be
            // counted.
            RecordOutcome::TooOld if source == Source::Resend || was_too_old(operation) => {
                Execution::Applied { is_new: false }
            }
            RecordOutcome::TooOld => rejected("it became older than 30 days while it waited"),
            RecordOutcome::Unrecognisable => {
                Execution::Rejected { reason: UNRECOGNISABLE.to_owned(), retry_counts: true }
            }
        },
    }
}

/// Returns true for an alert that was older than 30 days when it was delivered.
fn was_too_old(operation: &Operation) -> bool {
    let Operation::Occurrence(Occurrence { at, episode: Some(alert), .. }) = operation else {
        return false;
    };
    *at < RETENTION.start(alert.delivered_at)
}
