//! Writes. A write goes to the store; if the store fails, or another write of the same anomaly
//! waits already, it goes to the spool. A write that may have taken effect is spooled too, because
//! its id makes a second execution harmless.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::join_all;

use super::{
    Answered, CallKind, Counted, Counter, CounterError,
    answers::OccurrenceOutcome,
    outage::{Accepted, Fallback},
};
use crate::{
    domain::{
        AnomalyKey, FixMark, FixRemoval, Frequency, Occurrence, Operation, PermanentFix, RETENTION,
        RepairAttempt, Timestamp,
    },
    store::{RecordOutcome, Recorded, RepairRecorded, Shard, StoreError},
    telemetry,
    traces::ItemsSpan,
};

/// Maximum number of items of one call to the store: a script of many thousands would delay all
/// other users of Redis, and outlast the command timeout.
const CALL_ITEMS: usize = 500;

type WriteResult<T> = Result<Answered<T>, CounterError>;

impl Counter {
    /// Records one occurrence.
    ///
    /// # Errors
    /// When neither the store nor the spool takes it.
    pub async fn record_one(&self, now: Timestamp, occurrence: Occurrence) -> WriteResult<Counted> {
        let result = self.record(now, vec![occurrence]).await.pop();
        result.unwrap_or_else(|| Err(CounterError::no_result()))
    }

    /// Records occurrences in their order. Returns one result for each.
    pub async fn record(
        &self,
        now: Timestamp,
        occurrences: Vec<Occurrence>,
    ) -> Vec<WriteResult<Counted>> {
        let mut results: Vec<Option<WriteResult<Counted>>> = Vec::new();
        let (mut direct, mut queued) = (BTreeMap::<Shard, Vec<_>>::new(), Vec::new());
        for (index, occurrence) in occurrences.into_iter().enumerate() {
            results.push(None);
            if self.must_queue(occurrence.key) {
                queued.push((index, occurrence));
            } else {
                direct
                    .entry(self.store.shard(occurrence.key))
                    .or_default()
                    .push((index, occurrence));
            }
        }
        let parts = direct.into_iter().map(|(shard, part)| self.record_in(now, shard, part));
        for (index, occurrence, result) in join_all(parts).await.into_iter().flatten() {
            match result {
                Ok(None) => queued.push((index, occurrence)),
                Ok(Some(counted)) => results[index] = Some(Ok(Answered::current(counted))),
                Err(error) => results[index] = Some(Err(error)),
            }
        }
        self.queue(now, queued, &mut results).await;
        results
            .into_iter()
            .map(|result| result.unwrap_or_else(|| Err(CounterError::no_result())))
            .collect()
    }

    /// Records occurrences of one shard; `None` for one that must wait in the spool.
    async fn record_in(
        &self,
        now: Timestamp,
        shard: Shard,
        occurrences: Vec<(usize, Occurrence)>,
    ) -> Vec<(usize, Occurrence, Result<Option<Counted>, CounterError>)> {
        let mut outcomes = Vec::with_capacity(occurrences.len());
        // One after the other, so that they take effect in their order.
        for chunk in occurrences.chunks(CALL_ITEMS) {
            let items = chunk.iter().map(|(_, occurrence)| occurrence.clone()).collect();
            let submitted = self.occurrences.submit(now, shard, items).await;
            if let Ok(results) = &submitted {
                self.remember_recorded(now, chunk, results);
            }
            let mut results = submitted.map(Vec::into_iter);
            for (index, occurrence) in chunk {
                let outcome = match &mut results {
                    Err(error) => Err((*error).into()),
                    Ok(results) => {
                        let result = results.next().unwrap_or_else(|| Err(StoreError::no_result()));
                        let taken = self.unless_deferred(result);
                        taken
                            .map(|taken| taken.map(|recorded| self.judge(occurrence.key, recorded)))
                    }
                };
                outcomes.push((*index, occurrence.clone(), outcome));
            }
        }
        outcomes
    }

    /// Records a repair attempt; `None` when its anomaly is unknown. While the store does not
    /// answer, that is not known, and the attempt is accepted.
    ///
    /// # Errors
    /// When neither the store nor the spool takes it.
    pub async fn record_repair(
        &self,
        now: Timestamp,
        attempt: RepairAttempt,
    ) -> Result<Option<Answered<RepairRecorded>>, CounterError> {
        let key = attempt.key;
        if !self.must_queue(key) {
            let shard = self.store.shard(key);
            let result = self.repairs.submit_one(now, shard, attempt.clone()).await?;
            if let Some(recorded) = self.unless_deferred(result)? {
                if let Some(recorded) = &recorded {
                    self.remember(now, || Operation::Repair(attempt));
                    if let Some(fallback) = &self.fallback {
                        fallback.update_repairs(key, &recorded.history);
                    }
                }
                return Ok(recorded.map(Answered::current));
            }
        }
        let (fallback, accepted) = self.spool(now, Operation::Repair(attempt)).await?;
        let history = fallback.repairs(key, now);
        let recorded = RepairRecorded { counted: accepted.is_first, history };
        Ok(Some(Answered::estimated(recorded, accepted.estimate.as_of)))
    }

    /// Marks an anomaly as permanently fixed; `None` when it is unknown. While the store does not
    /// answer, that is not known, and the mark is accepted.
    ///
    /// # Errors
    /// When neither the store nor the spool takes it.
    pub async fn mark_fixed(
        &self,
        now: Timestamp,
        mark: FixMark,
    ) -> Result<Option<Answered<PermanentFix>>, CounterError> {
        let key = mark.key;
        if !self.must_queue(key) {
            let call = self.store.mark_fixed(now, mark.clone());
            let result = self.call_store(now, key, CallKind::Write, "mark_fixed", call).await;
            if let Some(fix) = self.unless_deferred(result)? {
                if fix.is_some() {
                    self.remember(now, || Operation::Mark(mark));
                    tracing::info!(%key, "anomaly {key} is marked as permanently fixed");
                }
                return Ok(fix.map(Answered::current));
            }
        }
        let fix = PermanentFix::from(mark.clone());
        let (_, accepted) = self.spool(now, Operation::Mark(mark)).await?;
        Ok(Some(Answered::estimated(fix, accepted.estimate.as_of)))
    }

    /// Takes a mark back, and returns whether there was one; `None` when the anomaly is unknown.
    /// While the store does not answer, neither is known, and the removal is accepted.
    ///
    /// # Errors
    /// When neither the store nor the spool takes it.
    pub async fn unmark_fixed(
        &self,
        now: Timestamp,
        removal: FixRemoval,
    ) -> Result<Option<Answered<bool>>, CounterError> {
        let key = removal.key;
        if !self.must_queue(key) {
            let call = self.store.unmark_fixed(now, removal.clone());
            let result = self.call_store(now, key, CallKind::Write, "unmark_fixed", call).await;
            if let Some(removed) = self.unless_deferred(result)? {
                if removed == Some(true) {
                    self.remember(now, || Operation::Unmark(removal));
                    tracing::info!(%key, "the permanent fix of anomaly {key} is taken back");
                }
                return Ok(removed.map(Answered::current));
            }
        }
        let (_, accepted) = self.spool(now, Operation::Unmark(removal)).await?;
        Ok(Some(Answered::estimated(true, accepted.estimate.as_of)))
    }

    /// Whether a write must go to the spool without a call to the store.
    fn must_queue(&self, key: AnomalyKey) -> bool {
        let Some(fallback) = &self.fallback else { return false };
        self.health.is_unavailable(self.store.shard(key)) || fallback.holds(key)
    }

    /// Returns the store's answer to a write; `None` for a write that must wait in the spool.
    fn unless_deferred<T>(&self, result: Result<T, StoreError>) -> Result<Option<T>, CounterError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(fault) if self.fallback.is_some() && fault.is_temporary() => Ok(None),
            Err(fault) => Err(fault.into()),
        }
    }

    /// Keeps a write that the store has acknowledged, to send it again after a failover.
    fn remember(&self, now: Timestamp, operation: impl FnOnce() -> Operation) {
        if let Some(buffer) = &self.resend_buffer {
            buffer.push(now, std::iter::once(operation()));
        }
    }

    /// Keeps the occurrences that the store has counted, and the stats that it has returned.
    fn remember_recorded(
        &self,
        now: Timestamp,
        occurrences: &[(usize, Occurrence)],
        results: &[Result<Recorded, StoreError>],
    ) {
        if let Some(buffer) = &self.resend_buffer {
            let counted = occurrences.iter().zip(results).filter(|(_, result)| {
                matches!(result, Ok(Recorded { outcome: RecordOutcome::Counted, .. }))
            });
            let operation = |((_, occurrence), _): (&(usize, Occurrence), _)| {
                Operation::Occurrence(occurrence.clone())
            };
            buffer.push(now, counted.map(operation));
        }
        if let Some(fallback) = &self.fallback {
            let keys = occurrences.iter().map(|(_, occurrence)| occurrence.key);
            fallback.update_recorded(now, keys, results);
        }
    }

    /// Writes occurrences to the spool.
    async fn queue(
        &self,
        now: Timestamp,
        queued: Vec<(usize, Occurrence)>,
        results: &mut [Option<WriteResult<Counted>>],
    ) {
        let Some(fallback) = &self.fallback else { return };
        let (mut waiting, mut operations) = (Vec::new(), Vec::new());
        for (index, occurrence) in queued {
            if occurrence.at < RETENTION.start(now) {
                results[index] = Some(self.too_old(fallback, now, occurrence.key));
                continue;
            }
            waiting.push((index, occurrence.key));
            operations.push(Operation::Occurrence(occurrence));
        }
        let accepted = accept(fallback, now, operations).await;
        for ((index, key), accepted) in waiting.into_iter().zip(accepted) {
            results[index] = Some(accepted.map(|accepted| {
                let Accepted { is_first, previous_count_24h, estimate } = accepted;
                let frequency =
                    Frequency::judge(key, estimate.stats, previous_count_24h, self.thresholds);
                let outcome = match is_first {
                    true => OccurrenceOutcome::Spooled,
                    false => OccurrenceOutcome::Settled(RecordOutcome::Duplicate),
                };
                self.report(outcome, &frequency);
                Answered::estimated(Counted { counted: is_first, frequency }, estimate.as_of)
            }));
        }
    }

    /// Answers an occurrence that is older than 30 days and would only be spooled in vain. Where
    /// nothing is known of its anomaly, a zero would be a lie.
    fn too_old(
        &self,
        fallback: &Fallback,
        now: Timestamp,
        key: AnomalyKey,
    ) -> WriteResult<Counted> {
        self.outcomes.increment(OccurrenceOutcome::Settled(RecordOutcome::TooOld));
        let estimate = fallback.estimate(key, now).ok_or_else(StoreError::unavailable)?;
        let frequency = self.unchanged(key, estimate.stats);
        Ok(Answered::estimated(Counted { counted: false, frequency }, estimate.as_of))
    }

    /// Writes one operation to the spool.
    async fn spool(
        &self,
        now: Timestamp,
        operation: Operation,
    ) -> Result<(&Arc<Fallback>, Accepted), CounterError> {
        let Some(fallback) = &self.fallback else { return Err(CounterError::no_result()) };
        let accepted = accept(fallback, now, vec![operation]).await.pop();
        Ok((fallback, accepted.unwrap_or_else(|| Err(CounterError::no_result()))?))
    }

    fn judge(&self, key: AnomalyKey, recorded: Recorded) -> Counted {
        let Recorded { outcome, previous_count_24h, stats } = recorded;
        let frequency = Frequency::judge(key, stats, previous_count_24h, self.thresholds);
        self.report(OccurrenceOutcome::Settled(outcome), &frequency);
        Counted { counted: outcome == RecordOutcome::Counted, frequency }
    }

    /// Counts an occurrence, and logs it where its anomaly has reached another level.
    fn report(&self, outcome: OccurrenceOutcome, frequency: &Frequency) {
        let Frequency { key, level, previous_level, stats } = frequency;
        self.outcomes.increment(outcome);
        if outcome.counts() {
            telemetry::occurrence_at_level(*level);
        }
        if let Some(reached) = level.filter(|_| level > previous_level) {
            telemetry::level_step(reached);
            let (escalation_level, count_24h) = (reached.as_str(), stats.counts.day);
            tracing::info!(
                %key,
                escalation_level,
                count_24h,
                "anomaly {key} has reached {escalation_level}"
            );
        }
    }
}

/// Writes operations to the spool, to the end, also when the caller disconnects: half of it would
/// leave operations in memory that are not on disk.
async fn accept(
    fallback: &Arc<Fallback>,
    now: Timestamp,
    operations: Vec<Operation>,
) -> Vec<Result<Accepted, CounterError>> {
    let count = operations.len();
    if count == 0 {
        return Vec::new();
    }
    let fallback = Arc::clone(fallback);
    let span = ItemsSpan::spool(count);
    let accepted = match tokio::spawn(async move { fallback.accept(now, operations).await }).await {
        Ok(accepted) => accepted.into_iter().map(|result| Ok(result?)).collect(),
        Err(_) => vec![Err(CounterError::no_result()); count],
    };
    span.end(|| accepted.iter().all(Result::is_err).then_some("not_spooled"));
    accepted
}
