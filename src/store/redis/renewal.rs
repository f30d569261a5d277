//! The anomalies whose keys need their TTL renewed. Once a minute is enough for keys that live for
//! 35 days; a check in the script would take a sixth of its time.

use std::collections::HashSet;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    domain::{AnomalyKey, Occurrence, RETENTION, Timestamp},
    store::Resets,
};

/// Maximum number of anomalies tracked; others are renewed on every write.
const MAX_TRACKED: usize = 100_000;

/// The anomalies whose keys this process has renewed within the last minute.
pub(super) struct Renewals {
    renewed: Mutex<Renewed>,
    /// Grows when Redis may have forgotten data, which includes a key's TTL.
    resets: watch::Receiver<Resets>,
}

#[derive(Default)]
struct Renewed {
    minute: i64,
    resets: Resets,
    keys: HashSet<AnomalyKey>,
}

impl Renewals {
    pub(super) fn new(resets: watch::Receiver<Resets>) -> Self {
        Self { renewed: Mutex::default(), resets }
    }

    /// Returns for each occurrence whether it renews the TTLs of its anomaly's keys. If a renewal
    /// is due, this is the first occurrence of a batch, and the first one that is older than 30
    /// days, which may not be kept. Every alert renews them, because an alert that does not count
    /// renews only some of them.
    pub(super) fn due(&self, now: Timestamp, occurrences: &[Occurrence]) -> Vec<bool> {
        let renewed = self.renewed(now);
        let start = RETENTION.start(now);
        let mut due = vec![false; occurrences.len()];
        // Only the server knows whether an older occurrence is kept.
        for is_old in [false, true] {
            let mut seen = HashSet::new();
            for (occurrence, is_due) in occurrences.iter().zip(&mut due) {
                *is_due |= occurrence.episode.is_some();
                *is_due |= (occurrence.at < start) == is_old
                    && !renewed.keys.contains(&occurrence.key)
                    && seen.insert(occurrence.key);
            }
        }
        due
    }

    pub(super) fn add(&self, now: Timestamp, key: AnomalyKey) {
        let mut renewed = self.renewed(now);
        if renewed.keys.len() < MAX_TRACKED {
            renewed.keys.insert(key);
        }
    }

    /// Forgets the renewal of an anomaly whose keys are gone.
    pub(super) fn remove(&self, now: Timestamp, key: AnomalyKey) {
        self.renewed(now).keys.remove(&key);
    }

    fn renewed(&self, now: Timestamp) -> parking_lot::MutexGuard<'_, Renewed> {
        let (minute, resets) = (now.as_micros() / 60_000_000, *self.resets.borrow());
        let mut renewed = self.renewed.lock();
        if renewed.minute != minute || renewed.resets != resets {
            *renewed = Renewed { minute, resets, keys: HashSet::new() };
        }
        renewed
    }
}
