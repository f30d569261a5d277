//! The writes of the counter. A write goes to the store; if the store fails, or another write of
//! the same anomaly already waits, it goes to the spool. A write that may have taken effect is
//! spooled too, because its id makes a second execution harmless.

use std::{
    collections::{BTreeMap, HashSet},
    iter, mem,
    sync::Arc,
};

use futures_util::future::join_all;

use super::{
    Answered, CallKind, Counted, Counter, CounterError,
    answers::{OccurrenceOutcome, RepairAnswer},
    call_sizes::fitting,
    judging::judge_recorded,
    news::News,
    outage::{Accepted, Fallback, Seen},
    reads::unchanged,
};
use crate::{
    domain::{
        AnomalyKey, Before, FixMark, FixRemoval, Frequency, KnownMark, Moment, Occurrence,
        Operation, PermanentFix, RETENTION, RepairAttempt, RuleRef, Timestamp,
    },
    spool::SpoolWrite,
    store::{FaultClass, RecordOutcome, Recorded, RepairRecorded, Shard, StoreError},
    telemetry,
    traces::ItemsSpan,
};

/// Maximum number of items in one call to the store: a script with many thousands would delay all
/// other users of Redis, and exceed the command timeout.
const CALL_ITEMS: usize = 500;

type WriteResult<T> = Result<Answered<T>, CounterError>;

/// An occurrence after its call to the store, with its index.
type RecordedOne = (usize, Occurrence, Result<Taken<Counted>, CounterError>);

/// A write after its call to the store.
enum Taken<T> {
    /// The store's answer.
    Answered(T),
    /// It must wait in the spool.
    Deferred {
        /// True if it may have taken effect.
        maybe_sent: bool,
    },
}

impl Counter {
    /// Records one occurrence.
    ///
    /// # Errors
    /// Fails if neither the store nor the spool takes the occurrence.
    pub async fn record_one(&self, moment: Moment, occurrence: Occurrence) -> WriteResult<Counted> {
        let result = self.record(moment, vec![occurrence]).await.pop();
        result.unwrap_or_else(|| Err(CounterError::no_result()))
    }

    /// Records occurrences in order. Returns one result for each.
    pub async fn record(
        &self,
        moment: Moment,
        mut occurrences: Vec<Occurrence>,
    ) -> Vec<WriteResult<Counted>> {
        let mut results: Vec<Option<WriteResult<Counted>>> =
            iter::repeat_with(|| None).take(occurrences.len()).collect();
        let (mut direct, mut queued) = (Vec::with_capacity(occurrences.len()), Vec::new());
        self.rules.in_force().assign(&mut occurrences);
        for (index, occurrence) in occurrences.into_iter().enumerate() {
            if self.must_queue(occurrence.key) {
                queued.push((index, occurrence, false));
            } else {
                direct.push((index, occurrence));
            }
        }
        for (index, occurrence, result) in self.record_by_shard(moment, direct).await {
            match result {
                Ok(Taken::Deferred { maybe_sent }) => queued.push((index, occurrence, maybe_sent)),
                Ok(Taken::Answered(counted)) => {
                    results[index] = Some(Ok(Answered::current(counted)));
                }
                Err(error) => results[index] = Some(Err(error)),
            }
        }
        self.queue(moment, queued, &mut results).await;
        results
            .into_iter()
            .map(|result| result.unwrap_or_else(|| Err(CounterError::no_result())))
            .collect()
    }

    /// Records occurrences, with those of different shards concurrently.
    async fn record_by_shard(
        &self,
        moment: Moment,
        occurrences: Vec<(usize, Occurrence)>,
    ) -> Vec<RecordedOne> {
        let shard_of = |(_, occurrence): &(usize, Occurrence)| self.store.shard(occurrence.key);
        let Some(first) = occurrences.first().map(shard_of) else { return Vec::new() };
        if occurrences.iter().all(|occurrence| shard_of(occurrence) == first) {
            return self.record_in(moment, first, occurrences).await;
        }
        let mut by_shard = BTreeMap::<Shard, Vec<_>>::new();
        for occurrence in occurrences {
            by_shard.entry(shard_of(&occurrence)).or_default().push(occurrence);
        }
        let parts = by_shard.into_iter().map(|(shard, part)| self.record_in(moment, shard, part));
        join_all(parts).await.into_iter().flatten().collect()
    }

    /// Records occurrences of one shard.
    async fn record_in(
        &self,
        moment: Moment,
        shard: Shard,
        occurrences: Vec<(usize, Occurrence)>,
    ) -> Vec<RecordedOne> {
        let mut outcomes = Vec::with_capacity(occurrences.len());
        // Anomalies with an occurrence that waits: later ones wait too.
        let mut deferred = HashSet::new();
        // One call after the other, so that the occurrences take effect in order.
        let mut rest = occurrences;
        while !rest.is_empty() {
            let others = rest.split_off(self.part_length(shard, &rest));
            let mut chunk = mem::replace(&mut rest, others);
            if !deferred.is_empty() {
                let is_behind =
                    |(_, occurrence): &(usize, Occurrence)| deferred.contains(&occurrence.key);
                let (behind, free): (Vec<_>, Vec<_>) = chunk.into_iter().partition(is_behind);
                let wait = |(index, occurrence)| {
                    (index, occurrence, Ok(Taken::Deferred { maybe_sent: false }))
                };
                outcomes.extend(behind.into_iter().map(wait));
                chunk = free;
            }
            let items = chunk.iter().map(|(_, occurrence)| occurrence.clone()).collect();
            let submitted = self.occurrences.submit(moment, shard, items).await;
            if let Ok(results) = &submitted {
                self.remember_recorded(moment, &chunk, results);
            }
            let mut results = submitted.map(Vec::into_iter);
            for (index, occurrence) in chunk {
                let outcome = match &mut results {
                    Err(error) => Err(CounterError::from(*error).of_event(&occurrence.id)),
                    Ok(results) => {
                        let result = results.next().unwrap_or_else(|| Err(StoreError::no_result()));
                        let taken = self.taken(result);
                        taken.map_err(|error| error.of_event(&occurrence.id)).map(|taken| {
                            match taken {
                                Taken::Answered(recorded) => {
                                    Taken::Answered(self.judge(&occurrence, &recorded))
                                }
                                Taken::Deferred { maybe_sent } => {
                                    deferred.insert(occurrence.key);
                                    Taken::Deferred { maybe_sent }
                                }
                            }
                        })
                    }
                };
                outcomes.push((index, occurrence, outcome));
            }
        }
        outcomes
    }

    /// Returns the number of `occurrences` that fit into the next call.
    fn part_length(&self, shard: Shard, occurrences: &[(usize, Occurrence)]) -> usize {
        let sizes = occurrences.iter().map(|(_, occurrence)| occurrence.bytes());
        fitting(sizes, CALL_ITEMS, self.call_sizes.max_bytes(shard))
    }

    /// Records a repair attempt; `None` if its anomaly is unknown. While the store does not answer,
    /// that can't be decided, and the attempt is accepted.
    ///
    /// # Errors
    /// Fails if neither the store nor the spool takes it.
    pub async fn record_repair(
        &self,
        moment: Moment,
        attempt: RepairAttempt,
    ) -> Result<Option<Answered<RepairAnswer>>, CounterError> {
        let (key, id) = (attempt.key, attempt.id.clone());
        let mut may_be_sent = false;
        if !self.must_queue(key) {
            let shard = self.store.shard(key);
            let submitted = self.repairs.submit_one(moment, shard, attempt.clone()).await;
            let result = submitted.map_err(|error| CounterError::from(error).of_event(&id))?;
            match self.taken(result).map_err(|error| error.of_event(&id))? {
                Taken::Answered(recorded) => {
                    if let Some(recorded) = &recorded {
                        self.remember(moment, || Operation::Repair(attempt));
                        if let Some(fallback) = &self.fallback {
                            let times = self.times(moment.now);
                            fallback.update_repairs(key, times, &recorded.history);
                        }
                    }
                    return Ok(recorded.map(|recorded| {
                        let RepairRecorded { counted, history } = recorded;
                        Answered::current(RepairAnswer { counted, history: Some(history) })
                    }));
                }
                Taken::Deferred { maybe_sent } => may_be_sent = maybe_sent,
            }
        }
        let (fallback, accepted) =
            self.spool(moment, Operation::Repair(attempt), may_be_sent).await?;
        let seen = fallback.repairs(key, moment.now).map(|Seen { as_of, value }| (as_of, value));
        let (as_of, history) = seen.unzip();
        let counted = accepted.is_first;
        Ok(Some(Answered::estimated(RepairAnswer { counted, history }, as_of)))
    }

    /// Marks an anomaly as permanently fixed; `None` if it is unknown. While the store does not
    /// answer, that can't be decided, and the mark is accepted.
    ///
    /// # Errors
    /// Fails if neither the store nor the spool takes it.
    pub async fn mark_fixed(
        &self,
        moment: Moment,
        mark: FixMark,
    ) -> Result<Option<Answered<PermanentFix>>, CounterError> {
        let key = mark.key;
        let mut may_be_sent = false;
        if !self.must_queue(key) {
            let call = self.store.mark_fixed(moment, mark.clone());
            let result = self.call_store(moment, key, CallKind::Write, "mark_fixed", call).await;
            match self.taken(result)? {
                Taken::Answered(fix) => {
                    if let Some(fix) = &fix {
                        self.note_fix(moment, key, Some(fix)).await;
                        self.remember(moment, || Operation::Mark(mark));
                        tracing::info!(%key, "anomaly {key} is marked as permanently fixed");
                    }
                    return Ok(fix.map(Answered::current));
                }
                Taken::Deferred { maybe_sent } => may_be_sent = maybe_sent,
            }
        }
        let fix = PermanentFix::from(mark.clone());
        let (_, accepted) = self.spool(moment, Operation::Mark(mark), may_be_sent).await?;
        Ok(Some(Answered::estimated(fix, accepted.estimate.as_of)))
    }

    /// Removes a mark, and returns whether there was one, if that is known; `None` if the anomaly
    /// is unknown. While the store does not answer, the removal is accepted.
    ///
    /// # Errors
    /// Fails if neither the store nor the spool takes it.
    pub async fn unmark_fixed(
        &self,
        moment: Moment,
        removal: FixRemoval,
    ) -> Result<Option<Answered<Option<bool>>>, CounterError> {
        let key = removal.key;
        let mut may_be_sent = false;
        if !self.must_queue(key) {
            let call = self.store.unmark_fixed(moment, removal.clone());
            let result = self.call_store(moment, key, CallKind::Write, "unmark_fixed", call).await;
            match self.taken(result)? {
                Taken::Answered(removed) => {
                    if removed.is_some() {
                        self.note_fix(moment, key, None).await;
                    }
                    if removed == Some(true) {
                        self.remember(moment, || Operation::Unmark(removal));
                        tracing::info!(%key, "the permanent fix of anomaly {key} is removed");
                    }
                    return Ok(removed.map(|removed| Answered::current(Some(removed))));
                }
                Taken::Deferred { maybe_sent } => may_be_sent = maybe_sent,
            }
        }
        let mark = self.fallback.as_ref().map(|fallback| fallback.mark(key, moment.now));
        let (_, accepted) = self.spool(moment, Operation::Unmark(removal), may_be_sent).await?;
        let removed = mark.and_then(KnownMark::holds);
        Ok(Some(Answered::estimated(removed, accepted.estimate.as_of)))
    }

    /// Keeps the store's answer to a mark or its removal, and the stats, which the lists of other
    /// instances need. Without them, these lists would be out of date until the next scan of the
    /// store.
    async fn note_fix(&self, moment: Moment, key: AnomalyKey, fix: Option<&PermanentFix>) {
        let Some(fallback) = &self.fallback else { return };
        fallback.update_fix(key, self.times(moment.now), fix);
        let moment = self.moment();
        let read = self.stats.submit_one(moment, self.store.shard(key), key.into());
        if let Ok(Ok(stats)) = read.await {
            fallback.update_stats(key, self.times(moment.now), stats.as_ref(), true);
        }
    }

    /// Returns true if a write must go to the spool without a call to the store.
    fn must_queue(&self, key: AnomalyKey) -> bool {
        let Some(fallback) = &self.fallback else { return false };
        self.health.is_unavailable(self.store.shard(key)) || fallback.holds(key)
    }

    /// Decides whether a write that has failed waits in the spool.
    fn taken<T>(&self, result: Result<T, StoreError>) -> Result<Taken<T>, CounterError> {
        match result {
            Ok(value) => Ok(Taken::Answered(value)),
            Err(fault) if self.fallback.is_some() && fault.is_temporary() => {
                Ok(Taken::Deferred { maybe_sent: fault.class() == FaultClass::Indeterminate })
            }
            Err(fault) => Err(fault.into()),
        }
    }

    /// Keeps a write that the store has acknowledged, to send it again after a failover.
    fn remember(&self, moment: Moment, operation: impl FnOnce() -> Operation) {
        if let Some(buffer) = &self.outages.resend_buffer {
            buffer.push(moment.now, std::iter::once(operation()));
        }
    }

    /// Keeps the occurrences and alerts that changed something in the store, and the stats that it
    /// returned.
    fn remember_recorded(
        &self,
        moment: Moment,
        occurrences: &[(usize, Occurrence)],
        results: &[Result<Recorded, StoreError>],
    ) {
        if let Some(buffer) = &self.outages.resend_buffer {
            let changed = occurrences.iter().zip(results).filter(|((_, occurrence), result)| {
                let is_alert = occurrence.episode.is_some();
                result.as_ref().is_ok_and(|recorded| has_effect(recorded.outcome, is_alert))
            });
            let operation = |((_, occurrence), _): (&(usize, Occurrence), _)| {
                // It is judged by the rules that are in force when it is sent again.
                Operation::Occurrence(Occurrence { rule: None, ..occurrence.clone() })
            };
            buffer.push(moment.now, changed.map(operation));
        }
        if let Some(fallback) = &self.fallback {
            let occurrences = occurrences.iter().map(|(_, occurrence)| occurrence);
            fallback.update_recorded(self.times(moment.now), occurrences, results);
        }
    }

    /// Writes occurrences to the spool, each with a flag that says whether it may have been sent.
    async fn queue(
        &self,
        moment: Moment,
        queued: Vec<(usize, Occurrence, bool)>,
        results: &mut [Option<WriteResult<Counted>>],
    ) {
        let Some(fallback) = &self.fallback else { return };
        let (mut waiting, mut writes) = (Vec::new(), Vec::new());
        for (index, occurrence, maybe_sent) in queued {
            if occurrence.episode.is_none() && occurrence.at < RETENTION.start(moment.horizon) {
                results[index] = Some(self.too_old(fallback, moment, &occurrence));
                continue;
            }
            waiting.push((index, occurrence.clone()));
            let operation = Operation::Occurrence(occurrence);
            writes.push(SpoolWrite { operation, maybe_sent });
        }
        let accepted = accept(fallback, moment.now, writes).await;
        for ((index, occurrence), accepted) in waiting.into_iter().zip(accepted) {
            results[index] = Some(accepted.map(|accepted| {
                let Accepted { is_first, before, estimate } = accepted;
                let (key, rule) = (occurrence.key, self.rule_at_hand(&occurrence));
                let (counts, previous_last_seen) = (before.as_counts(), before.last_seen);
                // The state of the store is not known, so every step is new.
                let step = Before { counts, is_counted: is_first, events: None };
                let frequency = Frequency::judge(key, estimate.stats, rule, Some(step));
                let outcome = match is_first {
                    _ if occurrence.episode.is_some() => OccurrenceOutcome::Undecided,
                    true => OccurrenceOutcome::Spooled,
                    false => OccurrenceOutcome::Settled(RecordOutcome::Duplicate),
                };
                let news = self.report(outcome, &occurrence, &frequency, previous_last_seen);
                fallback.note_reported(&occurrence, news);
                let counted = Counted { outcome, frequency };
                Answered::estimated(counted, estimate.as_of)
            }));
        }
    }

    /// Answers an occurrence that is older than 30 days and that spooling would not make count. If
    /// nothing is known about its anomaly, a zero would be wrong.
    fn too_old(
        &self,
        fallback: &Fallback,
        moment: Moment,
        occurrence: &Occurrence,
    ) -> WriteResult<Counted> {
        let outcome = OccurrenceOutcome::Settled(RecordOutcome::TooOld);
        self.outcomes.increment(outcome);
        let (key, rule) = (occurrence.key, self.rule_at_hand(occurrence));
        let estimate = fallback.estimate(key, moment.now, &rule);
        let estimate = estimate.ok_or_else(StoreError::unavailable)?;
        let frequency = unchanged(key, estimate.stats, rule);
        let counted = Counted { outcome, frequency };
        Ok(Answered::estimated(counted, estimate.as_of))
    }

    /// Returns the rule that an occurrence carries, or the rule `default`.
    fn rule_at_hand(&self, occurrence: &Occurrence) -> RuleRef {
        let default_rule = || self.rules.in_force().default_rule();
        occurrence.rule.clone().unwrap_or_else(default_rule)
    }

    /// Writes one operation to the spool.
    async fn spool(
        &self,
        moment: Moment,
        operation: Operation,
        maybe_sent: bool,
    ) -> Result<(&Arc<Fallback>, Accepted), CounterError> {
        let Some(fallback) = &self.fallback else { return Err(CounterError::no_result()) };
        let write = SpoolWrite { operation, maybe_sent };
        let accepted = accept(fallback, moment.now, vec![write]).await.pop();
        Ok((fallback, accepted.unwrap_or_else(|| Err(CounterError::no_result()))?))
    }

    fn judge(&self, occurrence: &Occurrence, recorded: &Recorded) -> Counted {
        let frequency = judge_recorded(occurrence, self.rule_at_hand(occurrence), recorded);
        let outcome = OccurrenceOutcome::Settled(recorded.outcome);
        self.report(outcome, occurrence, &frequency, recorded.previous_last_seen);
        Counted { outcome, frequency }
    }

    /// Counts an occurrence, and reports its news about the anomaly.
    fn report(
        &self,
        outcome: OccurrenceOutcome,
        occurrence: &Occurrence,
        frequency: &Frequency,
        previous_last_seen: Option<Timestamp>,
    ) -> News {
        let Frequency { level, rule, new_step, stats, .. } = frequency;
        if outcome.is_of_occurrence() {
            self.outcomes.increment(outcome);
        }
        if outcome.counts() {
            telemetry::occurrence_at_level(*level);
            self.rules.in_force().note_hit(rule);
        }
        let reached = level.filter(|_| *new_step);
        let has_regressed = outcome.counts() && stats.has_just_regressed(previous_last_seen);
        let news = News { reached, has_regressed };
        news.report(occurrence, frequency);
        news
    }
}

/// Returns true if the store may have forgotten an effect of an occurrence or alert with this
/// outcome: a delivered alert is remembered, whether or not it counts.
fn has_effect(outcome: RecordOutcome, is_alert: bool) -> bool {
    match outcome {
        RecordOutcome::Counted
        | RecordOutcome::Ongoing
        | RecordOutcome::SameIncident
        | RecordOutcome::Resolved => true,
        RecordOutcome::Duplicate | RecordOutcome::TooOld => is_alert,
        RecordOutcome::Stale | RecordOutcome::Unrecognisable => false,
    }
}

/// Writes operations to the spool. The task runs to its end even if the caller disconnects:
/// otherwise, operations could be in memory but not on disk.
async fn accept(
    fallback: &Arc<Fallback>,
    now: Timestamp,
    writes: Vec<SpoolWrite>,
) -> Vec<Result<Accepted, CounterError>> {
    let count = writes.len();
    if count == 0 {
        return Vec::new();
    }
    let origins: Vec<_> = writes
        .iter()
        .map(|write| (write.operation.event_id().cloned(), write.maybe_sent))
        .collect();
    let fallback = Arc::clone(fallback);
    let span = ItemsSpan::spool(count);
    let accepted = match tokio::spawn(async move { fallback.accept(now, writes).await }).await {
        Ok(accepted) => {
            let results = accepted.into_iter().zip(origins);
            results
                .map(|(result, (event_id, maybe_sent))| {
                    result.map_err(|error| CounterError::of_spooling(error, event_id, maybe_sent))
                })
                .collect()
        }
        Err(_) => vec![Err(CounterError::no_result()); count],
    };
    span.end(|| accepted.iter().all(Result::is_err).then_some("not_spooled"));
    accepted
}
