//! Reads.

use super::{Anomaly, Answered, CallKind, Counter, CounterError, outage::Estimate};
use crate::{
    domain::{AnomalyKey, AuditEntry, Frequency, Moment, RepairHistory},
    store::StoreError,
};

impl Counter {
    /// Returns the frequency of an anomaly; `None` when it is unknown.
    ///
    /// # Errors
    /// When the store does not answer and nothing is known of the anomaly.
    pub async fn frequency(
        &self,
        moment: Moment,
        key: AnomalyKey,
    ) -> Result<Option<Answered<Frequency>>, CounterError> {
        if let Some(fallback) = self.unavailable_fallback(key) {
            return self.estimated_frequency(key, fallback.estimate(key, moment.now), None);
        }
        let read = || self.stats.submit_one(moment, self.store.shard(key), key);
        match (self.read_settled(key, read).await?, &self.fallback) {
            (Ok(stats), None) => {
                Ok(stats.map(|stats| Answered::current(self.unchanged(key, stats.into()))))
            }
            (Ok(stats), Some(fallback)) => {
                fallback.update_stats(key, self.times(moment.now), stats.as_ref());
                if fallback.holds(key) {
                    // The store lacks what waits, which may even be what makes the anomaly known.
                    let stats = fallback.with_waiting(key, moment.now, stats);
                    let frequency = stats.map(|stats| self.unchanged(key, stats));
                    return Ok(frequency.map(|f| Answered::estimated(f, Some(moment.now))));
                }
                Ok(stats.map(|stats| Answered::current(self.unchanged(key, stats.into()))))
            }
            (Err(fault), Some(fallback)) if fault.is_temporary() => {
                self.estimated_frequency(key, fallback.estimate(key, moment.now), Some(fault))
            }
            (Err(fault), _) => Err(fault.into()),
        }
    }

    /// Returns everything that is known of an anomaly; `None` when it is unknown.
    ///
    /// # Errors
    /// When the store does not answer and nothing is known of the anomaly.
    pub async fn anomaly(
        &self,
        moment: Moment,
        key: AnomalyKey,
    ) -> Result<Option<Answered<Anomaly>>, CounterError> {
        let estimated = |fault: Option<StoreError>| {
            let details =
                self.fallback.as_ref().and_then(|fallback| fallback.details(key, moment.now));
            let (estimate, details) = details.ok_or_else(|| unavailable(fault))?;
            let frequency = self.unchanged(key, estimate.stats);
            Ok(Some(Answered::estimated(Anomaly { frequency, details }, estimate.as_of)))
        };
        if self.unavailable_fallback(key).is_some() {
            return estimated(None);
        }
        let read = || {
            let call = self.store.details(moment, key);
            // The name that traces have had from the start.
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
                let completed = fallback.details_with_waiting(key, moment.now, details);
                return Ok(completed.map(|(stats, details)| {
                    let frequency = self.unchanged(key, stats);
                    Answered::estimated(Anomaly { frequency, details }, Some(moment.now))
                }));
            }
        }
        Ok(details.map(|details| {
            let frequency = self.unchanged(key, details.stats.clone().into());
            Answered::current(Anomaly { frequency, details: details.into() })
        }))
    }

    /// Returns the repairs of an anomaly; `None` when it is unknown.
    ///
    /// # Errors
    /// When the store does not answer and they were not seen.
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
        // All details, because an estimate needs them in an outage.
        let anomaly = match self.anomaly(moment, key).await {
            // The repairs may have been seen where the occurrences were not.
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

    /// Returns the audit of an anomaly, newest first; `None` when it is unknown. Operations that
    /// wait are not in it, because they have not taken effect: the answer is an estimate then.
    ///
    /// # Errors
    /// When the store does not answer.
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
                // What waits may be what makes the anomaly known.
                let is_known =
                    entries.is_some() || fallback.with_waiting(key, moment.now, None).is_some();
                let entries = is_known.then(|| entries.unwrap_or_default());
                Ok(entries.map(|entries| Answered::estimated(entries, Some(moment.now))))
            }
            _ => Ok(entries.map(Answered::current)),
        }
    }

    /// Reads from the store, and once more if what waited for the anomaly was applied meanwhile:
    /// the reply may lack it, and nothing waits that could be added.
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

    /// Where nothing is known, returns the fault: never a zero, and never an unknown that is not
    /// known to be true.
    fn estimated_frequency(
        &self,
        key: AnomalyKey,
        estimate: Option<Estimate>,
        fault: Option<StoreError>,
    ) -> Result<Option<Answered<Frequency>>, CounterError> {
        let estimate = estimate.ok_or_else(|| unavailable(fault))?;
        let frequency = self.unchanged(key, estimate.stats);
        Ok(Some(Answered::estimated(frequency, estimate.as_of)))
    }
}

/// Returns the fault of the call, or of the breaker where there was no call.
fn unavailable(fault: Option<StoreError>) -> CounterError {
    fault.unwrap_or_else(StoreError::unavailable).into()
}
