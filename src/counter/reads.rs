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
        let result = self.stats.submit_one(moment, self.store.shard(key), key).await?;
        match (result, &self.fallback) {
            (Ok(stats), None) => {
                Ok(stats.map(|stats| Answered::current(self.unchanged(key, stats))))
            }
            (Ok(stats), Some(fallback)) => {
                fallback.update_stats(key, self.times(moment.now), stats.as_ref());
                if fallback.holds(key) {
                    // The store lacks what waits, which may even be what makes the anomaly known.
                    let stats = fallback.with_waiting(key, moment.now, stats);
                    let frequency = self.unchanged(key, stats);
                    return Ok(Some(Answered::estimated(frequency, Some(moment.now))));
                }
                Ok(stats.map(|stats| Answered::current(self.unchanged(key, stats))))
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
            let (as_of, details) = details.ok_or_else(|| unavailable(fault))?;
            let frequency = self.unchanged(key, details.stats.clone());
            Ok(Some(Answered::estimated(Anomaly { frequency, details }, as_of)))
        };
        if self.unavailable_fallback(key).is_some() {
            return estimated(None);
        }
        let call = self.store.details(moment, key);
        // The name that traces have had from the start.
        let details = match self.call_store(moment, key, CallKind::Read, "dossier", call).await {
            Ok(details) => details,
            Err(fault) if self.fallback.is_some() && fault.is_temporary() => {
                return estimated(Some(fault));
            }
            Err(fault) => return Err(fault.into()),
        };
        if let Some(fallback) = &self.fallback {
            fallback.update_details(key, self.times(moment.now), details.as_ref());
            if fallback.holds(key) {
                let completed = details
                    .and_then(|details| fallback.details_with_waiting(key, moment.now, details));
                let Some(details) = completed else { return estimated(None) };
                let frequency = self.unchanged(key, details.stats.clone());
                return Ok(Some(Answered::estimated(
                    Anomaly { frequency, details },
                    Some(moment.now),
                )));
            }
        }
        Ok(details.map(|details| {
            let frequency = self.unchanged(key, details.stats.clone());
            Answered::current(Anomaly { frequency, details })
        }))
    }

    /// Returns the repairs of an anomaly; `None` when it is unknown.
    ///
    /// # Errors
    /// When the store does not answer and nothing is known of the anomaly.
    pub async fn repairs(
        &self,
        moment: Moment,
        key: AnomalyKey,
    ) -> Result<Option<Answered<RepairHistory>>, CounterError> {
        if self.fallback.is_some() {
            // All details, because an estimate needs them in an outage.
            let anomaly = self.anomaly(moment, key).await?;
            return Ok(anomaly.map(|Answered { value, degraded }| Answered {
                value: value.details.repairs,
                degraded,
            }));
        }
        let call = self.store.repairs(moment, key);
        let history = self.call_store(moment, key, CallKind::Read, "repairs", call).await?;
        Ok(history.map(Answered::current))
    }

    /// Returns the audit of an anomaly, newest first; `None` when it is unknown. Operations that
    /// wait are not in it, because they have not taken effect.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn audit(
        &self,
        moment: Moment,
        key: AnomalyKey,
    ) -> Result<Option<Vec<AuditEntry>>, CounterError> {
        let call = self.store.audit(moment, key);
        Ok(self.call_store(moment, key, CallKind::Read, "audit", call).await?)
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
