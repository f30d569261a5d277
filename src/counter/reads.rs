//! Asking without recording.

use super::{Anomaly, Answered, Counter, CounterError, fallback::Estimate};
use crate::{
    domain::{AnomalyKey, AuditEntry, Frequency, Timestamp},
    store::StoreError,
};

impl Counter {
    /// How often an anomaly has happened; `None` when it is unknown.
    ///
    /// # Errors
    /// When the store does not answer and nothing is known of it.
    pub async fn frequency(
        &self,
        now: Timestamp,
        key: AnomalyKey,
    ) -> Result<Option<Answered<Frequency>>, CounterError> {
        if let Some(fallback) = self.unavailable_fallback(key) {
            return self.estimated_frequency(key, fallback.estimate(key, now), None);
        }
        let shard = self.store.shard(key);
        let mut results = self.stats.submit(now, shard, vec![key]).await?;
        let result = results.pop().unwrap_or_else(no_result);
        self.health.observe(now, shard, &result);
        match (result, &self.fallback) {
            (Ok(stats), None) => {
                Ok(stats.map(|stats| Answered::current(self.unchanged(key, stats))))
            }
            (Ok(stats), Some(fallback)) => {
                if let Some(stats) = &stats {
                    fallback.note_stats(key, now, stats);
                }
                if fallback.holds(key) {
                    // What waits is not in the store yet; it may even be what makes it known.
                    let mut stats = stats.unwrap_or_default();
                    fallback.add_waiting(key, now, &mut stats);
                    let frequency = self.unchanged(key, stats);
                    return Ok(Some(Answered::estimated(frequency, Some(now))));
                }
                Ok(stats.map(|stats| Answered::current(self.unchanged(key, stats))))
            }
            (Err(fault), Some(fallback)) if fault.is_temporary() => {
                self.estimated_frequency(key, fallback.estimate(key, now), Some(fault))
            }
            (Err(fault), _) => Err(fault.into()),
        }
    }

    /// All that is known of an anomaly; `None` when it is unknown.
    ///
    /// # Errors
    /// When the store does not answer and nothing is known of it.
    pub async fn anomaly(
        &self,
        now: Timestamp,
        key: AnomalyKey,
    ) -> Result<Option<Answered<Anomaly>>, CounterError> {
        let estimated = |fault: Option<StoreError>| {
            let known = self.fallback.as_ref().and_then(|fallback| fallback.details(key, now));
            let (as_of, details) = known.ok_or_else(|| away(fault))?;
            let frequency = self.unchanged(key, details.stats.clone());
            Ok(Some(Answered::estimated(Anomaly { frequency, details }, as_of)))
        };
        if self.unavailable_fallback(key).is_some() {
            return estimated(None);
        }
        let shard = self.store.shard(key);
        let result = self.traced("dossier", self.store.details(now, key)).await;
        self.health.observe(now, shard, &result);
        let details = match result {
            Ok(details) => details,
            Err(fault) if self.fallback.is_some() && fault.is_temporary() => {
                return estimated(Some(fault));
            }
            Err(fault) => return Err(fault.into()),
        };
        if let Some(fallback) = &self.fallback {
            if let Some(details) = &details {
                fallback.note_details(key, now, details);
            }
            if fallback.holds(key) {
                return estimated(None);
            }
        }
        Ok(details.map(|details| {
            let frequency = self.unchanged(key, details.stats.clone());
            Answered::current(Anomaly { frequency, details })
        }))
    }

    /// Who has done what about an anomaly, newest first; `None` when it is unknown. What waits is not among
    /// it: nothing was done yet.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn audit(
        &self,
        now: Timestamp,
        key: AnomalyKey,
    ) -> Result<Option<Vec<AuditEntry>>, CounterError> {
        let shard = self.store.shard(key);
        if self.health.is_away(shard) {
            return Err(away(None));
        }
        let result = self.traced("audit", self.store.audit(now, key)).await;
        self.health.observe(now, shard, &result);
        Ok(result?)
    }

    /// Never a zero and never an unknown that is not known to be true: where nothing is known, the
    /// fault.
    fn estimated_frequency(
        &self,
        key: AnomalyKey,
        estimate: Option<Estimate>,
        fault: Option<StoreError>,
    ) -> Result<Option<Answered<Frequency>>, CounterError> {
        let estimate = estimate.ok_or_else(|| away(fault))?;
        let frequency = self.unchanged(key, estimate.stats);
        Ok(Some(Answered::estimated(frequency, estimate.as_of)))
    }
}

/// A batch that came back without a result for a call.
pub(super) fn no_result<T>() -> Result<T, StoreError> {
    Err(StoreError::Indeterminate("no result came back".to_owned()))
}

/// That nothing can be told.
pub(super) fn away(fault: Option<StoreError>) -> CounterError {
    fault.unwrap_or_else(StoreError::away).into()
}
