//! The writes of the counter. A write goes to the store; if the store fails, or another write of
//! the same anomaly already waits, it goes to the spool. A write that may have taken effect is
//! spooled too, because its id makes a second execution harmless.

use std::{iter, sync::Arc};

use super::{
    Answered, CallKind, Counter, CounterError,
    answers::RepairAnswer,
    outage::{Accepted, Fallback, Seen},
};
use crate::{
    domain::{
        AnomalyKey, FixMark, FixRemoval, KnownMark, Moment, Operation, PermanentFix, RepairAttempt,
        Timestamp,
    },
    spool::SpoolWrite,
    store::{FaultClass, RepairRecorded, StoreError},
    traces::ItemsSpan,
};

pub(super) type WriteResult<T> = Result<Answered<T>, CounterError>;

/// A write after its call to the store.
pub(super) enum Taken<T> {
    /// The store's answer.
    Answered(T),
    /// It must wait in the spool.
    Deferred {
        /// True if it may have taken effect.
        maybe_sent: bool,
    },
}

impl Counter {
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
    pub(super) fn must_queue(&self, key: AnomalyKey) -> bool {
        let Some(fallback) = &self.fallback else { return false };
        self.health.is_unavailable(self.store.shard(key)) || fallback.holds(key)
    }

    /// Decides whether a write that has failed waits in the spool.
    pub(super) fn taken<T>(&self, result: Result<T, StoreError>) -> Result<Taken<T>, CounterError> {
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
            buffer.push(moment.now, iter::once(operation()));
        }
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
}

/// Writes operations to the spool. The task runs to its end even if the caller disconnects:
/// otherwise, operations could be in memory but not on disk.
pub(super) async fn accept(
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
