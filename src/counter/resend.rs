//! Sends acknowledged writes again that the store may have forgotten, once it answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    mem,
    sync::Arc,
};

use tokio::sync::watch;

use super::{
    carrier::{BATCH_OPERATIONS, Carrier, End},
    recent::Recent,
};
use crate::{
    domain::{Operation, Timestamp},
    store::Shard,
};

/// The acknowledged writes of late, and which of them are to be sent again.
#[derive(Debug)]
pub(super) struct Resend {
    recent: Arc<Recent>,
    /// Grows when the store may have forgotten what is in `recent`.
    resets: watch::Receiver<u64>,
    /// The last writes of the parts of the store that are away, as of when they fell away: while those
    /// are gone, the writes of the others push them out of `recent`.
    kept: BTreeMap<Shard, Kept>,
    /// What is to be sent now.
    due: Vec<Operation>,
}

#[derive(Debug)]
struct Kept {
    operations: Vec<Operation>,
    /// Whether the store may have forgotten them.
    are_due: bool,
}

impl Resend {
    pub(super) fn new(recent: Arc<Recent>, resets: watch::Receiver<u64>) -> Self {
        Self { recent, resets, kept: BTreeMap::new(), due: Vec::new() }
    }

    pub(super) fn recent(&self) -> Arc<Recent> {
        Arc::clone(&self.recent)
    }

    pub(super) fn remember(&self, now: Timestamp, acknowledged: Operation) {
        self.recent.remember(now, std::iter::once(acknowledged));
    }

    /// Is done when the store may have forgotten something that was not noted yet.
    pub(super) async fn reset(&mut self) {
        if self.resets.changed().await.is_err() {
            // There is no store any more.
            pending::<()>().await;
        }
        self.resets.mark_changed();
    }

    /// Takes note of what is away, and of what was and is no more. Says whether the store may have
    /// forgotten something.
    pub(super) fn note(
        &mut self,
        carrier: &Carrier,
        away: &BTreeSet<Shard>,
        still_away: &BTreeSet<Shard>,
    ) -> bool {
        let has_forgotten = self.resets.has_changed().unwrap_or(false);
        self.resets.mark_unchanged();
        for shard in away {
            self.kept.entry(*shard).or_insert_with(|| {
                let mut operations = self.recent.all();
                operations.retain(|operation| carrier.shard(operation) == *shard);
                Kept { operations, are_due: false }
            });
        }
        for (shard, mut kept) in mem::take(&mut self.kept) {
            kept.are_due |= has_forgotten;
            if still_away.contains(&shard) {
                self.kept.insert(shard, kept);
            } else if kept.are_due {
                self.due.append(&mut kept.operations);
            }
        }
        if has_forgotten {
            let recent = self.recent.all().into_iter();
            self.due.extend(recent.filter(|o| !still_away.contains(&carrier.shard(o))));
        }
        has_forgotten
    }

    /// Sends what is due, and answers which parts of the store have failed at it.
    pub(super) async fn send(&mut self, carrier: &Carrier) -> BTreeSet<Shard> {
        let due = mem::take(&mut self.due);
        let mut failed = BTreeSet::new();
        for batch in due.chunks(BATCH_OPERATIONS) {
            for run in batch.chunk_by(|a, b| a.kind() == b.kind()) {
                let run: Vec<Operation> =
                    run.iter().filter(|o| !failed.contains(&carrier.shard(o))).cloned().collect();
                let ends = carrier.carry_out(&run).await;
                let waiting = run.iter().zip(ends).filter(|(_, end)| matches!(end, End::Waits));
                failed.extend(waiting.map(|(operation, _)| carrier.shard(operation)));
            }
        }
        let count = due.len();
        // All that is about them, since what has gone through may be forgotten by the same fault.
        for operation in due {
            let shard = carrier.shard(&operation);
            if failed.contains(&shard) {
                let nothing = || Kept { operations: Vec::new(), are_due: true };
                let kept = self.kept.entry(shard).or_insert_with(nothing);
                kept.are_due = true;
                kept.operations.push(operation);
            }
        }
        if count > 0 {
            tracing::debug!(count, "{count} acknowledged writes were sent again");
        }
        failed
    }
}
