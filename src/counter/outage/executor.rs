//! Carries operations out on the store, outside the breaker: what has waited, and what the store may
//! have forgotten. Their ids make it harmless to do so twice.

use std::{collections::BTreeSet, sync::Arc};

use super::{Clock, fallback::Fallback, health::Health};
use crate::{
    domain::{AnomalyKey, FixMark, FixRemoval, Occurrence, Operation, RepairAttempt, Timestamp},
    store::{Shard, Store, StoreError},
};

/// What is carried out at once.
pub(super) const BATCH_OPERATIONS: usize = 256;

/// All that carrying out needs.
#[derive(Clone, Debug)]
pub(super) struct Executor {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) health: Arc<Health>,
    pub(super) fallback: Option<Arc<Fallback>>,
}

/// How one operation ended.
pub(super) enum Execution {
    Applied,
    Rejected(String),
    /// Its part of the store has fallen away; it waits on.
    Deferred,
}

impl Executor {
    pub(super) fn shard(&self, operation: &Operation) -> Shard {
        self.store.shard(operation.key())
    }

    /// Carries out operations of one kind, in order.
    pub(super) async fn execute(&self, run: &[Operation]) -> Vec<Execution> {
        let now = self.clock.now();
        let mut occurrences: Vec<Occurrence> = Vec::new();
        let mut repairs: Vec<RepairAttempt> = Vec::new();
        let mut ends = Vec::new();
        // Where the first has to wait, the others need not find out.
        let mut waiting = BTreeSet::new();
        for operation in run {
            let shard = self.shard(operation);
            if waiting.contains(&shard) {
                ends.push(Execution::Deferred);
                continue;
            }
            match operation {
                Operation::Occurrence(occurrence) => occurrences.push(occurrence.clone()),
                Operation::Repair(attempt) => repairs.push(attempt.clone()),
                Operation::Mark(mark) => ends.push(self.mark(now, mark.clone()).await),
                Operation::Unmark(removal) => ends.push(self.unmark(now, removal.clone()).await),
            }
            if matches!(ends.last(), Some(Execution::Deferred)) {
                waiting.insert(shard);
            }
        }
        if !occurrences.is_empty() {
            let keys: Vec<AnomalyKey> = occurrences.iter().map(|o| o.key).collect();
            let results = self.store.record(now, occurrences).await;
            if let Some(fallback) = &self.fallback {
                fallback.note_recorded(now, keys.iter().copied(), &results);
            }
            ends.extend(keys.iter().zip(results).map(|(key, r)| self.end(now, *key, r.map(Some))));
        }
        if !repairs.is_empty() {
            let keys: Vec<AnomalyKey> = repairs.iter().map(|repair| repair.key).collect();
            let results = self.store.record_repairs(now, repairs).await;
            ends.extend(keys.iter().zip(results).map(|(key, r)| self.end(now, *key, r)));
        }
        ends
    }

    async fn mark(&self, now: Timestamp, mark: FixMark) -> Execution {
        let key = mark.key;
        self.end(now, key, self.store.mark_fixed(now, mark).await)
    }

    async fn unmark(&self, now: Timestamp, removal: FixRemoval) -> Execution {
        let key = removal.key;
        self.end(now, key, self.store.unmark_fixed(now, removal).await)
    }

    fn end<T>(
        &self,
        now: Timestamp,
        key: AnomalyKey,
        result: Result<Option<T>, StoreError>,
    ) -> Execution {
        match result {
            Ok(Some(_)) => Execution::Applied,
            Ok(None) => Execution::Rejected("the anomaly is not known".to_owned()),
            Err(StoreError::Permanent(reason)) => Execution::Rejected(reason),
            Err(fault) => {
                if fault.is_outage() {
                    self.health.begin_outage(now, self.store.shard(key), &fault);
                }
                Execution::Deferred
            }
        }
    }
}
