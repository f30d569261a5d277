//! Applies operations of one kind with one call to the store, and keeps the state of their
//! anomalies from the replies. Without it, an estimate after the operations are removed would
//! contradict an earlier answer.

use super::{fallback::Fallback, reported::Source, stale_entry::CallTimes};
use crate::{
    counter::clock::Clock,
    domain::{AnomalyKey, Moment, Occurrence, Operation, PermanentFix, RepairAttempt},
    rules::Rules,
    store::{RecordOutcome, Recorded, Store, StoreError},
};

/// The store's answer to one write.
#[derive(Debug)]
pub(super) enum Applied {
    /// It is a repair, or it is a fix, whose reply does not say whether it was applied before.
    Yes {
        is_new: bool,
    },
    UnknownAnomaly,
    Recorded(RecordOutcome),
}

/// Applies operations.
#[derive(Debug)]
pub(super) struct Applier<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) clock: &'a dyn Clock,
    pub(super) fallback: Option<&'a Fallback>,
    pub(super) rules: &'a Rules,
    pub(super) source: Source,
    /// True if the operations may have been applied before.
    pub(super) is_again: bool,
}

impl Applier<'_> {
    pub(super) async fn apply(
        &self,
        moment: Moment,
        operations: &[&Operation],
    ) -> Vec<Result<Applied, StoreError>> {
        if let Some(fallback) = self.updated() {
            fallback.begin_applying(operations.iter().copied());
        }
        let mut occurrences: Vec<Occurrence> = Vec::new();
        let mut repairs: Vec<RepairAttempt> = Vec::new();
        let mut results = Vec::new();
        for operation in operations {
            match operation {
                Operation::Occurrence(occurrence) => occurrences.push(occurrence.clone()),
                Operation::Repair(attempt) => repairs.push(attempt.clone()),
                Operation::Mark(mark) => {
                    let result = self.store.mark_fixed(moment, mark.clone()).await;
                    if let Ok(Some(fix)) = &result {
                        self.keep_fix(moment, mark.key, Some(fix));
                    }
                    results.push(result.map(|fix| applied(fix.map(|_| true))));
                }
                Operation::Unmark(removal) => {
                    let result = self.store.unmark_fixed(moment, removal.clone()).await;
                    if let Ok(Some(_)) = &result {
                        self.keep_fix(moment, removal.key, None);
                    }
                    results.push(result.map(|removed| applied(removed.map(|_| true))));
                }
            }
        }
        if !occurrences.is_empty() {
            results.extend(self.record(moment, occurrences).await);
        }
        if !repairs.is_empty() {
            results.extend(self.repair(moment, repairs).await);
        }
        results.resize_with(operations.len(), || Err(StoreError::no_result()));
        results
    }

    async fn record(
        &self,
        moment: Moment,
        mut occurrences: Vec<Occurrence>,
    ) -> Vec<Result<Applied, StoreError>> {
        self.rules.in_force().assign(&mut occurrences);
        let results = match self.is_again {
            true => self.store.record_again(moment, occurrences.clone()).await,
            false => self.store.record(moment, occurrences.clone()).await,
        };
        if let Some(fallback) = self.fallback {
            let reported = self.is_again.then(|| results.iter().map(as_copy).collect::<Vec<_>>());
            let reported = reported.as_deref().unwrap_or(&results);
            fallback.report_news(self.source, &occurrences, reported);
        }
        if let Some(fallback) = self.updated() {
            fallback.update_recorded(self.times(moment), occurrences.iter(), &results);
        }
        let outcomes = results.into_iter().map(|result| Ok(Applied::Recorded(result?.outcome)));
        outcomes.collect()
    }

    async fn repair(
        &self,
        moment: Moment,
        repairs: Vec<RepairAttempt>,
    ) -> Vec<Result<Applied, StoreError>> {
        let keys: Vec<AnomalyKey> = repairs.iter().map(|attempt| attempt.key).collect();
        let results = self.store.record_repairs(moment, repairs).await;
        if let Some(fallback) = self.updated() {
            for (key, result) in keys.into_iter().zip(&results) {
                if let Ok(Some(repaired)) = result {
                    fallback.update_repairs(key, self.times(moment), &repaired.history);
                }
            }
        }
        let is_new = results.into_iter().map(|result| Ok(result?.map(|repaired| repaired.counted)));
        is_new.map(|result| result.map(applied)).collect()
    }

    fn keep_fix(&self, moment: Moment, key: AnomalyKey, fix: Option<&PermanentFix>) {
        if let Some(fallback) = self.updated() {
            fallback.update_fix(key, self.times(moment), fix);
        }
    }

    /// Returns the fallback, if replies update it. While writes are sent again, the counts are
    /// still rising to their earlier values: they are neither news nor a loss.
    fn updated(&self) -> Option<&Fallback> {
        self.fallback.filter(|_| self.source != Source::Resend)
    }

    fn times(&self, moment: Moment) -> CallTimes {
        CallTimes { began_at: moment.now, arrived_at: self.clock.now() }
    }
}

/// Returns the result of an operation that may have been applied before: a second copy of an alert
/// that counted belongs to a known episode.
fn as_copy(result: &Result<Recorded, StoreError>) -> Result<Recorded, StoreError> {
    let mut recorded = result.clone()?;
    if recorded.outcome == RecordOutcome::Ongoing {
        recorded.outcome = RecordOutcome::Duplicate;
    }
    Ok(recorded)
}

fn applied(is_new: Option<bool>) -> Applied {
    is_new.map_or(Applied::UnknownAnomaly, |is_new| Applied::Yes { is_new })
}
