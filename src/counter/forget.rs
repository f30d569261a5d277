//! Forgets one anomaly, such as one from a test, at the request of an operator.

use super::{Counter, CounterError, health::CallKind};
use crate::domain::{Actor, AnomalyKey, Moment};

impl Counter {
    /// Forgets an anomaly, and returns whether it was known. The memory of this instance is cleared
    /// too, so that the anomaly does not come back by itself: the last acknowledged writes, which
    /// are sent again after a failover, and the last known counts, below which a count is reported
    /// as lost writes.
    ///
    /// # Errors
    /// Fails if the store does not answer, and while writes wait or are held: each of them may be
    /// about the anomaly, and is applied once the store answers. Removing single operations from
    /// the spool was rejected: it would be a second way out of the spool, for a call that can just
    /// as well be made later.
    pub async fn forget(
        &self,
        moment: Moment,
        key: AnomalyKey,
        actor: &Actor,
    ) -> Result<bool, CounterError> {
        let waits = self.fallback.as_ref().is_some_and(|fallback| fallback.waiting() > 0);
        if waits || self.health.since().is_some() {
            return Err(CounterError::WritesWait);
        }
        let call = self.store.forget(moment, key);
        let was_known = self.call_store(moment, key, CallKind::Write, "forget", call).await?;
        if let Some(buffer) = &self.outages.resend_buffer {
            buffer.take(|operation| operation.key() == key);
        }
        if let Some(fallback) = &self.fallback {
            fallback.forget(key);
        }
        if was_known {
            let Actor { by, token, request_id } = actor;
            let by = by.as_deref().unwrap_or("an unnamed caller");
            let (token, request_id) = (token.as_deref(), request_id.as_deref());
            tracing::info!(
                %key,
                by,
                token,
                request_id,
                "anomaly {key} is forgotten at the request of {by}"
            );
        }
        Ok(was_known)
    }
}
