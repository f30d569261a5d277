//! What was last known of the anomalies of late, bounded in number, for answers while the store
//! does not give any.

use std::num::NonZeroUsize;

use lru::LruCache;

use crate::{
    domain::{AnomalyKey, RepairHistory, Tally, Timestamp},
    store::Dossier,
};

/// The last known state of anomalies; the least recently used are forgotten first.
#[derive(Debug)]
pub(super) struct LastKnown {
    anomalies: LruCache<AnomalyKey, Known>,
    limit: NonZeroUsize,
}

/// What was last known of an anomaly.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// When the tally was current.
    pub(super) as_of: Timestamp,
    pub(super) tally: Tally,
    /// All else, where somebody has asked for it.
    pub(super) dossier: Option<Dossier>,
}

impl LastKnown {
    pub(super) fn new(limit: NonZeroUsize) -> Self {
        // One with a capacity would take all its memory at once.
        Self { anomalies: LruCache::unbounded(), limit }
    }

    pub(super) fn get(&mut self, key: AnomalyKey) -> Option<&Known> {
        self.anomalies.get(&key)
    }

    /// Takes note of a tally that the store has given.
    pub(super) fn note(&mut self, key: AnomalyKey, as_of: Timestamp, tally: &Tally) {
        match self.anomalies.get_mut(&key) {
            // Batches may come back in another order than they left.
            Some(known) if known.as_of <= as_of => {
                known.as_of = as_of;
                known.tally = tally.clone();
            }
            Some(_) => {}
            None => self.put(key, Known { as_of, tally: tally.clone(), dossier: None }),
        }
    }

    /// Takes note of all that the store has told of an anomaly.
    pub(super) fn note_dossier(&mut self, key: AnomalyKey, as_of: Timestamp, dossier: &Dossier) {
        let tally = dossier.tally.clone();
        self.put(key, Known { as_of, tally, dossier: Some(dossier.clone()) });
    }

    fn put(&mut self, key: AnomalyKey, known: Known) {
        self.anomalies.put(key, known);
        if self.anomalies.len() > self.limit.get() {
            self.anomalies.pop_lru();
        }
    }

    /// Takes note of an anomaly's repairs.
    pub(super) fn note_repairs(&mut self, key: AnomalyKey, history: &RepairHistory) {
        if let Some(known) = self.anomalies.get_mut(&key) {
            known.tally.repair_attempts = history.total;
            if let Some(dossier) = &mut known.dossier {
                dossier.repairs = history.clone();
            }
        }
    }
}
