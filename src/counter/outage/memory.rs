//! The memory for answers while the store gives none: the operations that wait, the last known
//! state of anomalies, and the way in which the two make an estimate that counts nothing twice.

use std::collections::BTreeMap;

use super::{
    pending::Pending,
    reported::Reported,
    stale_cache::{CallTimes, Fall, StaleCache},
};
use crate::{
    domain::{AnomalyKey, AnomalyStats, Timestamp},
    spool::{SpoolWrite, Spooled},
};

#[derive(Debug)]
pub(super) struct Memory {
    pub(super) pending: Pending,
    pub(super) stale: StaleCache,
    pub(super) reported: Reported,
    /// The stats of anomalies whose operations were applied and are not settled yet: until then
    /// they wait as well, and would be counted twice.
    applied: BTreeMap<AnomalyKey, (CallTimes, AnomalyStats)>,
}

/// Stats made of the last known ones and the operations that wait.
#[derive(Clone, Debug)]
pub(crate) struct Estimate {
    /// When the last known stats were current; `None` where there are none.
    pub(crate) as_of: Option<Timestamp>,
    pub(crate) stats: AnomalyStats,
}

/// An operation that waits durably.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    /// False when another copy of it waits already.
    pub(crate) is_first: bool,
    pub(crate) previous_count_24h: u64,
    pub(crate) previous_last_seen: Option<Timestamp>,
    pub(crate) estimate: Estimate,
    /// The stats without all that waits, where the store knew the anomaly.
    pub(crate) last_known: Option<AnomalyStats>,
}

impl Memory {
    pub(super) fn new(pending: Pending, stale: StaleCache, reported: Reported) -> Self {
        Self { pending, stale, reported, applied: BTreeMap::new() }
    }

    /// Returns an estimate for an anomaly; `None` where nothing is known of it.
    pub(super) fn estimate(&mut self, key: AnomalyKey, now: Timestamp) -> Option<Estimate> {
        let stale = self.stale.get(key);
        if stale.is_none() && !self.pending.holds(key) {
            return None;
        }
        let as_of = stale.map(|entry| entry.as_of);
        let mut stats = stale.map(|entry| entry.stats.clone()).unwrap_or_default();
        self.pending.add_to(key, now, &mut stats);
        Some(Estimate { as_of, stats })
    }

    /// Adds an operation before it is durable.
    pub(super) fn reserve(&mut self, now: Timestamp, write: &SpoolWrite) -> Accepted {
        let key = write.operation.key();
        let before = self.estimate(key, now);
        let (previous_count_24h, previous_last_seen) =
            before.map_or((0, None), |Estimate { stats, .. }| (stats.counts.day, stats.last_seen));
        let is_first = self.pending.add(now, &write.operation);
        if write.maybe_sent {
            self.pending.mark_uncertain(key);
        }
        // It waits, so there is an estimate.
        let nothing = || Estimate { as_of: None, stats: AnomalyStats::default() };
        let estimate = self.estimate(key, now).unwrap_or_else(nothing);
        let last_known = self.stale.get(key).map(|entry| entry.stats.clone());
        Accepted { is_first, previous_count_24h, previous_last_seen, estimate, last_known }
    }

    /// Adds the operations that wait to the stats that the store has just returned. Where the store
    /// may have applied one of those, nothing is counted twice: the last known stats have none of
    /// them.
    pub(super) fn with_waiting(
        &mut self,
        key: AnomalyKey,
        now: Timestamp,
        returned: Option<AnomalyStats>,
    ) -> AnomalyStats {
        let mut stats = returned.unwrap_or_default();
        if !self.pending.is_uncertain(key) {
            self.pending.add_to(key, now, &mut stats);
        } else if let Some(estimate) = self.estimate(key, now) {
            stats.raise_to(&estimate.stats);
        }
        stats
    }

    /// Updates the last known stats of an anomaly, which has been written to. Returns the fall of
    /// its count, if it fell.
    pub(super) fn update_written(
        &mut self,
        key: AnomalyKey,
        times: CallTimes,
        stats: &AnomalyStats,
    ) -> Option<Fall> {
        if self.pending.is_uncertain(key) {
            self.applied.insert(key, (times, stats.clone()));
            return None;
        }
        self.stale.update_stats(key, times, stats)
    }

    /// Removes an operation that waits no longer, and takes over the stats that the store has
    /// returned for it.
    pub(super) fn remove_settled(&mut self, settled: &Spooled) -> Option<Fall> {
        let key = settled.operation.key();
        self.pending.remove(&settled.operation);
        let (times, stats) = self.applied.remove(&key)?;
        self.stale.update_stats(key, times, &stats)
    }
}
