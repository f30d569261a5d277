//! Resends acknowledged writes that the store may have forgotten, once it answers again.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    mem,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::{
    config::DegradedConfig,
    executor::{BATCH_OPERATIONS, Execution, Executor},
    resend_buffer::ResendBuffer,
};
use crate::{
    domain::{Operation, Timestamp},
    store::{Resets, Shard, Store},
    telemetry,
};

/// Interval of looking for stragglers: writes that were acknowledged just before their shard became
/// unavailable, and whose answer came just after that was noticed.
const STRAGGLER_INTERVAL: Duration = Duration::from_secs(1);

/// The last acknowledged writes, and those of them that are to be sent again.
#[derive(Debug)]
pub(crate) struct Resender {
    buffer: Arc<ResendBuffer>,
    /// Changes when the store may have forgotten writes of `buffer`.
    resets: watch::Receiver<Resets>,
    resets_seen: Resets,
    /// The last writes of the shards that are unavailable, taken from `buffer`: writes of other
    /// shards would push them out of it.
    held: BTreeMap<Shard, HeldWrites>,
    held_at: Instant,
    /// The writes to be sent now.
    due: Vec<(Timestamp, Operation)>,
}

#[derive(Debug, Default)]
struct HeldWrites {
    operations: Vec<(Timestamp, Operation)>,
    /// Whether the store may have forgotten them.
    are_due: bool,
}

impl Resender {
    /// Returns `None` where the store forgets no write.
    pub(crate) fn new(store: &dyn Store, config: DegradedConfig) -> Option<Self> {
        let mut resets = store.resets()?;
        let resets_seen = *resets.borrow_and_update();
        let buffer = ResendBuffer::new(config.remember_seconds, config.remember_operations);
        Some(Self {
            buffer: Arc::new(buffer),
            resets,
            resets_seen,
            held: BTreeMap::new(),
            held_at: Instant::now(),
            due: Vec::new(),
        })
    }

    pub(crate) fn buffer(&self) -> Arc<ResendBuffer> {
        Arc::clone(&self.buffer)
    }

    pub(crate) fn push(&self, now: Timestamp, acknowledged: Operation) {
        self.buffer.push(now, std::iter::once(acknowledged));
    }

    /// Completes when the store may have forgotten writes since the last update.
    pub(crate) async fn reset(&mut self) {
        if *self.resets.borrow_and_update() == self.resets_seen
            && self.resets.changed().await.is_err()
        {
            // The store is closed.
            pending::<()>().await;
        }
    }

    /// Holds the writes of shards that are unavailable, and releases those of shards that are not
    /// any more. Returns whether the store may have forgotten writes.
    pub(crate) fn update(
        &mut self,
        executor: &Executor,
        unavailable: &BTreeSet<Shard>,
        still_unavailable: &BTreeSet<Shard>,
    ) -> bool {
        let resets = *self.resets.borrow_and_update();
        let has_forgotten = mem::replace(&mut self.resets_seen, resets) != resets;
        self.hold(executor, unavailable);
        for (shard, mut held) in mem::take(&mut self.held) {
            held.are_due |= has_forgotten;
            if still_unavailable.contains(&shard) {
                self.held.insert(shard, held);
            } else if held.are_due {
                self.due.append(&mut held.operations);
            } else {
                self.buffer.put_back(held.operations.into_iter());
            }
        }
        if has_forgotten {
            self.due.extend(self.buffer.take(|o| !still_unavailable.contains(&executor.shard(o))));
        }
        has_forgotten
    }

    fn hold(&mut self, executor: &Executor, unavailable: &BTreeSet<Shard>) {
        let is_new = unavailable.iter().any(|shard| !self.held.contains_key(shard));
        if unavailable.is_empty() || !is_new && self.held_at.elapsed() < STRAGGLER_INTERVAL {
            return;
        }
        self.held_at = Instant::now();
        for shard in unavailable {
            self.held.entry(*shard).or_default();
        }
        for taken in self.buffer.take(|operation| unavailable.contains(&executor.shard(operation)))
        {
            // Slots may have moved since.
            self.held.entry(executor.shard(&taken.1)).or_default().operations.push(taken);
        }
    }

    /// Sends the writes that are due, and returns the shards that have failed.
    pub(crate) async fn send(&mut self, executor: &Executor) -> BTreeSet<Shard> {
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
                for (operation, execution) in run.iter().zip(executor.execute(&run).await) {
                    match execution {
                        Execution::Applied => {}
                        Execution::Deferred => {
                            failed.insert(executor.shard(operation));
                        }
                        Execution::Rejected(reason) => {
                            let (kind, key) = (operation.kind(), operation.key());
                            tracing::error!(
                                %key,
                                reason,
                                "the store refuses a {kind} of anomaly {key} that it has forgotten"
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
                // All of them, because a shard that fails may forget those that it has applied.
                let held = self.held.entry(shard).or_default();
                held.are_due = true;
                held.operations.push((acknowledged_at, operation));
            } else {
                sent.push((acknowledged_at, operation));
            }
        }
        // With the time of the first acknowledgement: one sent repeatedly would never expire.
        self.buffer.put_back(sent.into_iter());
        failed
    }
}
