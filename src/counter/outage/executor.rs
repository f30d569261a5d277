//! Executes operations on the store, past the breaker: those that have waited, and those that the
//! store may have forgotten. Their ids make a second execution harmless.

use std::{collections::BTreeSet, sync::Arc};

use super::fallback::Fallback;
use crate::{
    counter::{
        clock::Clock,
        health::{Health, Observation},
    },
    domain::{AnomalyKey, Occurrence, Operation, RepairAttempt, Timestamp},
    store::{Shard, Store, StoreError},
};

/// Maximum number of operations that are executed at once.
pub(crate) const BATCH_OPERATIONS: usize = 256;

/// Executes operations.
#[derive(Clone, Debug)]
pub(crate) struct Executor {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) health: Arc<Health>,
    pub(crate) fallback: Option<Arc<Fallback>>,
}

/// The outcome of one operation.
#[derive(Debug)]
pub(crate) enum Execution {
    Applied,
    /// The store has refused it for good, for this reason.
    Rejected(String),
    /// Its shard does not answer, or its anomaly is being moved; it waits on.
    Deferred,
}

impl Executor {
    pub(crate) fn shard(&self, operation: &Operation) -> Shard {
        self.store.shard(operation.key())
    }

    /// Executes operations of one kind, in order.
    pub(crate) async fn execute(&self, run: &[Operation]) -> Vec<Execution> {
        let now = self.clock.now();
        let mut occurrences: Vec<Occurrence> = Vec::new();
        let mut repairs: Vec<RepairAttempt> = Vec::new();
        let mut executions = Vec::new();
        // Once one has to wait, the others of its shard need not run into the same fault.
        let mut deferred = BTreeSet::new();
        for operation in run {
            let shard = self.shard(operation);
            if deferred.contains(&shard) {
                executions.push(Execution::Deferred);
                continue;
            }
            let key = operation.key();
            match operation {
                Operation::Occurrence(occurrence) => occurrences.push(occurrence.clone()),
                Operation::Repair(attempt) => repairs.push(attempt.clone()),
                Operation::Mark(mark) => {
                    let result = self.store.mark_fixed(now, mark.clone()).await;
                    executions.push(self.execution(now, key, result));
                }
                Operation::Unmark(removal) => {
                    let result = self.store.unmark_fixed(now, removal.clone()).await;
                    executions.push(self.execution(now, key, result));
                }
            }
            if matches!(executions.last(), Some(Execution::Deferred)) {
                deferred.insert(shard);
            }
        }
        if !occurrences.is_empty() {
            let keys: Vec<AnomalyKey> = occurrences.iter().map(|o| o.key).collect();
            let results = self.store.record(now, occurrences).await;
            if let Some(fallback) = &self.fallback {
                fallback.update_recorded(now, keys.iter().copied(), &results);
            }
            let results = keys.iter().zip(results);
            executions.extend(results.map(|(key, r)| self.execution(now, *key, r.map(Some))));
        }
        if !repairs.is_empty() {
            let keys: Vec<AnomalyKey> = repairs.iter().map(|repair| repair.key).collect();
            let results = self.store.record_repairs(now, repairs).await;
            let results = keys.iter().zip(results);
            executions.extend(results.map(|(key, r)| self.execution(now, *key, r)));
        }
        executions
    }

    fn execution<T>(
        &self,
        now: Timestamp,
        key: AnomalyKey,
        result: Result<Option<T>, StoreError>,
    ) -> Execution {
        match result {
            Ok(Some(_)) => Execution::Applied,
            Ok(None) => Execution::Rejected("the anomaly is not known".to_owned()),
            Err(fault) if !fault.is_temporary() => Execution::Rejected(fault.to_string()),
            Err(fault) => {
                let shard = self.store.shard(key);
                self.health.observe(now, shard, Observation::WriteFault(&fault));
                Execution::Deferred
            }
        }
    }
}
