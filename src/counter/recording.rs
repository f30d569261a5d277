//! Records occurrences: as other writes go to the store or to the spool (`writes.rs`), and with an
//! answer that judges their anomaly.

use std::{
    collections::{BTreeMap, HashSet},
    iter, mem, slice,
};

use futures_util::future::join_all;

use super::{
    Answered, Counted, Counter, CounterError,
    answers::OccurrenceOutcome,
    batching::{Few, SubmitError},
    call_sizes::fitting,
    judging::judge_recorded,
    news::News,
    outage::{Accepted, Fallback},
    reads::unchanged,
    writes::{Taken, WriteResult, accept},
};
use crate::{
    domain::{Before, Frequency, Moment, Occurrence, Operation, RETENTION, RuleRef, Timestamp},
    spool::SpoolWrite,
    store::{RecordOutcome, Recorded, Shard, StoreError},
    telemetry,
};

/// Maximum number of items in one call to the store: a script with many thousands would delay all
/// other users of Redis, and exceed the command timeout.
const CALL_ITEMS: usize = 500;

/// An occurrence after its call to the store, with its index.
type RecordedOne = (usize, Occurrence, Result<Taken<Counted>, CounterError>);

impl Counter {
    /// Records one occurrence, as [`Counter::record`] does, without its lists.
    ///
    /// # Errors
    /// When neither the store nor the spool takes it.
    pub async fn record_one(
        &self,
        moment: Moment,
        mut occurrence: Occurrence,
    ) -> WriteResult<Counted> {
        self.rules.in_force().assign(iter::once(&mut occurrence));
        let mut may_be_sent = false;
        if !self.must_queue(occurrence.key) {
            let shard = self.store.shard(occurrence.key);
            let items = Few::from_buf([occurrence.clone()]);
            let submitted = self.occurrences.submit(moment, shard, items).await;
            if let Ok(results) = &submitted {
                self.remember_recorded(moment, iter::once(&occurrence), results);
            }
            match self.settle(&occurrence, submitted.map(|mut results| next(results.pop())))? {
                Taken::Answered(counted) => return Ok(Answered::current(counted)),
                Taken::Deferred { maybe_sent } => may_be_sent = maybe_sent,
            }
        }
        let mut result = None;
        let queued = vec![(0, occurrence, may_be_sent)];
        self.queue(moment, queued, slice::from_mut(&mut result)).await;
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
        // Anomalies with an occurrence that waits: those behind it wait too.
        let mut deferred = HashSet::new();
        // One after the other, so that they take effect in their order.
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
                let occurrences = chunk.iter().map(|(_, occurrence)| occurrence);
                self.remember_recorded(moment, occurrences, results);
            }
            let mut results = submitted.map(Few::into_iter);
            for (index, occurrence) in chunk {
                let result = results.as_mut().map(|results| next(results.next()));
                let outcome = self.settle(&occurrence, result.map_err(|error| *error));
                if matches!(outcome, Ok(Taken::Deferred { .. })) {
                    deferred.insert(occurrence.key);
                }
                outcomes.push((index, occurrence, outcome));
            }
        }
        outcomes
    }

    /// Decides what the answer to an occurrence is, or that it waits in the spool.
    fn settle(
        &self,
        occurrence: &Occurrence,
        submitted: Result<Result<Recorded, StoreError>, SubmitError>,
    ) -> Result<Taken<Counted>, CounterError> {
        let taken = submitted.map_err(CounterError::from).and_then(|result| self.taken(result));
        Ok(match taken.map_err(|error| error.of_event(&occurrence.id))? {
            Taken::Answered(recorded) => Taken::Answered(self.judge(occurrence, &recorded)),
            Taken::Deferred { maybe_sent } => Taken::Deferred { maybe_sent },
        })
    }

    /// Returns the number of `occurrences` that fit into the next call.
    fn part_length(&self, shard: Shard, occurrences: &[(usize, Occurrence)]) -> usize {
        let sizes = occurrences.iter().map(|(_, occurrence)| occurrence.bytes());
        fitting(sizes, CALL_ITEMS, self.call_sizes.max_bytes(shard))
    }

    /// Keeps the occurrences and alerts that changed something in the store, and the stats that it
    fn remember_recorded<'a>(
        &self,
        moment: Moment,
        occurrences: impl Iterator<Item = &'a Occurrence> + Clone,
        results: &[Result<Recorded, StoreError>],
    ) {
        if let Some(buffer) = &self.outages.resend_buffer {
            let changed = occurrences.clone().zip(results).filter(|(occurrence, result)| {
                let is_alert = occurrence.episode.is_some();
                result.as_ref().is_ok_and(|recorded| has_effect(recorded.outcome, is_alert))
            });
            let operation = |(occurrence, _): (&Occurrence, _)| {
                // The rules that are in force when it is sent again judge it then.
                Operation::Occurrence(Occurrence { rule: None, ..occurrence.clone() })
            };
            buffer.push(moment.now, changed.map(operation));
        }
        if let Some(fallback) = &self.fallback {
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
/// outcome: a delivered alert is remembered, whether or not it counts. So is a retry, because the
/// instance that counted the first copy may be gone.
fn has_effect(outcome: RecordOutcome, is_alert: bool) -> bool {
    match outcome {
        RecordOutcome::Counted
        | RecordOutcome::Duplicate
        | RecordOutcome::Ongoing
        | RecordOutcome::SameIncident
        | RecordOutcome::Resolved => true,
        RecordOutcome::TooOld => is_alert,
        RecordOutcome::Stale | RecordOutcome::Unrecognisable => false,
    }
}

/// Returns the result of an element, of which there is always one.
fn next(result: Option<Result<Recorded, StoreError>>) -> Result<Recorded, StoreError> {
    result.unwrap_or_else(|| Err(StoreError::no_result()))
}
