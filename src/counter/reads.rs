//! Asking without recording.

use super::{Anomaly, Answered, Counter, CounterError, standby::Estimate};
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
        if let Some(standby) = self.away_standby(key) {
            return self.estimated_frequency(key, standby.estimate(key, now), None);
        }
        let shard = self.store.shard(key);
        let mut results = self.tallies.submit(now, shard, vec![key]).await?;
        let result = results.pop().unwrap_or_else(no_result);
        self.health.observe(now, shard, &result);
        match (result, &self.standby) {
            (Ok(tally), None) => {
                Ok(tally.map(|tally| Answered::current(self.unchanged(key, tally))))
            }
            (Ok(tally), Some(standby)) => {
                if let Some(tally) = &tally {
                    standby.note_tally(key, now, tally);
                }
                if standby.holds(key) {
                    // What waits is not in the store yet; it may even be what makes it known.
                    let mut tally = tally.unwrap_or_default();
                    standby.add_waiting(key, now, &mut tally);
                    let frequency = self.unchanged(key, tally);
                    return Ok(Some(Answered::estimated(frequency, Some(now))));
                }
                Ok(tally.map(|tally| Answered::current(self.unchanged(key, tally))))
            }
            (Err(fault), Some(standby)) if fault.is_temporary() => {
                self.estimated_frequency(key, standby.estimate(key, now), Some(fault))
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
            let known = self.standby.as_ref().and_then(|standby| standby.dossier(key, now));
            let (as_of, dossier) = known.ok_or_else(|| away(fault))?;
            let frequency = self.unchanged(key, dossier.tally.clone());
            Ok(Some(Answered::estimated(Anomaly { frequency, dossier }, as_of)))
        };
        if self.away_standby(key).is_some() {
            return estimated(None);
        }
        let shard = self.store.shard(key);
        let result = self.traced("dossier", self.store.dossier(now, key)).await;
        self.health.observe(now, shard, &result);
        let dossier = match result {
            Ok(dossier) => dossier,
            Err(fault) if self.standby.is_some() && fault.is_temporary() => {
                return estimated(Some(fault));
            }
            Err(fault) => return Err(fault.into()),
        };
        if let Some(standby) = &self.standby {
            if let Some(dossier) = &dossier {
                standby.note_dossier(key, now, dossier);
            }
            if standby.holds(key) {
                return estimated(None);
            }
        }
        Ok(dossier.map(|dossier| {
            let frequency = self.unchanged(key, dossier.tally.clone());
            Answered::current(Anomaly { frequency, dossier })
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
        let frequency = self.unchanged(key, estimate.tally);
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
