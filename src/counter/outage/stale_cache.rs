//! The last known state of anomalies, for answers while the store gives none. Bounded in number.

use std::num::NonZeroUsize;

use lru::LruCache;

use crate::{
    domain::{AnomalyKey, AnomalyStats, RepairHistory, Timestamp},
    store::AnomalyDetails,
};

/// The last known state of anomalies. The least recently used is evicted first.
#[derive(Debug)]
pub(crate) struct StaleCache {
    entries: LruCache<AnomalyKey, StaleEntry>,
    limit: NonZeroUsize,
}

/// The last known state of an anomaly.
#[derive(Clone, Debug)]
pub(crate) struct StaleEntry {
    /// When the stats were current.
    pub(crate) as_of: Timestamp,
    pub(crate) stats: AnomalyStats,
    /// The details, where they have been read.
    pub(crate) details: Option<AnomalyDetails>,
}

impl StaleCache {
    pub(crate) fn new(limit: NonZeroUsize) -> Self {
        // A cache with a capacity would allocate all of its memory at once.
        Self { entries: LruCache::unbounded(), limit }
    }

    pub(crate) fn get(&mut self, key: AnomalyKey) -> Option<&StaleEntry> {
        self.entries.get(&key)
    }

    /// Updates the stats of an anomaly.
    pub(crate) fn update_stats(&mut self, key: AnomalyKey, as_of: Timestamp, stats: &AnomalyStats) {
        match self.entries.get_mut(&key) {
            // Batches may come back in another order than they were sent.
            Some(entry) if entry.as_of <= as_of => {
                entry.as_of = as_of;
                entry.stats = stats.clone();
            }
            Some(_) => {}
            None => self.insert(key, StaleEntry { as_of, stats: stats.clone(), details: None }),
        }
    }

    /// Updates the stats and the details of an anomaly.
    pub(crate) fn update_details(
        &mut self,
        key: AnomalyKey,
        as_of: Timestamp,
        details: &AnomalyDetails,
    ) {
        let stats = details.stats.clone();
        self.insert(key, StaleEntry { as_of, stats, details: Some(details.clone()) });
    }

    /// Updates the repairs of an anomaly that has an entry.
    pub(crate) fn update_repairs(&mut self, key: AnomalyKey, history: &RepairHistory) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.stats.repair_attempts = history.total;
            if let Some(details) = &mut entry.details {
                details.repairs = history.clone();
            }
        }
    }

    fn insert(&mut self, key: AnomalyKey, entry: StaleEntry) {
        self.entries.put(key, entry);
        if self.entries.len() > self.limit.get() {
            self.entries.pop_lru();
        }
    }
}
