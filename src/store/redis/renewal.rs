//! Which anomalies need their keys' lives renewed: once a minute each is enough for keys that live for 35
//! days, and the check in the script would take a sixth of its time.

use std::collections::HashSet;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::domain::{AnomalyKey, Timestamp};

/// Of how many anomalies it is noted; those beyond are renewed each time.
const MAX_NOTED: usize = 100_000;

/// The anomalies whose keys this process has renewed within the minute.
pub(super) struct Renewals {
    noted: Mutex<Noted>,
    /// Grows when Redis may have forgotten something, and so a key's life too.
    resets: watch::Receiver<u64>,
}

#[derive(Default)]
struct Noted {
    minute: i64,
    resets: u64,
    keys: HashSet<AnomalyKey>,
}

impl Renewals {
    pub(super) fn new(resets: watch::Receiver<u64>) -> Self {
        Self { noted: Mutex::default(), resets }
    }

    /// Whether an anomaly's keys are to be renewed.
    pub(super) fn is_due(&self, now: Timestamp, key: AnomalyKey) -> bool {
        !self.noted(now).keys.contains(&key)
    }

    /// Notes that they were.
    pub(super) fn note(&self, now: Timestamp, key: AnomalyKey) {
        let mut noted = self.noted(now);
        if noted.keys.len() < MAX_NOTED {
            noted.keys.insert(key);
        }
    }

    fn noted(&self, now: Timestamp) -> parking_lot::MutexGuard<'_, Noted> {
        let (minute, resets) = (now.as_micros() / 60_000_000, *self.resets.borrow());
        let mut noted = self.noted.lock();
        if noted.minute != minute || noted.resets != resets {
            *noted = Noted { minute, resets, keys: HashSet::new() };
        }
        noted
    }
}
