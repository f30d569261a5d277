//! Decides what becomes of writes that are sent again: the store refuses some for good, and some
//! are tried by the replay. A single one shows whether the store has lost them.

use std::mem;

use super::{
    executor::{Execution, Executor, log_refusal},
    held_writes::HeldWrites,
    reported::Source,
};
use crate::{
    counter::call_sizes::fitting,
    domain::{AlertEpisode, AlertState, Occurrence, Operation},
    spool::{Spool, SpoolWrite},
    telemetry,
};

/// Maximum number and size of dead letters that are written with one fsync.
const BURIED_OPERATIONS: usize = 1_000;
const BURIED_BYTES: usize = 256 << 10;

/// The trace of held writes in a store that answers again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trace {
    /// The store has the newest of them.
    Present,
    /// The store had lost the newest of them, and has it again now.
    Lost,
    /// The store did not answer. It may have lost them, and it may have the newest again by now:
    /// only sending all of them makes it certain.
    Unknown,
    /// The store takes no writes yet, or not this one.
    Refused,
}

/// Looks for the newest of the held occurrences in the store: it is sent again, which has no effect
/// where it is still there.
pub(super) async fn trace(executor: &Executor, held: &HeldWrites) -> Trace {
    let newest = |is_sample: fn(&Option<Box<AlertEpisode>>) -> bool| {
        held.writes.iter().rev().map(|write| &write.operation).find(|operation| {
            matches!(operation, Operation::Occurrence(Occurrence { episode, .. })
                if is_sample(episode))
        })
    };
    let is_firing = |episode: &Option<Box<AlertEpisode>>| {
        episode.as_ref().is_some_and(|alert| alert.state == AlertState::Firing)
    };
    let sample = newest(Option::is_none).or_else(|| newest(is_firing));
    let Some(operation) = sample.cloned() else { return Trace::Present };
    let key = operation.key();
    let write = SpoolWrite { operation, maybe_sent: true };
    let executions = executor.execute(&[write], Source::Resend).await;
    match executions[..] {
        [Execution::Applied { is_new: true }] => {}
        [Execution::Applied { is_new: false }] => return Trace::Present,
        [Execution::Rejected { .. } | Execution::RefusedAlone(_)] => return Trace::Refused,
        _ => return Trace::Unknown,
    }
    telemetry::lost_writes(1);
    tracing::error!(
        %key,
        "the store has lost writes while it was unavailable: one that it had acknowledged is gone. \
         The writes of the last `degraded.remember_seconds` before that are sent again; older ones \
         are lost. Was Redis flushed, or restored from an older snapshot?"
    );
    Trace::Lost
}

/// Makes dead letters of writes that the store refuses for good. Returns those that could not
/// be stored.
pub(super) async fn bury(
    executor: &Executor,
    spool: Option<&Spool>,
    refused: Vec<(SpoolWrite, String)>,
) -> Vec<Operation> {
    if refused.is_empty() {
        return Vec::new();
    }
    let count = refused.len();
    for (write, reason) in &refused {
        log_refusal(&write.operation, reason);
    }
    tracing::error!(
        count,
        "{count} acknowledged writes were refused when they were sent again, and are dead \
         letters: see `anomaly-counter spool list`"
    );
    let Some(spool) = spool else { return Vec::new() };
    let (mut refused, mut left) = (refused, Vec::new());
    while !refused.is_empty() {
        // Writes that callers wait for are stored between two pieces.
        let sizes = refused.iter().map(|(write, _)| write.operation.bytes());
        let rest = refused.split_off(fitting(sizes, BURIED_OPERATIONS, BURIED_BYTES));
        let piece = mem::replace(&mut refused, rest);
        let operations: Vec<_> = piece.iter().map(|(write, _)| write.operation.clone()).collect();
        if let Err(error) = spool.bury(piece, executor.clock.now()).await {
            tracing::error!(%error, "dead letters can't be written; they are sent again");
            left.extend(operations);
        }
    }
    telemetry::buried(count - left.len());
    left
}

/// Spools writes that were refused alone: the replay finds out whether they are at fault.
/// Returns those that can't be spooled.
pub(super) async fn spool(executor: &Executor, suspects: Vec<SpoolWrite>) -> Vec<Operation> {
    let mut left = Vec::new();
    let Some(fallback) = executor.fallback.as_ref().filter(|_| !suspects.is_empty()) else {
        return left;
    };
    let results = fallback.accept(executor.clock.now(), suspects.clone()).await;
    for (suspect, result) in suspects.into_iter().zip(results) {
        if let Err(error) = result {
            tracing::warn!(%error, "an acknowledged write can't be spooled; it is sent again");
            left.push(suspect.operation);
        }
    }
    left
}
