//! The fallback while the store does not answer: writes go to the durable spool, and answers are
//! estimates from the last known state and the waiting operations.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    append::{AppendError, LateOutcome, SpoolAppend},
    config::DegradedConfig,
    lost_writes::LostWrites,
    memory::{Accepted, Estimate, Memory, signature_of},
    pending::Pending,
    reported::{Reported, Source},
    stale_cache::StaleCache,
    stale_entry::{CallTimes, Fall, Seen, StaleEntry},
};
use crate::{
    catalogue::{Catalogue, Estimates},
    counter::{
        batching::{BatchConfig, Batcher, Capacity, Few},
        judging::judge_recorded,
        news::News,
    },
    domain::{
        AnomalyKey, AnomalyStats, KnownDetails, KnownMark, KnownStats, Moment, Occurrence,
        Operation, PermanentFix, RepairHistory, RuleRef, Timestamp,
    },
    spool::{Spool, SpoolConfig, SpoolError, SpoolOpenError, SpoolWrite, Spooled},
    store::{AnomalyDetails, Recorded, StoreError, StoredRow},
    telemetry,
    traces::Parent,
};

/// Maximum number of estimates that are made under one lock.
const ESTIMATES_AT_ONCE: usize = 500;
/// Maximum number of anomalies whose reported news are remembered in an outage, some 100 bytes
/// each.
const REPORTED_ANOMALIES: usize = 100_000;
/// Maximum number of operations that are appended to the spool with one fsync.
const APPENDED_OPERATIONS: usize = 1_000;

/// The spool, with its operations and the last known state of anomalies in memory.
#[derive(Debug)]
pub(crate) struct Fallback {
    spool: Spool,
    /// Concurrent appends share one commit.
    appends: Batcher<SpoolAppend>,
    memory: Mutex<Memory>,
    /// Number of waiting operations. While the store is healthy, every write reads only this
    /// number, without the lock.
    waiting: AtomicUsize,
    /// Wakes the replay.
    filled: Notify,
    lost_writes: LostWrites,
    /// The hour in which expired dead letters were last dropped.
    expired_in_hour: AtomicI64,
}

/// The operations that wait in the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolDepth {
    /// Number of operations.
    pub operations: usize,
    /// Size of their records in bytes.
    pub bytes: u64,
    /// Time since the spool was last empty, in seconds.
    pub age_seconds: i64,
}

impl Fallback {
    /// Opens the spool in `dir`. Must be called within a runtime. Blocks while it reads the spool.
    ///
    /// # Errors
    /// Fails if the spool can't be opened.
    pub(crate) fn open(
        dir: &Path,
        now: Timestamp,
        (spool, write_timeout): (SpoolConfig, Duration),
        batch: BatchConfig,
        degraded: DegradedConfig,
        catalogue: Arc<Catalogue>,
    ) -> Result<Self, SpoolOpenError> {
        let mut pending = Pending::default();
        let spool = Spool::open(dir, spool, write_timeout, now, |spooled| {
            pending.add(now, &spooled.operation, true);
            if let Operation::Occurrence(occurrence) = &spooled.operation {
                catalogue.note_waiting(occurrence.key, || signature_of(occurrence));
            }
            if spooled.maybe_sent {
                pending.mark_sent(&spooled.operation);
            }
        })?;
        let capacity = Capacity { items: APPENDED_OPERATIONS, batches: 1 };
        let appends = Batcher::new(batch, capacity, SpoolAppend(spool.clone()));
        let waiting = AtomicUsize::new(pending.operations());
        let stale = StaleCache::new(degraded.known_bytes);
        let reported = Reported::new(REPORTED_ANOMALIES);
        let memory = Mutex::new(Memory::new(pending, stale, reported, catalogue));
        // In the first minutes of a process, the horizon is not known, and nothing has expired.
        let expired_in_hour = AtomicI64::new(Timestamp::MIN.as_micros() / 3_600_000_000);
        Ok(Self {
            spool,
            appends,
            memory,
            waiting,
            filled: Notify::new(),
            lost_writes: LostWrites::new(degraded.remember_seconds),
            expired_in_hour,
        })
    }

    /// Writes operations to the spool. An operation that is answered `Ok` is on disk. An operation
    /// whose append has not ended in time keeps its position until it is known whether it is on
    /// disk.
    pub(crate) async fn accept(
        self: &Arc<Self>,
        now: Timestamp,
        writes: Vec<SpoolWrite>,
    ) -> Vec<Result<Accepted, SpoolError>> {
        // Added to memory first, so that from here on other writes of the same anomalies queue
        // behind them.
        let accepted: Vec<Accepted> = {
            let mut memory = self.memory.lock();
            let reserved = writes.iter().map(|write| memory.reserve(now, write)).collect();
            self.update_waiting(&memory);
            reserved
        };
        let items = writes.clone().into();
        let appended = self.appends.submit(now.into(), items, Parent::default()).await;
        self.wake_replay();
        let results =
            appended.map_or_else(|error| vec![Err(error.into()); writes.len()], Few::into_vec);
        let mut late = Vec::new();
        let mut memory = self.memory.lock();
        let settled: Vec<_> = writes
            .iter()
            .zip(accepted)
            .zip(results)
            .map(|((write, accepted), result)| match result {
                Ok(()) => Ok(accepted),
                Err(AppendError::Failed(error)) => {
                    memory.remove(&write.operation);
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

    /// Removes operations from memory that do not wait after all, when that becomes known.
    async fn end_late(self: Arc<Self>, late: Vec<(Operation, LateOutcome)>) {
        for (operation, outcome) in late {
            match outcome.await {
                Ok(()) => telemetry::spooled(1),
                Err(_) => self.change(|memory| {
                    memory.remove(&operation);
                }),
            }
        }
        self.wake_replay();
    }

    /// Returns an estimate for an anomaly; `None` if nothing is known about its occurrences.
    pub(crate) fn estimate(
        &self,
        key: AnomalyKey,
        now: Timestamp,
        rule: &RuleRef,
    ) -> Option<Estimate> {
        self.memory.lock().estimate(key, now, rule.extra_windows())
    }

    /// Returns the object of the anomaly's first post, if it was seen.
    pub(crate) fn signature_json(&self, key: AnomalyKey) -> Option<String> {
        self.memory.lock().stale.get(key)?.details().1.signature_json
    }

    /// Returns estimates for all anomalies with waiting operations. Holds the lock only for some
    /// hundred anomalies at a time.
    pub(crate) fn estimates(&self, now: Timestamp) -> Estimates {
        let mut estimates = Estimates::new();
        let mut after = None;
        while self.waiting() > 0 {
            let mut memory = self.memory.lock();
            let keys = memory.pending.keys_after(after, ESTIMATES_AT_ONCE);
            let Some(last) = keys.last() else { break };
            after = Some(*last);
            for key in keys {
                let rule = memory.catalogue.rule(key);
                let estimate = memory.estimate(key, now, rule.extra_windows());
                if let Some(Estimate { as_of, stats }) = estimate {
                    estimates.insert(key, (as_of, stats));
                }
            }
        }
        estimates
    }

    /// Returns an estimate for an anomaly with the known details; `None` if nothing is known about
    /// its occurrences.
    pub(crate) fn details(
        &self,
        key: AnomalyKey,
        now: Timestamp,
        rule: &RuleRef,
    ) -> Option<(Estimate, KnownDetails)> {
        let mut memory = self.memory.lock();
        let mut estimate = memory.estimate(key, now, rule.extra_windows())?;
        let (as_of, mut details) =
            memory.stale.get(key).map(StaleEntry::details).unwrap_or_default();
        memory.complete(key, &mut details, &mut estimate.stats);
        estimate.as_of = [estimate.as_of, as_of].into_iter().flatten().min();
        Some((estimate, details))
    }

    /// Returns the repairs as they will be after all waiting operations are applied; `None` if the
    /// repairs in the store were not seen.
    pub(crate) fn repairs(&self, key: AnomalyKey, now: Timestamp) -> Option<Seen<RepairHistory>> {
        self.memory.lock().repairs(key, now)
    }

    /// Returns the mark as it will be after all waiting operations are applied.
    pub(crate) fn mark(&self, key: AnomalyKey, now: Timestamp) -> KnownMark {
        self.memory.lock().known(key, now, &[]).stats.mark
    }

    /// Adds the waiting operations to the stats that the store has just returned; `None` if the
    /// store knows none, and no occurrence waits. Nothing is counted twice.
    pub(crate) fn with_waiting(
        &self,
        key: AnomalyKey,
        now: Timestamp,
        rule: &RuleRef,
        returned: Option<AnomalyStats>,
    ) -> Option<KnownStats> {
        self.memory.lock().with_waiting(key, now, rule.extra_windows(), returned)
    }

    /// Returns true if a waiting occurrence makes an anomaly known.
    pub(crate) fn is_known(&self, key: AnomalyKey, now: Timestamp) -> bool {
        self.memory.lock().with_waiting(key, now, &[], None).is_some()
    }

    /// Adds the waiting operations to the details that the store has just returned; `None` as in
    /// [`Fallback::with_waiting`].
    pub(crate) fn details_with_waiting(
        &self,
        key: AnomalyKey,
        now: Timestamp,
        rule: &RuleRef,
        returned: Option<AnomalyDetails>,
    ) -> Option<(KnownStats, KnownDetails)> {
        let mut memory = self.memory.lock();
        let stats = returned.as_ref().map(|details| details.stats.clone());
        let mut stats = memory.with_waiting(key, now, rule.extra_windows(), stats)?;
        let mut details = KnownDetails::from(returned.unwrap_or_default());
        memory.complete(key, &mut details, &mut stats);
        Some((stats, details))
    }

    /// Notes that these operations are being applied.
    pub(crate) fn begin_applying<'a>(&self, operations: impl Iterator<Item = &'a Operation>) {
        let mut memory = self.memory.lock();
        operations.for_each(|operation| memory.pending.mark_sent(operation));
    }

    /// Returns true if an operation of this anomaly waits.
    pub(crate) fn holds(&self, key: AnomalyKey) -> bool {
        self.waiting() > 0 && self.memory.lock().pending.holds(key)
    }

    /// Updates the last known stats from the results of occurrences.
    pub(crate) fn update_recorded<'a>(
        &self,
        times: CallTimes,
        occurrences: impl Iterator<Item = &'a Occurrence>,
        results: &[Result<Recorded, StoreError>],
    ) {
        let mut falls = Vec::new();
        let mut memory = self.memory.lock();
        for (occurrence, result) in occurrences.zip(results) {
            let Ok(recorded) = result else { continue };
            let fall = memory.update_recorded(occurrence, times, recorded);
            falls.extend(fall.map(|fall| (occurrence.key, fall)));
        }
        drop(memory);
        self.lost_writes.note(times.arrived_at, &falls);
    }

    /// Updates the last known stats of an anomaly; `None` if the store does not know it.
    /// `is_written` says that they follow a write of this instance.
    pub(crate) fn update_stats(
        &self,
        key: AnomalyKey,
        times: CallTimes,
        stats: Option<&AnomalyStats>,
        is_written: bool,
    ) {
        let fall = self.memory.lock().update_stats(key, times, stats, is_written);
        self.note_fall(key, times, fall);
    }

    /// Updates the last known stats of an anomaly and its firing alerts, as a list has read them
    /// with the counts of its rule; `None` if the store does not know it.
    pub(crate) fn update_row(
        &self,
        key: AnomalyKey,
        times: CallTimes,
        rule: Option<&RuleRef>,
        row: Option<&StoredRow>,
    ) {
        let fall = self.memory.lock().update_row(key, times, rule, row);
        self.note_fall(key, times, fall);
    }

    /// Updates the last known details of an anomaly; `None` if the store does not know it.
    pub(crate) fn update_details(
        &self,
        key: AnomalyKey,
        times: CallTimes,
        details: Option<&AnomalyDetails>,
    ) {
        let fall = self.memory.lock().update_details(key, times, details);
        self.note_fall(key, times, fall);
    }

    fn note_fall(&self, key: AnomalyKey, times: CallTimes, fall: Option<Fall>) {
        if let Some(fall) = fall {
            self.lost_writes.note(times.arrived_at, &[(key, fall)]);
        }
    }

    /// Reports lost writes and has them sent again. Once an hour, drops dead letters that are too
    /// old. Must be called about once a second.
    pub(crate) async fn maintain(&self, moment: Moment) {
        self.lost_writes.maintain(moment.now);
        self.spool.maintain();
        let hour = moment.horizon.as_micros() / 3_600_000_000;
        if self.expired_in_hour.swap(hour, Ordering::Relaxed) != hour
            && let Err(error) = self.spool.expire_letters(moment.horizon).await
        {
            tracing::warn!(%error, "expired dead letters can't be dropped");
        }
    }

    pub(crate) fn lost_writes(&self) -> &LostWrites {
        &self.lost_writes
    }

    /// Notes the news that an estimate has reported.
    pub(crate) fn note_reported(&self, occurrence: &Occurrence, news: News) {
        if news != News::default() {
            self.memory.lock().reported.note(occurrence, news);
        }
    }

    /// Reports the news of occurrences that were applied again, unless they were reported before.
    /// Each occurrence has its rule. Must be called before the last known stats are updated.
    pub(crate) fn report_news(
        &self,
        source: Source,
        occurrences: &[Occurrence],
        results: &[Result<Recorded, StoreError>],
    ) {
        let mut all_news = Vec::new();
        let mut memory = self.memory.lock();
        let Memory { stale, reported, .. } = &mut *memory;
        for (occurrence, result) in occurrences.iter().zip(results) {
            let (Ok(recorded), Some(rule)) = (result, &occurrence.rule) else { continue };
            let known = stale.get(occurrence.key).and_then(StaleEntry::last_stats);
            let frequency = judge_recorded(occurrence, rule.clone(), recorded);
            let news = reported.judge(source, occurrence, known, recorded, &frequency);
            if news != News::default() {
                all_news.push((news, occurrence, frequency));
            }
        }
        drop(memory);
        for (news, occurrence, frequency) in all_news {
            news.report(occurrence, &frequency);
        }
    }

    /// Forgets the known state of an anomaly.
    pub(crate) fn forget(&self, key: AnomalyKey) {
        let mut memory = self.memory.lock();
        memory.stale.remove(key);
        memory.catalogue.forget(key);
        memory.reported.remove(key);
    }

    /// Forgets which news were reported, because the outage is over.
    pub(crate) fn end_outage(&self) {
        self.memory.lock().reported.clear();
    }

    /// Updates the last known repairs of an anomaly.
    pub(crate) fn update_repairs(
        &self,
        key: AnomalyKey,
        times: CallTimes,
        history: &RepairHistory,
    ) {
        self.memory.lock().update_repairs(key, times, history);
    }

    /// Updates the last known mark of an anomaly, which was just set or removed.
    pub(crate) fn update_fix(&self, key: AnomalyKey, times: CallTimes, fix: Option<&PermanentFix>) {
        self.memory.lock().update_fix(key, times, fix);
    }

    /// Returns the number of waiting operations.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    pub(crate) fn depth(&self, now: Timestamp) -> SpoolDepth {
        let memory = self.memory.lock();
        // If the clock was set back, the age is still not negative.
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

    pub(super) fn wake_replay(&self) {
        self.filled.notify_one();
    }

    /// Completes when operations were written to the spool since the last call.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Memory)) {
        let mut memory = self.memory.lock();
        change(&mut memory);
        self.update_waiting(&memory);
    }

    /// Removes operations from memory that have left the spool, and adopts the stats that the store
    /// has returned for them.
    pub(crate) fn remove_settled(&self, now: Timestamp, settled: &[Spooled]) {
        let mut memory = self.memory.lock();
        let mut falls = Vec::new();
        for spooled in settled {
            let key = spooled.operation.key();
            falls.extend(memory.remove(&spooled.operation).map(|fall| (key, fall)));
        }
        self.update_waiting(&memory);
        drop(memory);
        self.lost_writes.note(now, &falls);
    }

    fn update_waiting(&self, memory: &Memory) {
        self.waiting.store(memory.pending.operations(), Ordering::Release);
    }
}
