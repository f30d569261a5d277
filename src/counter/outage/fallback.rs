//! The fallback while the store does not answer: writes go to the durable spool, and answers are
//! estimated from the last known state and the operations that wait.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::sleep};

use super::{
    append::{AppendError, LateOutcome, SpoolAppend},
    config::DegradedConfig,
    lost_writes::LostWrites,
    memory::{Accepted, Estimate, Memory},
    pending::Pending,
    reported::{Reported, Source},
    stale_cache::{CallTimes, Fall, StaleCache},
};
use crate::{
    counter::{
        batching::{BatchConfig, Batcher, Capacity},
        news::News,
    },
    domain::{
        AnomalyKey, AnomalyStats, Moment, Occurrence, Operation, PermanentFix, RepairHistory,
        Thresholds, Timestamp,
    },
    spool::{CallError, Spool, SpoolConfig, SpoolError, SpoolOpenError, SpoolWrite, Spooled},
    store::{AnomalyDetails, Recorded, StoreError},
    telemetry,
    traces::Parent,
};

/// Maximum number of operations that are appended to the spool with one fsync.
const APPENDED_OPERATIONS: usize = 1_000;
/// Maximum number and size of dead letters that are put back with one fsync.
const REVIVED_LETTERS: usize = 256;
const REVIVED_BYTES: usize = 1 << 20;
/// Pause before the file is asked again which letters are dead.
const REVIVAL_RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The spool, with its operations and the last known state of anomalies in memory.
#[derive(Debug)]
pub(crate) struct Fallback {
    spool: Spool,
    /// Concurrent appends share one commit.
    appends: Batcher<SpoolAppend>,
    memory: Mutex<Memory>,
    /// Number of operations that wait. Every write reads it without the lock while the store is
    /// healthy.
    waiting: AtomicUsize,
    /// Wakes the replay.
    filled: Notify,
    lost_writes: LostWrites,
    /// The hour in which dead letters were last dropped because of their age.
    expired_in_hour: AtomicI64,
}

/// The operations that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolDepth {
    /// Number of operations.
    pub operations: usize,
    /// Bytes of their records.
    pub bytes: u64,
    /// Time since the spool was last empty, in seconds.
    pub age_seconds: i64,
}

impl Fallback {
    /// Opens the spool in `dir`. Must be called within a runtime; blocks while it reads the spool.
    ///
    /// # Errors
    /// When the spool can't be opened.
    pub(crate) fn open(
        dir: &Path,
        now: Timestamp,
        (spool, write_timeout): (SpoolConfig, Duration),
        batch: BatchConfig,
        degraded: DegradedConfig,
    ) -> Result<Self, SpoolOpenError> {
        let (mut pending, mut is_any_sent) = (Pending::default(), false);
        let spool = Spool::open(dir, spool, write_timeout, now, |spooled| {
            pending.add(now, &spooled.operation);
            is_any_sent |= spooled.maybe_sent;
        })?;
        if is_any_sent {
            pending.mark_all_uncertain();
        }
        let capacity = Capacity { items: APPENDED_OPERATIONS, batches: 1 };
        let appends = Batcher::new(batch, capacity, SpoolAppend(spool.clone()));
        let waiting = AtomicUsize::new(pending.operations());
        let stale = StaleCache::new(degraded.known_anomalies, degraded.known_bytes);
        let reported = Reported::new(degraded.known_anomalies);
        let memory = Mutex::new(Memory::new(pending, stale, reported));
        // Nothing has expired before the horizon of a process's first minutes.
        let expired_in_hour = AtomicI64::new(Timestamp::MIN.as_micros() / 3_600_000_000);
        Ok(Self {
            spool,
            appends,
            memory,
            waiting,
            filled: Notify::new(),
            lost_writes: LostWrites::default(),
            expired_in_hour,
        })
    }

    /// Writes operations to the spool. Each that is answered `Ok` is on disk. One whose append has
    /// not ended in time keeps its place in the order until it is known whether it is.
    pub(crate) async fn accept(
        self: &Arc<Self>,
        now: Timestamp,
        writes: Vec<SpoolWrite>,
    ) -> Vec<Result<Accepted, SpoolError>> {
        // In memory first, so that from here on other writes of the same anomalies queue behind.
        let accepted: Vec<Accepted> = {
            let mut memory = self.memory.lock();
            let reserved = writes.iter().map(|write| memory.reserve(now, write)).collect();
            self.update_waiting(&memory);
            reserved
        };
        let appended = self.appends.submit(now.into(), writes.clone(), Parent::default()).await;
        self.filled.notify_one();
        let results = appended.unwrap_or_else(|error| vec![Err(error.into()); writes.len()]);
        let mut late = Vec::new();
        let mut memory = self.memory.lock();
        let settled: Vec<_> = writes
            .iter()
            .zip(accepted)
            .zip(results)
            .map(|((write, accepted), result)| match result {
                Ok(()) => Ok(accepted),
                Err(AppendError::Failed(error)) => {
                    memory.pending.remove(&write.operation);
                    Err(error)
                }
                Err(AppendError::Late(error, outcome)) => {
                    late.push((write.operation.clone(), outcome));
                    Err(error)
                }
            })
            .collect();
        self.update_waiting(&memory);
        drop(memory);
        telemetry::spooled(settled.iter().filter(|result| result.is_ok()).count());
        if !late.is_empty() {
            tokio::spawn(Arc::clone(self).end_late(late));
        }
        settled
    }

    /// Takes operations that do not wait after all out of memory, once that is known.
    async fn end_late(self: Arc<Self>, late: Vec<(Operation, LateOutcome)>) {
        for (operation, outcome) in late {
            match outcome.await {
                Ok(()) => telemetry::spooled(1),
                Err(_) => self.change_pending(|pending| pending.remove(&operation)),
            }
        }
        self.filled.notify_one();
    }

    /// Returns an estimate for an anomaly; `None` where nothing is known of it.
    pub(crate) fn estimate(&self, key: AnomalyKey, now: Timestamp) -> Option<Estimate> {
        self.memory.lock().estimate(key, now)
    }

    /// Returns the details of an anomaly as estimated, and when their last known part was current;
    /// `None` where nothing is known of it.
    pub(crate) fn details(
        &self,
        key: AnomalyKey,
        now: Timestamp,
    ) -> Option<(Option<Timestamp>, AnomalyDetails)> {
        let mut memory = self.memory.lock();
        let Estimate { as_of, stats } = memory.estimate(key, now)?;
        let stale = memory.stale.get(key).and_then(|entry| entry.details.as_deref().cloned());
        let mut details = stale.unwrap_or_default();
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

    /// Returns the repairs as they are once everything that waits is applied.
    pub(crate) fn repairs(&self, key: AnomalyKey, now: Timestamp) -> RepairHistory {
        self.details(key, now).map(|(_, details)| details.repairs).unwrap_or_default()
    }

    /// Adds the operations that wait to the stats that the store has just returned, and counts
    /// nothing twice.
    pub(crate) fn with_waiting(
        &self,
        key: AnomalyKey,
        now: Timestamp,
        returned: Option<AnomalyStats>,
    ) -> AnomalyStats {
        self.memory.lock().with_waiting(key, now, returned)
    }

    /// Adds the operations that wait to the details that the store has just returned; `None` where
    /// the last known ones say more.
    pub(crate) fn details_with_waiting(
        &self,
        key: AnomalyKey,
        now: Timestamp,
        mut returned: AnomalyDetails,
    ) -> Option<AnomalyDetails> {
        let mut memory = self.memory.lock();
        if !memory.pending.is_uncertain(key) {
            return None;
        }
        returned.stats = memory.with_waiting(key, now, Some(returned.stats));
        returned.repairs.total = returned.stats.repair_attempts;
        returned.fix = memory.pending.fix_after(key, returned.fix);
        Some(returned)
    }

    /// Notes that operations of these anomalies are being applied.
    pub(crate) fn begin_applying(&self, keys: impl Iterator<Item = AnomalyKey>) {
        let mut memory = self.memory.lock();
        keys.for_each(|key| memory.pending.mark_uncertain(key));
    }

    /// Returns whether an operation of this anomaly waits.
    pub(crate) fn holds(&self, key: AnomalyKey) -> bool {
        self.waiting() > 0 && self.memory.lock().pending.holds(key)
    }

    /// Updates the last known stats by the results of occurrences, whose anomalies are `keys`.
    pub(crate) fn update_recorded(
        &self,
        times: CallTimes,
        keys: impl Iterator<Item = AnomalyKey>,
        results: &[Result<Recorded, StoreError>],
    ) {
        let mut falls = Vec::new();
        let mut memory = self.memory.lock();
        for (key, result) in keys.zip(results) {
            let Ok(Recorded { stats, .. }) = result else { continue };
            falls.extend(memory.update_written(key, times, stats).map(|fall| (key, fall)));
        }
        drop(memory);
        self.lost_writes.note(times.arrived_at, &falls);
    }

    /// Updates the last known stats of an anomaly; `None` if the store does not know it.
    pub(crate) fn update_stats(
        &self,
        key: AnomalyKey,
        times: CallTimes,
        stats: Option<&AnomalyStats>,
    ) {
        let mut memory = self.memory.lock();
        if memory.pending.is_uncertain(key) {
            return;
        }
        let fall = match stats {
            Some(stats) => memory.stale.update_stats(key, times, stats),
            None => memory.stale.note_unknown(key, times),
        };
        drop(memory);
        self.note_fall(key, times, fall);
    }

    /// Updates the last known details of an anomaly; `None` if the store does not know it.
    pub(crate) fn update_details(
        &self,
        key: AnomalyKey,
        times: CallTimes,
        details: Option<&AnomalyDetails>,
    ) {
        let mut memory = self.memory.lock();
        if memory.pending.is_uncertain(key) {
            return;
        }
        let fall = match details {
            Some(details) => memory.stale.update_details(key, times, details),
            None => memory.stale.note_unknown(key, times),
        };
        drop(memory);
        self.note_fall(key, times, fall);
    }

    fn note_fall(&self, key: AnomalyKey, times: CallTimes, fall: Option<Fall>) {
        if let Some(fall) = fall {
            self.lost_writes.note(times.arrived_at, &[(key, fall)]);
        }
    }

    /// Reports what was lost, and drops dead letters that are too old, once an hour. To
    /// be called about once a second.
    pub(crate) async fn maintain(&self, moment: Moment) {
        self.lost_writes.report(moment.now);
        self.spool.maintain();
        let hour = moment.horizon.as_micros() / 3_600_000_000;
        if self.expired_in_hour.swap(hour, Ordering::Relaxed) != hour
            && let Err(error) = self.spool.expire_letters(moment.horizon).await
        {
            tracing::warn!(%error, "dead letters that are too old can't be dropped");
        }
    }

    pub(crate) fn lost_writes(&self) -> &LostWrites {
        &self.lost_writes
    }

    /// Notes news that an estimate has reported.
    pub(crate) fn note_reported(&self, occurrence: &Occurrence, news: News) {
        if news != News::default() {
            self.memory.lock().reported.note(occurrence, news);
        }
    }

    /// Reports the news of occurrences that were applied again, unless they were reported before.
    /// To be called before the last known stats are updated.
    pub(crate) fn report_news(
        &self,
        source: Source,
        thresholds: Thresholds,
        occurrences: &[Occurrence],
        results: &[Result<Recorded, StoreError>],
    ) {
        let mut all_news = Vec::new();
        let mut memory = self.memory.lock();
        let Memory { stale, reported, .. } = &mut *memory;
        for (occurrence, result) in occurrences.iter().zip(results) {
            let Ok(recorded) = result else { continue };
            let known = stale.get(occurrence.key).map(|entry| &entry.stats);
            let news = reported.judge(source, thresholds, occurrence, known, recorded);
            if news != News::default() {
                all_news.push((news, occurrence, &recorded.stats));
            }
        }
        drop(memory);
        for (news, occurrence, stats) in all_news {
            news.report(occurrence, stats);
        }
    }

    /// Forgets what is known of an anomaly.
    pub(crate) fn forget(&self, key: AnomalyKey) {
        let mut memory = self.memory.lock();
        memory.stale.remove(key);
        memory.reported.remove(key);
    }

    /// Forgets what was reported, because the outage is over.
    pub(crate) fn end_outage(&self) {
        self.memory.lock().reported.clear();
    }

    pub(crate) fn update_repairs(&self, key: AnomalyKey, history: &RepairHistory) {
        self.memory.lock().stale.update_repairs(key, history);
    }

    /// Number of operations that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    pub(crate) fn depth(&self, now: Timestamp) -> SpoolDepth {
        let memory = self.memory.lock();
        // A clock that was set back makes no age negative.
        let age_seconds = |since: Timestamp| (now.as_micros() - since.as_micros()) / 1_000_000;
        SpoolDepth {
            operations: memory.pending.operations(),
            bytes: self.spool.bytes(),
            age_seconds: memory.pending.since().map_or(0, age_seconds).max(0),
        }
    }

    pub(crate) fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Completes when operations were written to the spool since the last time.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Puts the dead letter of a sequence back into the spool, or all of them. Returns how many
    /// there were.
    pub(crate) async fn revive_dead(
        self: &Arc<Self>,
        now: Timestamp,
        only: Option<u64>,
    ) -> Result<usize, SpoolError> {
        let (mut next, limit) = only.map_or((0, REVIVED_LETTERS), |sequence| (sequence, 1));
        let last = match only {
            Some(sequence) => sequence,
            // Those that die again meanwhile come later.
            None => self.spool.last_dead_letter().await?.unwrap_or_default(),
        };
        let mut revived = 0;
        while next <= last {
            let letters = self.spool.dead_letters(next, limit, REVIVED_BYTES).await?;
            let Some(newest) = letters.last() else { break };
            next = newest.sequence + 1;
            let letters = letters.into_iter().filter(|letter| letter.sequence <= last);
            let (sequences, operations): (Vec<u64>, Vec<Operation>) =
                letters.filter_map(|letter| Some((letter.sequence, letter.operation?))).unzip();
            // In memory first, as in `accept`.
            self.change_pending(|pending| {
                for operation in &operations {
                    pending.add(now, operation);
                }
            });
            let result = match self.spool.revive_dead(sequences.clone()).await {
                Err(CallError::Failed(error)) => Err(error),
                // What has waited for it waits on: its caller no longer does.
                Err(CallError::Late(late)) => late.result().await,
                Ok(revived) => Ok(revived),
            };
            let letters = sequences.into_iter().zip(operations).collect::<Vec<_>>();
            match &result {
                Ok(found) => self.remove_unless(&letters, |sequence| found.contains(&sequence)),
                Err(SpoolError::Unconfirmed(_)) => {
                    tokio::spawn(Arc::clone(self).end_revival(letters));
                }
                Err(_) => self.remove_unless(&letters, |_| false),
            }
            self.filled.notify_one();
            revived += result?.len();
        }
        Ok(revived)
    }

    /// Takes letters that are dead all the same out of memory, once the file says which.
    pub(super) async fn end_revival(self: Arc<Self>, letters: Vec<(u64, Operation)>) {
        let sequences: Vec<u64> = letters.iter().map(|(sequence, _)| *sequence).collect();
        let dead = loop {
            match self.spool.still_dead(sequences.clone()).await {
                Ok(dead) => break dead,
                Err(_) => sleep(REVIVAL_RETRY_PAUSE).await,
            }
        };
        self.remove_unless(&letters, |sequence| !dead.contains(&sequence));
        self.filled.notify_one();
    }

    /// Takes letters out of memory, except for those that wait.
    fn remove_unless(&self, letters: &[(u64, Operation)], waits: impl Fn(u64) -> bool) {
        self.change_pending(|pending| {
            for (_, operation) in letters.iter().filter(|(sequence, _)| !waits(*sequence)) {
                pending.remove(operation);
            }
        });
    }

    fn change_pending<R>(&self, change: impl FnOnce(&mut Pending) -> R) -> R {
        let mut memory = self.memory.lock();
        let result = change(&mut memory.pending);
        self.update_waiting(&memory);
        result
    }

    /// Removes operations from memory that the spool has no longer, and takes over the stats that
    /// the store has returned for them.
    pub(crate) fn remove_settled(&self, now: Timestamp, settled: &[Spooled]) {
        let mut memory = self.memory.lock();
        let mut falls = Vec::new();
        for spooled in settled {
            let key = spooled.operation.key();
            falls.extend(memory.remove_settled(spooled).map(|fall| (key, fall)));
        }
        self.update_waiting(&memory);
        drop(memory);
        self.lost_writes.note(now, &falls);
    }

    fn update_waiting(&self, memory: &Memory) {
        self.waiting.store(memory.pending.operations(), Ordering::Release);
    }
}
