//! Sends acknowledged writes again that the store may have forgotten, once it answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    mem,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::{
    executor::{BATCH_OPERATIONS, Execution, Executor},
    recent::ResendBuffer,
};
use crate::{
    domain::{Operation, Timestamp},
    store::Shard,
    telemetry,
};

/// How often it is looked for writes that were acknowledged just before their part of the store fell
/// away, and whose answer came just after it was noticed.
const STRAGGLER_INTERVAL: Duration = Duration::from_secs(1);

/// The acknowledged writes of late, and which of them are to be sent again.
#[derive(Debug)]
pub(super) struct Resender {
    recent: Arc<ResendBuffer>,
    /// Changes when the store may have forgotten what is in `recent`.
    resets: watch::Receiver<u64>,
    resets_seen: u64,
    /// The last writes of the parts of the store that are away, taken out of `recent`: the writes of
    /// the others would push them out of there.
    kept: BTreeMap<Shard, HeldWrites>,
    kept_at: Instant,
    /// What is to be sent now.
    due: Vec<(Timestamp, Operation)>,
}

#[derive(Debug, Default)]
struct HeldWrites {
    operations: Vec<(Timestamp, Operation)>,
    /// Whether the store may have forgotten them.
    are_due: bool,
}

impl Resender {
    pub(super) fn new(recent: Arc<ResendBuffer>, mut resets: watch::Receiver<u64>) -> Self {
        let resets_seen = *resets.borrow_and_update();
        let (kept, due) = (BTreeMap::new(), Vec::new());
        Self { recent, resets, resets_seen, kept, kept_at: Instant::now(), due }
    }

    pub(super) fn recent(&self) -> Arc<ResendBuffer> {
        Arc::clone(&self.recent)
    }

    pub(super) fn remember(&self, now: Timestamp, acknowledged: Operation) {
        self.recent.remember(now, std::iter::once(acknowledged));
    }

    /// Is done when the store may have forgotten something that was not noted yet.
    pub(super) async fn reset(&mut self) {
        if *self.resets.borrow_and_update() == self.resets_seen
            && self.resets.changed().await.is_err()
        {
            // There is no store any more.
            pending::<()>().await;
        }
    }

    /// Takes note of what is away, and of what was and is no more. Says whether the store may have
    /// forgotten something.
    pub(super) fn note(
        &mut self,
        executor: &Executor,
        away: &BTreeSet<Shard>,
        still_away: &BTreeSet<Shard>,
    ) -> bool {
        let resets = *self.resets.borrow_and_update();
        let has_forgotten = mem::replace(&mut self.resets_seen, resets) != resets;
        self.keep(executor, away);
        for (shard, mut kept) in mem::take(&mut self.kept) {
            kept.are_due |= has_forgotten;
            if still_away.contains(&shard) {
                self.kept.insert(shard, kept);
            } else if kept.are_due {
                self.due.append(&mut kept.operations);
            } else {
                self.recent.put_back(kept.operations.into_iter());
            }
        }
        if has_forgotten {
            self.due.extend(self.recent.take(|o| !still_away.contains(&executor.shard(o))));
        }
        has_forgotten
    }

    fn keep(&mut self, executor: &Executor, away: &BTreeSet<Shard>) {
        let is_new = away.iter().any(|shard| !self.kept.contains_key(shard));
        if away.is_empty() || !is_new && self.kept_at.elapsed() < STRAGGLER_INTERVAL {
            return;
        }
        self.kept_at = Instant::now();
        for shard in away {
            self.kept.entry(*shard).or_default();
        }
        for taken in self.recent.take(|operation| away.contains(&executor.shard(operation))) {
            // Slots may have moved since.
            self.kept.entry(executor.shard(&taken.1)).or_default().operations.push(taken);
        }
    }

    /// Sends what is due, and answers which parts of the store have failed at it.
    pub(super) async fn send(&mut self, executor: &Executor) -> BTreeSet<Shard> {
        let due = mem::take(&mut self.due);
        if due.is_empty() {
            return BTreeSet::new();
        }
        let mut failed = BTreeSet::new();
        for batch in due.chunks(BATCH_OPERATIONS) {
            for run in batch.chunk_by(|(_, a), (_, b)| a.kind() == b.kind()) {
                let run: Vec<Operation> = run
                    .iter()
                    .map(|(_, o)| o)
                    .filter(|o| !failed.contains(&executor.shard(o)))
                    .cloned()
                    .collect();
                for (operation, end) in run.iter().zip(executor.execute(&run).await) {
                    match end {
                        Execution::Applied => {}
                        Execution::Deferred => {
                            failed.insert(executor.shard(operation));
                        }
                        Execution::Rejected(reason) => {
                            let (kind, key) = (operation.kind(), operation.key());
                            tracing::error!(
                                %key,
                                reason,
                                "the store has forgotten a {kind} of anomaly {key} and refuses it now"
                            );
                        }
                    }
                }
            }
        }
        let count = due.len();
        telemetry::resent(count);
        tracing::debug!(count, "{count} acknowledged writes were sent again");
        let mut sent = Vec::new();
        for (acknowledged_at, operation) in due {
            let shard = executor.shard(&operation);
            if failed.contains(&shard) {
                // All of them, since what has gone through may be forgotten by the same fault.
                let kept = self.kept.entry(shard).or_default();
                kept.are_due = true;
                kept.operations.push((acknowledged_at, operation));
            } else {
                sent.push((acknowledged_at, operation));
            }
        }
        // By their first time: one sent again and again would be remembered for ever.
        self.recent.put_back(sent.into_iter());
        failed
    }
}
