//! Recording. A write goes to the store; where that does not take it, or something about the same
//! anomaly waits already, it goes to the spool. A write that may have taken effect is spooled too:
//! its id makes the second time harmless.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::join_all;

use super::{
    Answered, Counted, Counter, CounterError,
    fallback::{Accepted, Fallback},
    reads::{away, no_result},
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

/// How many items go to the store in one call at the most: a script of many thousands would hold up
/// all other users of Redis, and outlast the command timeout.
const CALL_ITEMS: usize = 500;

type Outcome<T> = Result<Answered<T>, CounterError>;

impl Counter {
    /// Records one occurrence.
    ///
    /// # Errors
    /// When neither the store nor the spool takes it.
    pub async fn record_one(&self, now: Timestamp, occurrence: Occurrence) -> Outcome<Counted> {
        let outcome = self.record(now, vec![occurrence]).await.pop();
        outcome.unwrap_or_else(|| Err(lost()))
    }

    /// Records occurrences in their order; one result for each.
    pub async fn record(
        &self,
        now: Timestamp,
        occurrences: Vec<Occurrence>,
    ) -> Vec<Outcome<Counted>> {
        let mut outcomes: Vec<Option<Outcome<Counted>>> = Vec::new();
        let (mut direct, mut queued) = (BTreeMap::<Shard, Vec<_>>::new(), Vec::new());
        for (place, occurrence) in occurrences.into_iter().enumerate() {
            outcomes.push(None);
            if self.must_queue(occurrence.key) {
                queued.push((place, occurrence));
            } else {
                direct
                    .entry(self.store.shard(occurrence.key))
                    .or_default()
                    .push((place, occurrence));
            }
        }
        let parts = direct.into_iter().map(|(shard, part)| self.record_in(now, shard, part));
        for (place, occurrence, outcome) in join_all(parts).await.into_iter().flatten() {
            match outcome {
                Ok(None) => queued.push((place, occurrence)),
                Ok(Some(counted)) => outcomes[place] = Some(Ok(Answered::current(counted))),
                Err(error) => outcomes[place] = Some(Err(error)),
            }
        }
        self.queue(now, queued, &mut outcomes).await;
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(lost()))).collect()
    }

    /// Records occurrences that are all in one part of the store; `None` for one that is to wait in
    /// the spool.
    async fn record_in(
        &self,
        now: Timestamp,
        shard: Shard,
        occurrences: Vec<(usize, Occurrence)>,
    ) -> Vec<(usize, Occurrence, Result<Option<Counted>, CounterError>)> {
        let mut outcomes = Vec::with_capacity(occurrences.len());
        // One after the other, so that they take effect in their order.
        for direct in occurrences.chunks(CALL_ITEMS) {
            let items = direct.iter().map(|(_, occurrence)| occurrence.clone()).collect();
            let submitted = self.occurrences.submit(now, shard, items).await;
            if let Ok(results) = &submitted {
                self.note_recorded(now, direct, results);
            }
            let mut results = submitted.map(Vec::into_iter);
            for (place, occurrence) in direct {
                let outcome = match &mut results {
                    Err(no_results) => Err((*no_results).into()),
                    Ok(results) => {
                        let result = results.next().unwrap_or_else(no_result);
                        let taken = self.taken(now, shard, result);
                        taken
                            .map(|taken| taken.map(|recorded| self.judge(occurrence.key, recorded)))
                    }
                };
                outcomes.push((*place, occurrence.clone(), outcome));
            }
        }
        outcomes
    }

    /// Records a repair attempt; `None` when its anomaly is unknown. While the store does not answer
    /// that can't be told, and the attempt is accepted.
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
            let mut results = self.repairs.submit(now, shard, vec![attempt.clone()]).await?;
            let result = results.pop().unwrap_or_else(no_result);
            if let Some(recorded) = self.taken(now, shard, result)? {
                if let Some(recorded) = &recorded {
                    self.remember(now, || Operation::Repair(attempt));
                    if let Some(fallback) = &self.fallback {
                        fallback.note_repairs(key, &recorded.history);
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
    /// answer that can't be told, and the mark is accepted.
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
            let shard = self.store.shard(key);
            let result = self.traced("mark_fixed", self.store.mark_fixed(now, mark.clone())).await;
            if let Some(fix) = self.taken(now, shard, result)? {
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

    /// Takes a mark back, and says whether there was one; `None` when the anomaly is unknown. While
    /// the store does not answer neither can be told, and the removal is accepted.
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
            let shard = self.store.shard(key);
            let result =
                self.traced("unmark_fixed", self.store.unmark_fixed(now, removal.clone())).await;
            if let Some(removed) = self.taken(now, shard, result)? {
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

    /// Whether a write is to go to the spool without asking the store.
    fn must_queue(&self, key: AnomalyKey) -> bool {
        let Some(fallback) = &self.fallback else { return false };
        self.health.is_away(self.store.shard(key)) || fallback.holds(key)
    }

    /// Takes note of how the store has taken a write; `None` for one that is to wait in the spool.
    fn taken<T>(
        &self,
        now: Timestamp,
        shard: Shard,
        result: Result<T, StoreError>,
    ) -> Result<Option<T>, CounterError> {
        self.health.observe(now, shard, &result);
        match result {
            Ok(value) => Ok(Some(value)),
            Err(fault) if self.fallback.is_some() && fault.is_temporary() => {
                // What follows about this anomaly must queue behind it. If not this anomaly alone is
                // at fault, that is an outage.
                if fault.is_outage() {
                    self.health.begin_outage(now, shard, &fault);
                }
                Ok(None)
            }
            Err(fault) => Err(fault.into()),
        }
    }

    /// Remembers a write that the store has acknowledged.
    fn remember(&self, now: Timestamp, operation: impl FnOnce() -> Operation) {
        if let Some(recent) = &self.recent {
            recent.remember(now, std::iter::once(operation()));
        }
    }

    fn note_recorded(
        &self,
        now: Timestamp,
        direct: &[(usize, Occurrence)],
        results: &[Result<Recorded, StoreError>],
    ) {
        if let Some(recent) = &self.recent {
            let counted = direct.iter().zip(results).filter(|(_, result)| {
                matches!(result, Ok(Recorded { outcome: RecordOutcome::Counted, .. }))
            });
            let operation = |((_, occurrence), _): (&(usize, Occurrence), _)| {
                Operation::Occurrence(occurrence.clone())
            };
            recent.remember(now, counted.map(operation));
        }
        if let Some(fallback) = &self.fallback {
            let keys = direct.iter().map(|(_, occurrence)| occurrence.key);
            fallback.note_recorded(now, keys, results);
        }
    }

    /// Makes occurrences wait in the spool.
    async fn queue(
        &self,
        now: Timestamp,
        queued: Vec<(usize, Occurrence)>,
        outcomes: &mut [Option<Outcome<Counted>>],
    ) {
        let Some(fallback) = &self.fallback else { return };
        let (mut places, mut operations) = (Vec::new(), Vec::new());
        for (place, occurrence) in queued {
            if occurrence.at < RETENTION.start(now) {
                telemetry::occurrence(telemetry::Outcome::TooOld, None, None);
                // Not to be counted; and where nothing is known, no zero to be told either.
                let estimate = fallback.estimate(occurrence.key, now).ok_or_else(|| away(None));
                outcomes[place] = Some(estimate.map(|estimate| {
                    let frequency = self.unchanged(occurrence.key, estimate.stats);
                    Answered::estimated(Counted { counted: false, frequency }, estimate.as_of)
                }));
                continue;
            }
            places.push((place, occurrence.key));
            operations.push(Operation::Occurrence(occurrence));
        }
        for ((place, key), accepted) in
            places.into_iter().zip(accept(fallback, now, operations).await)
        {
            outcomes[place] = Some(accepted.map(|accepted| {
                let Accepted { is_first, previous_count_24h, estimate } = accepted;
                let frequency =
                    Frequency::judge(key, estimate.stats, previous_count_24h, self.thresholds);
                use telemetry::Outcome::{Duplicate, Spooled};
                tell(if is_first { Spooled } else { Duplicate }, &frequency);
                Answered::estimated(Counted { counted: is_first, frequency }, estimate.as_of)
            }));
        }
    }

    /// Makes one operation wait in the spool.
    async fn spool(
        &self,
        now: Timestamp,
        operation: Operation,
    ) -> Result<(&Arc<Fallback>, Accepted), CounterError> {
        let Some(fallback) = &self.fallback else { return Err(lost()) };
        let accepted = accept(fallback, now, vec![operation]).await.pop();
        Ok((fallback, accepted.unwrap_or_else(|| Err(lost()))?))
    }

    fn judge(&self, key: AnomalyKey, recorded: Recorded) -> Counted {
        let Recorded { outcome, previous_count_24h, stats } = recorded;
        let frequency = Frequency::judge(key, stats, previous_count_24h, self.thresholds);
        let told = match outcome {
            RecordOutcome::Counted => telemetry::Outcome::Counted,
            RecordOutcome::Duplicate => telemetry::Outcome::Duplicate,
            RecordOutcome::TooOld => telemetry::Outcome::TooOld,
        };
        tell(told, &frequency);
        Counted { counted: outcome == RecordOutcome::Counted, frequency }
    }
}

/// Counts an occurrence, and logs the step where it is one to another level.
fn tell(outcome: telemetry::Outcome, frequency: &Frequency) {
    let Frequency { key, level, previous_level, stats } = frequency;
    telemetry::occurrence(outcome, *level, *previous_level);
    if let Some(reached) = level.filter(|_| level > previous_level) {
        let (escalation_level, count_24h) = (reached.as_str(), stats.counts.day);
        tracing::info!(
            %key,
            escalation_level,
            count_24h,
            "anomaly {key} has reached {escalation_level}"
        );
    }
}

/// Makes operations wait, to the end, also when the caller goes away: half of it would leave
/// something in memory that is not on disk.
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
    let accepted = tokio::spawn(async move { fallback.accept(now, operations).await }).await;
    let accepted = accepted.unwrap_or_else(|_| (0..count).map(|_| Err(lost())).collect());
    span.end(|| accepted.iter().all(Result::is_err).then_some("not_spooled"));
    accepted
}

fn lost() -> CounterError {
    CounterError::Unanswered("no result came back".to_owned())
}
