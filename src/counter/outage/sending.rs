//! Sends acknowledged writes again, batch by batch, and notes the outcome of each.

use std::collections::{BTreeSet, HashSet};

use super::{
    executor::{BATCH_OPERATIONS, Execution, Executor},
    held_writes::HeldWrite,
    reported::Source,
};
use crate::{
    counter::call_sizes::{MAX_CALL_BYTES, fitting},
    domain::AnomalyKey,
    spool::SpoolWrite,
    store::Shard,
};

/// The shards that have answered writes that were sent again, and the shards that have not.
#[derive(Debug, Default)]
pub(crate) struct Resent {
    pub(crate) answered: BTreeSet<Shard>,
    pub(crate) failed: BTreeSet<Shard>,
}

/// A resend in progress.
pub(crate) struct Sending<'a> {
    executor: &'a Executor,
    /// Returns true if the process ends. Writes that are not sent yet are left to the next process.
    is_closing: &'a (dyn Fn() -> bool + Sync),
    pub(crate) resent: Resent,
    /// Number of writes that were applied.
    pub(crate) count: usize,
    /// Number of writes among them that the store had lost.
    pub(crate) lost: usize,
    /// Writes that the store refuses for good, with the reasons.
    pub(crate) refused: Vec<(SpoolWrite, String)>,
    /// Writes whose call was refused with nothing else in it, and writes of the same anomalies that
    /// wait behind them.
    pub(crate) suspects: Vec<SpoolWrite>,
    suspected: HashSet<AnomalyKey>,
}

impl<'a> Sending<'a> {
    pub(crate) fn begin(executor: &'a Executor, is_closing: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Self {
            executor,
            is_closing,
            resent: Resent::default(),
            count: 0,
            lost: 0,
            refused: Vec::new(),
            suspects: Vec::new(),
            suspected: HashSet::new(),
        }
    }

    /// Sends writes, unless their shard has failed. Returns the writes that the store may forget
    /// again. While they are held, one that it had forgotten is as new as any other, and one that
    /// it still had keeps its time.
    pub(crate) async fn send(&mut self, mut due: Vec<HeldWrite>) -> Vec<HeldWrite> {
        let mut are_kept = Vec::with_capacity(due.len());
        for mut run in due.chunk_by_mut(|a, b| a.operation.kind() == b.operation.kind()) {
            while !run.is_empty() {
                let sizes = run.iter().map(|write| write.operation.bytes());
                let length = fitting(sizes, BATCH_OPERATIONS, MAX_CALL_BYTES);
                let (batch, others) = run.split_at_mut(length);
                are_kept.extend(self.send_batch(batch).await);
                run = others;
            }
        }
        let mut are_kept = are_kept.into_iter();
        due.retain(|_| are_kept.next().unwrap_or(true));
        due
    }

    /// Sends a batch. Returns for each write whether the store may forget it again.
    async fn send_batch(&mut self, batch: &mut [HeldWrite]) -> Vec<bool> {
        if (self.is_closing)() {
            let shards = batch.iter().map(|write| self.executor.shard(&write.operation));
            self.resent.failed.extend(shards);
        }
        let now = self.executor.clock.now();
        let mut are_kept = vec![true; batch.len()];
        let (mut sent, mut writes) = (Vec::new(), Vec::new());
        for (held, is_kept) in batch.iter_mut().zip(&mut are_kept) {
            if self.suspected.contains(&held.operation.key()) {
                // The write before it waits in the spool, and must not be overtaken.
                let operation = held.operation.clone();
                self.suspects.push(SpoolWrite { operation, maybe_sent: true });
                *is_kept = false;
            } else if !self.resent.failed.contains(&self.executor.shard(&held.operation)) {
                let operation = held.operation.clone();
                writes.push(SpoolWrite { operation, maybe_sent: true });
                sent.push((held, is_kept));
            }
        }
        let executions = self.executor.execute(&writes, Source::Resend).await;
        for ((write, (held, is_kept)), execution) in writes.into_iter().zip(sent).zip(executions) {
            if matches!(execution, Execution::Applied { is_new: true }) {
                held.acknowledged_at = now;
            }
            *is_kept = self.note(write, execution);
        }
        are_kept
    }

    /// Notes the outcome of a write. Returns true if the store may forget it again.
    fn note(&mut self, write: SpoolWrite, execution: Execution) -> bool {
        let key = write.operation.key();
        let shard = self.executor.shard(&write.operation);
        let Resent { answered, failed } = &mut self.resent;
        match execution {
            Execution::Applied { is_new } => {
                answered.insert(shard);
                self.count += 1;
                self.lost += usize::from(is_new);
                true
            }
            // It is too large to be sent in time, its anomaly is being moved, or it is at fault.
            // The replay finds out which, and the others continue.
            Execution::RefusedAlone(_) | Execution::Held { .. } => {
                self.suspected.insert(key);
                self.suspects.push(write);
                false
            }
            Execution::Deferred { .. } if self.suspected.contains(&key) => {
                self.suspects.push(write);
                false
            }
            Execution::Deferred { .. } | Execution::NotTried { .. } => {
                failed.insert(shard);
                true
            }
            Execution::Rejected { reason, retry_counts } => {
                answered.insert(shard);
                let maybe_sent = write.maybe_sent && !retry_counts;
                self.refused.push((SpoolWrite { maybe_sent, ..write }, reason));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{super::refusing_store::RefusingStore, *};
    use crate::{
        counter::clock::SystemClock,
        domain::{EventId, Occurrence, Operation},
    };

    fn writes() -> Vec<HeldWrite> {
        let at = SystemClock.now();
        let write = |number: usize| {
            let (key, id) = (AnomalyKey::from_bits(7), EventId::parse(&number.to_string()));
            let id = id.unwrap();
            let signature_json = "{}".into();
            let occurrence = Occurrence { key, id, at, signature_json, episode: None, rule: None };
            HeldWrite::new((at, Operation::Occurrence(occurrence)))
        };
        (0..3).map(write).collect()
    }

    #[tokio::test]
    async fn nothing_more_is_sent_once_the_process_ends() {
        let store = Arc::new(RefusingStore::default());
        let executor = store.executor();
        let mut sending = Sending::begin(&executor, &|| true);
        assert_eq!(sending.send(writes()).await.len(), 3, "they are left to the next process");
        assert!(sending.resent.failed.contains(&Shard::default()));
        assert!(!executor.health.is_unavailable(Shard::default()));
    }

    #[tokio::test]
    async fn what_is_refused_for_good_is_not_sent_again() {
        let executor = Arc::new(RefusingStore::default()).executor();
        let mut sending = Sending::begin(&executor, &|| false);
        // The store recognises none of them.
        assert_eq!(sending.send(writes()).await, []);
        let flags: Vec<bool> = sending.refused.iter().map(|(write, _)| write.maybe_sent).collect();
        assert_eq!(flags, [false; 3], "a retry counts them");
    }
}
