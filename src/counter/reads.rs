//! The reads of the counter.

use super::{Anomaly, Answered, CallKind, Counter, CounterError, History, outage::Estimate};
use crate::{
    domain::{
        AnomalyKey, AuditEntry, Frequency, HistoryPeriod, KnownStats, Moment, RepairHistory,
        RuleRef,
    },
    store::{AnomalyHistory, Judged, StoreError},
};

impl Counter {
    /// Returns the frequency of an anomaly; `None` if it is unknown.
    ///
    /// # Errors
    /// Fails if the store does not answer and nothing is known about the anomaly.
    pub async fn frequency(
        &self,
        moment: Moment,
        key: AnomalyKey,
    ) -> Result<Option<Answered<Frequency>>, CounterError> {
        let rule = self.rule_of(moment, key).await;
        if let Some(fallback) = self.unavailable_fallback(key) {
            let estimate = fallback.estimate(key, moment.now, &rule);
            return estimated_frequency(key, estimate, rule, None);
        }
        let judged = || Judged { key, rule: Some(rule.clone()) };
        let read = || self.stats.submit_one(moment, self.store.shard(key), judged());
        match (self.read_settled(key, read).await?, &self.fallback) {
            (Ok(stats), None) => {
                Ok(stats.map(|stats| Answered::current(unchanged(key, stats.into(), rule))))
            }
            (Ok(stats), Some(fallback)) => {
                fallback.update_stats(key, self.times(moment.now), stats.as_ref(), false);
                if fallback.holds(key) {
                    // The store lacks the waiting operations, which may even include the one that
                    // makes the anomaly known.
                    let stats = fallback.with_waiting(key, moment.now, &rule, stats);
                    let frequency = stats.map(|stats| unchanged(key, stats, rule));
                    return Ok(frequency.map(|f| Answered::estimated(f, Some(moment.now))));
                }
                Ok(stats.map(|stats| Answered::current(unchanged(key, stats.into(), rule))))
            }
            (Err(fault), Some(fallback)) if fault.is_temporary() => {
                let estimate = fallback.estimate(key, moment.now, &rule);
                estimated_frequency(key, estimate, rule, Some(fault))
            }
            (Err(fault), _) => Err(fault.into()),
        }
    }

    /// Returns everything that is known about an anomaly; `None` if it is unknown.
    ///
    /// # Errors
    /// Fails if the store does not answer and nothing is known about the anomaly.
    pub async fn anomaly(
        &self,
        moment: Moment,
        key: AnomalyKey,
    ) -> Result<Option<Answered<Anomaly>>, CounterError> {
        let rule = self.rule_of(moment, key).await;
        let estimated = |fault: Option<StoreError>| {
            let fallback = self.fallback.as_ref();
            let details = fallback.and_then(|fallback| fallback.details(key, moment.now, &rule));
            let (estimate, details) = details.ok_or_else(|| unavailable(fault))?;
            let frequency = unchanged(key, estimate.stats, rule.clone());
            Ok(Some(Answered::estimated(Anomaly { frequency, details }, estimate.as_of)))
        };
        if self.unavailable_fallback(key).is_some() {
            return estimated(None);
        }
        let read = || {
            let judged = Judged { key, rule: Some(rule.clone()) };
            let call = self.store.details_by_rule(moment, judged);
            // Traces have always had this name.
            self.call_store(moment, key, CallKind::Read, "dossier", call)
        };
        let details = match self.read_settled(key, read).await {
            Ok(details) => details,
            Err(fault) if self.fallback.is_some() && fault.is_temporary() => {
                return estimated(Some(fault));
            }
            Err(fault) => return Err(fault.into()),
        };
        if let Some(fallback) = &self.fallback {
            fallback.update_details(key, self.times(moment.now), details.as_ref());
            if fallback.holds(key) {
                let completed = fallback.details_with_waiting(key, moment.now, &rule, details);
                return Ok(completed.map(|(stats, details)| {
                    let frequency = unchanged(key, stats, rule);
                    Answered::estimated(Anomaly { frequency, details }, Some(moment.now))
                }));
            }
        }
        Ok(details.map(|details| {
            let frequency = unchanged(key, details.stats.clone().into(), rule);
            Answered::current(Anomaly { frequency, details: details.into() })
        }))
    }

    /// Returns the repairs of an anomaly; `None` if it is unknown.
    ///
    /// # Errors
    /// Fails if the store does not answer and they were not seen.
    pub async fn repairs(
        &self,
        moment: Moment,
        key: AnomalyKey,
    ) -> Result<Option<Answered<RepairHistory>>, CounterError> {
        let Some(fallback) = &self.fallback else {
            let call = self.store.repairs(moment, key);
            let history = self.call_store(moment, key, CallKind::Read, "repairs", call).await?;
            return Ok(history.map(Answered::current));
        };
        let seen = || {
            let seen = fallback.repairs(key, moment.now)?;
            Some(Answered::estimated(seen.value, Some(seen.as_of)))
        };
        if self.unavailable_fallback(key).is_some() {
            return seen().map(Some).ok_or_else(|| unavailable(None));
        }
        // All details are read, because an estimate in an outage needs them.
        let anomaly = match self.anomaly(moment, key).await {
            // The repairs may have been seen even if the occurrences were not.
            Err(error @ CounterError::Unavailable(_)) => {
                return seen().map(Some).ok_or(error);
            }
            anomaly => anomaly?,
        };
        let Some(Answered { value, degraded }) = anomaly else { return Ok(None) };
        match value.details.repairs {
            Some(repairs) => Ok(Some(Answered { value: repairs, degraded })),
            None => Err(unavailable(None)),
        }
    }

    /// Returns the audit of an anomaly, newest first; `None` if it is unknown. It does not include
    /// waiting operations, because they have not taken effect: the answer is then an estimate.
    ///
    /// # Errors
    /// Fails if the store does not answer.
    pub async fn audit(
        &self,
        moment: Moment,
        key: AnomalyKey,
    ) -> Result<Option<Answered<Vec<AuditEntry>>>, CounterError> {
        let read = || {
            let call = self.store.audit(moment, key);
            self.call_store(moment, key, CallKind::Read, "audit", call)
        };
        let entries = self.read_settled(key, read).await?;
        match &self.fallback {
            Some(fallback) if fallback.holds(key) => {
                // A waiting operation may be the one that makes the anomaly known.
                let is_known = entries.is_some() || fallback.is_known(key, moment.now);
                let entries = is_known.then(|| entries.unwrap_or_default());
                Ok(entries.map(|entries| Answered::estimated(entries, Some(moment.now))))
            }
            _ => Ok(entries.map(Answered::current)),
        }
    }

    /// Returns the history of an anomaly; `None` if it is unknown. It lacks waiting writes, because
    /// they have not taken effect: its counts are then lower bounds.
    ///
    /// # Errors
    /// Fails if the store does not answer, and if only waiting writes make the anomaly known.
    pub async fn history(
        &self,
        moment: Moment,
        key: AnomalyKey,
        period: &HistoryPeriod,
    ) -> Result<Option<Answered<History>>, CounterError> {
        let rule = self.rule_of(moment, key).await;
        let times = period.times();
        let read = || {
            let call = self.store.history(moment, key, &times);
            self.call_store(moment, key, CallKind::Read, "history", call)
        };
        let history = self.read_settled(key, read).await?;
        let waiting = self.fallback.as_ref().filter(|fallback| fallback.holds(key));
        let Some(AnomalyHistory { known_since, counts, audit }) = history else {
            let is_known =
                waiting.is_some_and(|it| it.with_waiting(key, moment.now, &rule, None).is_some());
            return if is_known { Err(unavailable(None)) } else { Ok(None) };
        };
        let is_within = |entry: &AuditEntry| (period.start()..=period.end()).contains(&entry.at);
        let history = History {
            buckets: period.buckets(&counts, known_since),
            events: audit.into_iter().rev().filter(is_within).collect(),
            bands: rule.rule().levels().bands(),
        };
        Ok(Some(match waiting {
            Some(_) => Answered::estimated(history, Some(moment.now)),
            None => Answered::current(history),
        }))
    }

    /// Reads from the store, and once more if waiting operations of the anomaly were applied in the
    /// meantime: the reply may lack them, and they no longer wait, so that they can't be added.
    async fn read_settled<T, F: Future<Output = T>>(
        &self,
        key: AnomalyKey,
        read: impl Fn() -> F,
    ) -> T {
        let waits = || self.fallback.as_ref().is_some_and(|fallback| fallback.holds(key));
        let has_waited = waits();
        let reply = read().await;
        match has_waited && !waits() {
            true => read().await,
            false => reply,
        }
    }
}

/// Judges stats that no write has just changed.
pub(super) fn unchanged(key: AnomalyKey, stats: KnownStats, rule: RuleRef) -> Frequency {
    Frequency::judge(key, stats, rule, None)
}

/// Returns an estimated frequency. Fails if nothing is known: a zero would be wrong, and so would
/// an "unknown" that may not be true.
fn estimated_frequency(
    key: AnomalyKey,
    estimate: Option<Estimate>,
    rule: RuleRef,
    fault: Option<StoreError>,
) -> Result<Option<Answered<Frequency>>, CounterError> {
    let estimate = estimate.ok_or_else(|| unavailable(fault))?;
    let frequency = unchanged(key, estimate.stats, rule);
    Ok(Some(Answered::estimated(frequency, estimate.as_of)))
}

/// Returns the fault of the call, or that of the breaker if there was no call.
fn unavailable(fault: Option<StoreError>) -> CounterError {
    fault.unwrap_or_else(StoreError::unavailable).into()
}
