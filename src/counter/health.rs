//! Whether the store can be reached, as the calls find it. An outage is two lines in the log.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::{domain::Timestamp, store::StoreError};

/// Since when the store has been away.
#[derive(Debug)]
pub(super) struct Health {
    store: &'static str,
    /// Microseconds since the epoch; [`REACHABLE`] while the store answers.
    away_since: AtomicI64,
}

const REACHABLE: i64 = i64::MIN;

impl Health {
    pub(super) fn new(store: &'static str) -> Self {
        Self {
            store,
            away_since: AtomicI64::new(REACHABLE),
        }
    }

    /// Takes note of how a call ended.
    pub(super) fn observe<T>(&self, now: Timestamp, result: &Result<T, StoreError>) {
        match result {
            Ok(_) | Err(StoreError::Permanent(_)) => self.observe_answer(),
            Err(fault @ (StoreError::Transient(_) | StoreError::Indeterminate(_))) => {
                self.observe_fault(now, fault);
            }
        }
    }

    pub(super) fn away_since(&self) -> Option<Timestamp> {
        let since = self.away_since.load(Ordering::Relaxed);
        (since != REACHABLE).then(|| Timestamp::from_micros(since))
    }

    fn observe_answer(&self) {
        // Read before written: all calls of a healthy day share this line.
        if self.away_since.load(Ordering::Relaxed) != REACHABLE
            && self.away_since.swap(REACHABLE, Ordering::Relaxed) != REACHABLE
        {
            tracing::info!(store = self.store, "the store answers again");
        }
    }

    fn observe_fault(&self, now: Timestamp, fault: &StoreError) {
        let begun = self.away_since.compare_exchange(
            REACHABLE,
            now.as_micros(),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if begun.is_ok() {
            tracing::warn!(store = self.store, error = %fault, "the store does not answer");
        }
    }
}
