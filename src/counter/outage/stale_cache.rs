//! What was last known of the anomalies of late, bounded in number, for answers while the store
//! does not give any.

use std::num::NonZeroUsize;

use lru::LruCache;

use crate::{
    domain::{AnomalyKey, AnomalyStats, RepairHistory, Timestamp},
    store::AnomalyDetails,
};

/// The last known state of anomalies; the least recently used are forgotten first.
#[derive(Debug)]
pub(super) struct StaleCache {
    anomalies: LruCache<AnomalyKey, StaleEntry>,
    limit: NonZeroUsize,
}

/// What was last known of an anomaly.
#[derive(Clone, Debug)]
pub(super) struct StaleEntry {
    /// When the tally was current.
    pub(super) as_of: Timestamp,
    pub(super) stats: AnomalyStats,
    /// All else, where somebody has asked for it.
    pub(super) details: Option<AnomalyDetails>,
}

impl StaleCache {
    pub(super) fn new(limit: NonZeroUsize) -> Self {
        // One with a capacity would take all its memory at once.
        Self { anomalies: LruCache::unbounded(), limit }
    }

    pub(super) fn get(&mut self, key: AnomalyKey) -> Option<&StaleEntry> {
        self.anomalies.get(&key)
    }

    /// Takes note of a tally that the store has given.
    pub(super) fn note(&mut self, key: AnomalyKey, as_of: Timestamp, stats: &AnomalyStats) {
        match self.anomalies.get_mut(&key) {
            // Batches may come back in another order than they left.
            Some(known) if known.as_of <= as_of => {
                known.as_of = as_of;
                known.stats = stats.clone();
            }
            Some(_) => {}
            None => self.put(key, StaleEntry { as_of, stats: stats.clone(), details: None }),
        }
    }

    /// Takes note of all that the store has told of an anomaly.
    pub(super) fn note_details(
        &mut self,
        key: AnomalyKey,
        as_of: Timestamp,
        details: &AnomalyDetails,
    ) {
        let stats = details.stats.clone();
        self.put(key, StaleEntry { as_of, stats, details: Some(details.clone()) });
    }

    fn put(&mut self, key: AnomalyKey, known: StaleEntry) {
        self.anomalies.put(key, known);
        if self.anomalies.len() > self.limit.get() {
            self.anomalies.pop_lru();
        }
    }

    /// Takes note of an anomaly's repairs.
    pub(super) fn note_repairs(&mut self, key: AnomalyKey, history: &RepairHistory) {
        if let Some(known) = self.anomalies.get_mut(&key) {
            known.stats.repair_attempts = history.total;
            if let Some(details) = &mut known.details {
                details.repairs = history.clone();
            }
        }
    }
}
