//! What stands by while the store does not answer: writes go to the durable spool, and answers come
//! from what was last known plus what waits.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    batcher::{BatchConfig, Batcher, Capacity, SubmitError},
    error::CounterError,
    known::StaleCache,
    pending::Pending,
};
use crate::{
    domain::{AnomalyKey, AnomalyStats, Operation, PermanentFix, RepairHistory, Timestamp},
    spool::{Spool, SpoolError, Spooled},
    store::{AnomalyDetails, Recorded, StoreError},
    telemetry,
    traces::Parent,
};

/// How many operations are appended to the spool with one fsync.
const APPENDED_OPERATIONS: usize = 1_000;

/// The spool, and what is in memory beside it.
#[derive(Debug)]
pub(super) struct Fallback {
    spool: Spool,
    /// Appends that come together share one commit.
    appends: Batcher<Operation, Result<(), SpoolError>>,
    memory: Mutex<Memory>,
    /// How many operations wait. Read by every write of a healthy day, without the lock.
    waiting: AtomicUsize,
    /// Wakes the replay.
    filled: Notify,
}

#[derive(Debug)]
pub(super) struct Memory {
    pub(super) pending: Pending,
    pub(super) known: StaleCache,
}

/// A tally made of what was last known and what waits.
#[derive(Clone, Debug)]
pub(super) struct Estimate {
    /// When the store's part of it was current; `None` where nothing was known.
    pub(super) as_of: Option<Timestamp>,
    pub(super) stats: AnomalyStats,
}

/// An operation that waits durably.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    /// False when its id waits already.
    pub(super) is_first: bool,
    pub(super) previous_count_24h: u64,
    pub(super) estimate: Estimate,
}

impl Memory {
    /// What can be said of an anomaly; `None` where nothing is known of it.
    fn estimate(&mut self, key: AnomalyKey, now: Timestamp) -> Option<Estimate> {
        let known = self.known.get(key);
        if known.is_none() && !self.pending.holds(key) {
            return None;
        }
        let as_of = known.map(|known| known.as_of);
        let mut stats = known.map(|known| known.stats.clone()).unwrap_or_default();
        self.pending.add_to(key, now, &mut stats);
        Some(Estimate { as_of, stats })
    }
}

impl Fallback {
    pub(super) fn new(
        spool: Spool,
        pending: Pending,
        known_anomalies: NonZeroUsize,
        batch: BatchConfig,
    ) -> Self {
        let capacity = Capacity { items: APPENDED_OPERATIONS, batches: 1 };
        let appends = Batcher::new(batch, capacity, {
            let spool = spool.clone();
            Arc::new(move |_, operations: Vec<Operation>, _| {
                let spool = spool.clone();
                Box::pin(async move {
                    let count = operations.len();
                    vec![spool.append(operations).await; count]
                })
            })
        });
        let waiting = AtomicUsize::new(pending.operations());
        let memory = Mutex::new(Memory { pending, known: StaleCache::new(known_anomalies) });
        Self { spool, appends, memory, waiting, filled: Notify::new() }
    }

    /// Makes operations wait. Each that is answered `Ok` is on disk.
    pub(super) async fn accept(
        &self,
        now: Timestamp,
        operations: Vec<Operation>,
    ) -> Vec<Result<Accepted, CounterError>> {
        // In memory first, so that from here on whatever is about the same anomaly queues behind.
        let accepted: Vec<Accepted> = {
            let mut memory = self.memory.lock();
            let reserved = operations.iter().map(|o| reserve(&mut memory, now, o)).collect();
            self.count(&memory);
            reserved
        };
        let appended = self.appends.submit(now, operations.clone(), Parent::default()).await;
        self.filled.notify_one();
        let results = appended.unwrap_or_else(|no_results| {
            let error = match no_results {
                SubmitError::Full => SpoolError::Full,
                SubmitError::Cancelled => SpoolError::Failed("an append was cut off".to_owned()),
            };
            vec![Err(error); operations.len()]
        });
        let mut memory = self.memory.lock();
        let settled: Vec<_> = operations
            .iter()
            .zip(accepted)
            .zip(results)
            .map(|((operation, accepted), result)| match result {
                Ok(()) => Ok(accepted),
                Err(error) => {
                    memory.pending.remove(operation);
                    Err(error.into())
                }
            })
            .collect();
        self.count(&memory);
        drop(memory);
        telemetry::spooled(settled.iter().filter(|result| result.is_ok()).count());
        settled
    }

    pub(super) fn estimate(&self, key: AnomalyKey, now: Timestamp) -> Option<Estimate> {
        self.memory.lock().estimate(key, now)
    }

    /// All that can be said of an anomaly; `None` where nothing is known of it.
    pub(super) fn details(
        &self,
        key: AnomalyKey,
        now: Timestamp,
    ) -> Option<(Option<Timestamp>, AnomalyDetails)> {
        let mut memory = self.memory.lock();
        let Estimate { as_of, stats } = memory.estimate(key, now)?;
        let known = memory.known.get(key).and_then(|known| known.details.clone());
        let mut details = known.unwrap_or_default();
        memory.pending.add_repairs(key, &mut details.repairs);
        // The total is known even where the attempts are not.
        details.repairs.total = stats.repair_attempts;
        details.fix = memory.pending.fix_after(key, details.fix);
        if details.fix.is_none() {
            let marked = |marked_at| PermanentFix { description: None, fixed_by: None, marked_at };
            details.fix = stats.fixed_at.map(marked);
        }
        details.stats = stats;
        Some((as_of, details))
    }

    /// The repairs as they are when all that waits has been carried out.
    pub(super) fn repairs(&self, key: AnomalyKey, now: Timestamp) -> RepairHistory {
        self.details(key, now).map(|(_, details)| details.repairs).unwrap_or_default()
    }

    /// Adds what waits to what the store has just told.
    pub(super) fn add_waiting(&self, key: AnomalyKey, now: Timestamp, stats: &mut AnomalyStats) {
        self.memory.lock().pending.add_to(key, now, stats);
    }

    /// Whether anything about this anomaly waits.
    pub(super) fn holds(&self, key: AnomalyKey) -> bool {
        self.waiting.load(Ordering::Acquire) > 0 && self.memory.lock().pending.holds(key)
    }

    /// Takes note of what has come of occurrences, each of the anomaly beside it.
    pub(super) fn note_recorded(
        &self,
        as_of: Timestamp,
        keys: impl Iterator<Item = AnomalyKey>,
        results: &[Result<Recorded, StoreError>],
    ) {
        let mut memory = self.memory.lock();
        for (key, result) in keys.zip(results) {
            if let Ok(recorded) = result {
                memory.known.note(key, as_of, &recorded.stats);
            }
        }
    }

    pub(super) fn note_stats(&self, key: AnomalyKey, as_of: Timestamp, stats: &AnomalyStats) {
        self.memory.lock().known.note(key, as_of, stats);
    }

    pub(super) fn note_details(&self, key: AnomalyKey, as_of: Timestamp, details: &AnomalyDetails) {
        self.memory.lock().known.note_details(key, as_of, details);
    }

    pub(super) fn note_repairs(&self, key: AnomalyKey, history: &RepairHistory) {
        self.memory.lock().known.note_repairs(key, history);
    }

    /// How much waits: operations, bytes, and since when there has been anything.
    pub(super) fn depth(&self) -> (usize, u64, Option<Timestamp>) {
        let memory = self.memory.lock();
        (memory.pending.operations(), self.spool.bytes(), memory.pending.since())
    }

    pub(super) fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Is done when something has been made to wait since the last time.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Puts a dead letter back among what waits, and says whether there was one of this sequence.
    pub(super) async fn revive_dead(
        &self,
        now: Timestamp,
        sequence: u64,
    ) -> Result<bool, SpoolError> {
        let letters = self.spool.dead_letters().await?;
        let letter = letters.into_iter().find(|letter| letter.sequence == sequence);
        let Some(operation) = letter.and_then(|letter| letter.operation) else {
            return Ok(false);
        };
        // In memory first, as in `accept`.
        self.change_pending(|pending| pending.add(now, &operation));
        let revived = self.spool.revive_dead(sequence).await;
        if !matches!(revived, Ok(true)) {
            self.change_pending(|pending| pending.remove(&operation));
        }
        self.filled.notify_one();
        revived
    }

    fn change_pending<R>(&self, change: impl FnOnce(&mut Pending) -> R) -> R {
        let mut memory = self.memory.lock();
        let result = change(&mut memory.pending);
        self.count(&memory);
        result
    }

    /// Takes operations out of memory that wait no longer on disk.
    pub(super) fn forget(&self, settled: &[Spooled]) {
        self.change_pending(|pending| {
            for spooled in settled {
                pending.remove(&spooled.operation);
            }
        });
    }

    fn count(&self, memory: &Memory) {
        self.waiting.store(memory.pending.operations(), Ordering::Release);
    }
}

fn reserve(memory: &mut Memory, now: Timestamp, operation: &Operation) -> Accepted {
    let key = operation.key();
    let before = memory.estimate(key, now);
    let previous_count_24h = before.map_or(0, |estimate| estimate.stats.counts.day);
    let is_first = memory.pending.add(now, operation);
    // It waits, so something is known of it.
    let nothing = || Estimate { as_of: None, stats: AnomalyStats::default() };
    let estimate = memory.estimate(key, now).unwrap_or_else(nothing);
    Accepted { is_first, previous_count_24h, estimate }
}
