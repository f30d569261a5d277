//! The oldest events of timelines that this process has written to. While a timeline still begins
//! with the same event, its length is the number of its events, whoever else has written to it.

use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use crate::domain::{AnomalyKey, Timestamp};

/// Maximum number of anomalies. The timelines of others are read in full with every write.
const MAX_ANOMALIES: usize = 100_000;
/// Maximum length of an id, so that memory is bounded in bytes too. Generated ids have 12
/// characters.
const MAX_ID_BYTES: usize = 40;

/// The oldest event of a timeline that has no events older than 30 days, no rolled-up events, and
/// no more events than are kept exactly.
#[derive(Clone, Debug)]
pub(super) struct OldestEvent {
    pub(super) id: Arc<str>,
    pub(super) at: Timestamp,
}

pub(super) struct KnownTimelines(Mutex<LruCache<AnomalyKey, OldestEvent>>);

impl Default for KnownTimelines {
    fn default() -> Self {
        // Bounded by hand, because a cache with a capacity would allocate its memory at once.
        Self(Mutex::new(LruCache::unbounded()))
    }
}

impl KnownTimelines {
    /// Returns the oldest event of each anomaly, if it is known.
    pub(super) fn oldest(
        &self,
        anomalies: impl Iterator<Item = AnomalyKey>,
    ) -> Vec<Option<OldestEvent>> {
        let mut known = self.0.lock();
        anomalies.map(|key| known.get(&key).cloned()).collect()
    }

    /// Notes the oldest event of an anomaly, or that it is not known.
    pub(super) fn set(&self, key: AnomalyKey, oldest: Option<OldestEvent>) {
        let mut known = self.0.lock();
        match oldest.filter(|event| event.id.len() <= MAX_ID_BYTES) {
            Some(event) => {
                known.put(key, event);
                if known.len() > MAX_ANOMALIES {
                    known.pop_lru();
                }
            }
            None => {
                known.pop(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str) -> Option<OldestEvent> {
        Some(OldestEvent { id: id.into(), at: Timestamp::from_micros(7) })
    }

    fn key(number: usize) -> AnomalyKey {
        AnomalyKey::from_bits(number as u64)
    }

    fn id_of(known: &KnownTimelines, number: usize) -> Option<String> {
        let [oldest] = &known.oldest([key(number)].into_iter())[..] else { panic!() };
        oldest.as_ref().map(|event| event.id.to_string())
    }

    #[test]
    fn the_oldest_event_is_known_until_it_is_not() {
        let known = KnownTimelines::default();
        known.set(key(1), event("a"));
        assert_eq!(id_of(&known, 1).as_deref(), Some("a"));
        assert_eq!(id_of(&known, 2), None);
        known.set(key(1), None);
        assert_eq!(id_of(&known, 1), None);
    }

    #[test]
    fn anomalies_and_bytes_are_bounded() {
        let known = KnownTimelines::default();
        known.set(key(0), event(&"x".repeat(MAX_ID_BYTES + 1)));
        assert_eq!(id_of(&known, 0), None);
        for number in 1..=MAX_ANOMALIES + 1 {
            known.set(key(number), event(&"x".repeat(MAX_ID_BYTES)));
        }
        assert_eq!(id_of(&known, 1), None, "the one that was used the longest ago is forgotten");
        assert!(id_of(&known, 2).is_some());
    }
}
