//! Probes a store that does not answer, and carries out what has waited once it does: in order, in
//! batches, at a bounded pace. Whatever it was doing when the process died it does again, and the
//! ids make that harmless.

use std::{future::pending, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{Clock, DegradedConfig, health::Health, recent::Recent, standby::Standby};
use crate::{
    domain::{AnomalyKey, FixMark, FixRemoval, Occurrence, Operation, RepairAttempt, Timestamp},
    spool::SpoolError,
    store::{Store, StoreError},
};

/// What is carried out at once.
const BATCH_OPERATIONS: usize = 256;
/// How often a long replay tells of its progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Everything that probing and replaying need.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) store: Arc<dyn Store>,
    /// Grows when the store may have forgotten what is in `recent`.
    pub(super) resets: Option<watch::Receiver<u64>>,
    pub(super) recent: Option<Arc<Recent>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) health: Arc<Health>,
    pub(super) standby: Option<Arc<Standby>>,
    pub(super) config: DegradedConfig,
}

/// How one operation ended.
enum End {
    Done,
    Refused(String),
    /// The store has fallen away; it waits on.
    Waits,
}

impl Replay {
    /// Runs for as long as the service does.
    pub(super) async fn run(mut self) {
        let probe_interval = Duration::from_millis(self.config.probe_interval_ms.get());
        let mut told_at = Instant::now();
        loop {
            self.probe().await;
            // What the store may have forgotten comes before what it has never been told.
            self.send_recent_again().await;
            let began_at = Instant::now();
            let carried_out = self.replay_batch().await;
            let waiting = self.standby.as_ref().map_or(0, |standby| standby.depth().0);
            if waiting == 0 {
                self.health.settle(self.clock.now());
            } else {
                self.health.begin_replay(self.clock.now());
            }
            if carried_out > 0 && told_at.elapsed() > PROGRESS_INTERVAL {
                told_at = Instant::now();
                tracing::info!(waiting, "replaying: {waiting} operations wait");
            }
            if waiting == 0 && self.health.away().is_empty() {
                self.something_to_do().await;
            } else if carried_out == 0 {
                sleep(probe_interval).await;
            } else {
                // A store that has just come back is not to be knocked over.
                let pace = f64::from(self.config.replay_per_second.get());
                sleep_until(began_at + Duration::from_secs_f64(carried_out as f64 / pace)).await;
            }
        }
    }

    async fn something_to_do(&mut self) {
        let filled = async {
            match &self.standby {
                Some(standby) => standby.filled().await,
                None => pending().await,
            }
        };
        let reset = async {
            if let Some(resets) = &mut self.resets
                && resets.changed().await.is_ok()
            {
                resets.mark_changed();
            } else {
                // There is no store that could forget, or it is no more.
                pending().await
            }
        };
        tokio::select! {
            () = filled => {}
            () = reset => {}
            () = self.health.fell_away() => {}
        }
    }

    /// Sends the last acknowledged writes again where the store may have forgotten them.
    async fn send_recent_again(&mut self) {
        let (Some(resets), Some(recent)) = (&mut self.resets, &self.recent) else { return };
        if !resets.has_changed().unwrap_or(false) || !self.health.away().is_empty() {
            return;
        }
        resets.mark_unchanged();
        let operations = recent.all();
        let count = operations.len();
        for batch in operations.chunks(BATCH_OPERATIONS) {
            for run in batch.chunk_by(|a, b| a.kind() == b.kind()) {
                self.carry_out(run).await;
                if !self.health.away().is_empty() {
                    // It is away again: all of them are sent again when it is back.
                    if let Some(resets) = &mut self.resets {
                        resets.mark_changed();
                    }
                    return;
                }
            }
        }
        tracing::debug!(count, "{count} acknowledged writes were sent again");
    }

    async fn probe(&self) {
        for shard in self.health.away() {
            if self.store.check(shard).await.is_ok() {
                self.health.end_outage(shard);
            }
        }
    }

    /// Carries out the oldest of what waits, and answers how many are settled.
    async fn replay_batch(&self) -> usize {
        let Some(standby) = &self.standby else { return 0 };
        let oldest = match standby.spool().waiting(0, BATCH_OPERATIONS).await {
            Ok(oldest) => oldest,
            Err(error) => return spool_failed(&error),
        };
        let mut settled = Vec::new();
        let (mut done, mut refused) = (Vec::new(), Vec::new());
        let runs = oldest.chunk_by(|a, b| a.operation.kind() == b.operation.kind());
        for run in runs {
            let operations: Vec<Operation> = run.iter().map(|s| s.operation.clone()).collect();
            for (spooled, end) in run.iter().zip(self.carry_out(&operations).await) {
                match end {
                    End::Done => done.push(spooled.sequence),
                    End::Refused(reason) => {
                        let (kind, key) = (spooled.operation.kind(), spooled.operation.key());
                        tracing::error!(%key, reason, "the store refuses a {kind} of anomaly {key}");
                        refused.push((spooled.sequence, reason));
                    }
                    End::Waits => continue,
                }
                settled.push(spooled.clone());
            }
            if !self.health.away().is_empty() {
                break;
            }
        }
        if settled.is_empty() {
            return 0;
        }
        match standby.spool().settle(done, refused).await {
            Ok(()) => {
                standby.forget(&settled);
                settled.len()
            }
            // They are carried out again, which changes nothing.
            Err(error) => spool_failed(&error),
        }
    }

    /// Carries out operations of one kind, in order.
    async fn carry_out(&self, run: &[Operation]) -> Vec<End> {
        let now = self.clock.now();
        let mut occurrences: Vec<Occurrence> = Vec::new();
        let mut repairs: Vec<RepairAttempt> = Vec::new();
        let mut ends = Vec::new();
        for operation in run {
            match operation {
                Operation::Occurrence(occurrence) => occurrences.push(occurrence.clone()),
                Operation::Repair(attempt) => repairs.push(attempt.clone()),
                Operation::Mark(mark) => ends.push(self.mark(now, mark.clone()).await),
                Operation::Unmark(removal) => ends.push(self.unmark(now, removal.clone()).await),
            }
        }
        if !occurrences.is_empty() {
            let keys: Vec<AnomalyKey> = occurrences.iter().map(|o| o.key).collect();
            let results = self.store.record(now, occurrences).await;
            if let Some(standby) = &self.standby {
                let recorded = keys.iter().zip(&results);
                standby.note_recorded(
                    now,
                    recorded.filter_map(|(key, r)| Some((*key, r.as_ref().ok()?))),
                );
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

    async fn mark(&self, now: Timestamp, mark: FixMark) -> End {
        let key = mark.key;
        self.end(now, key, self.store.mark_fixed(now, mark).await)
    }

    async fn unmark(&self, now: Timestamp, removal: FixRemoval) -> End {
        let key = removal.key;
        self.end(now, key, self.store.unmark_fixed(now, removal).await)
    }

    fn end<T>(
        &self,
        now: Timestamp,
        key: AnomalyKey,
        result: Result<Option<T>, StoreError>,
    ) -> End {
        match result {
            Ok(Some(_)) => End::Done,
            Ok(None) => End::Refused("the anomaly is not known".to_owned()),
            Err(StoreError::Permanent(reason)) => End::Refused(reason),
            Err(fault @ (StoreError::Transient(_) | StoreError::Indeterminate(_))) => {
                self.health.begin_outage(now, self.store.shard(key), &fault);
                End::Waits
            }
        }
    }
}

fn spool_failed(error: &SpoolError) -> usize {
    tracing::error!(%error, "the spool can't be replayed; it is tried again");
    0
}
