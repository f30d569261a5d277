//! The oldest events of timelines that this process has written to. While a timeline still begins
//! with the same event, its length is the number of its events, whoever else has written to it.
//!
//! There are two tables, the younger of which takes what is used. Once it is full, it becomes the
//! older one, and what that had goes. So what was used lately stays, without an order that takes
//! more memory than the events: some 45 MB for all of them.

use std::{collections::HashMap, ops::Deref, sync::Arc};

use parking_lot::Mutex;

use crate::domain::{AnomalyKey, Timestamp};

/// Number of parts, each with a lock, by the first bits of the key: while a table grows, what is in
/// the other parts need not wait.
const PARTS: usize = 16;
/// Maximum number of anomalies in a table: a hash table of 2^15 places takes so many. Anomalies
/// that are in none are read in full with their next write.
const MAX_OF_TABLE: usize = 28_672;
/// Maximum length of an id, so that memory is bounded in bytes too.
const MAX_ID_BYTES: usize = 40;
/// Maximum length of an id that is in the table itself. Generated ids have 12.
const SHORT_ID_BYTES: usize = 21;

/// The oldest event of a timeline that has no events older than 30 days, no rolled-up events, and
/// no more events than are kept exactly.
#[derive(Clone, Debug)]
pub(super) struct OldestEvent {
    pub(super) id: KeptId,
    pub(super) at: Timestamp,
}

const _: () = assert!(size_of::<(AnomalyKey, OldestEvent)>() == 40);

/// The id of an event.
#[derive(Clone, Debug)]
pub(super) enum KeptId {
    /// One that takes no memory of its own.
    Short {
        length: u8,
        /// True if this process has generated it, so that no other event can have it.
        is_unique: bool,
        bytes: [u8; SHORT_ID_BYTES],
    },
    /// A longer one.
    Long(Arc<str>),
}

impl From<&str> for KeptId {
    fn from(id: &str) -> Self {
        let mut bytes = [0; SHORT_ID_BYTES];
        match bytes.get_mut(..id.len()) {
            Some(place) => {
                place.copy_from_slice(id.as_bytes());
                Self::Short { length: id.len() as u8, is_unique: false, bytes }
            }
            None => Self::Long(id.into()),
        }
    }
}

impl KeptId {
    /// Returns the same id as one that no other event can have.
    pub(super) fn unique(self) -> Self {
        match self {
            Self::Short { length, bytes, .. } => Self::Short { length, is_unique: true, bytes },
            Self::Long(_) => self,
        }
    }

    /// Returns true if no other event can have the id. An id that a caller gave may be recorded
    /// again with another time, once its anomaly has been deleted.
    pub(super) fn is_unique(&self) -> bool {
        matches!(self, Self::Short { is_unique: true, .. })
    }
}

impl Deref for KeptId {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            // It was a text.
            Self::Short { length, bytes, .. } => {
                str::from_utf8(&bytes[..usize::from(*length)]).unwrap_or_default()
            }
            Self::Long(id) => id,
        }
    }
}

#[derive(Default)]
pub(super) struct KnownTimelines([Mutex<Part>; PARTS]);

#[derive(Default)]
struct Part {
    younger: HashMap<AnomalyKey, OldestEvent>,
    older: HashMap<AnomalyKey, OldestEvent>,
}

impl KnownTimelines {
    /// Returns the oldest event of each anomaly, if it is known.
    pub(super) fn oldest(
        &self,
        anomalies: impl Iterator<Item = AnomalyKey>,
    ) -> Vec<Option<OldestEvent>> {
        anomalies.map(|key| self.part(key).lock().get(key)).collect()
    }

    /// Notes the oldest event of an anomaly, or that it is not known.
    pub(super) fn set(&self, key: AnomalyKey, oldest: Option<OldestEvent>) {
        let mut part = self.part(key).lock();
        match oldest.filter(|event| event.id.len() <= MAX_ID_BYTES) {
            Some(event) => part.insert(key, event),
            None => part.remove(key),
        }
    }

    fn part(&self, key: AnomalyKey) -> &Mutex<Part> {
        let number = key.to_bits() >> (u64::BITS - PARTS.trailing_zeros());
        &self.0[number as usize]
    }
}

impl Part {
    fn get(&mut self, key: AnomalyKey) -> Option<OldestEvent> {
        if let Some(event) = self.younger.get(&key) {
            return Some(event.clone());
        }
        let event = self.older.remove(&key)?;
        self.insert(key, event.clone());
        Some(event)
    }

    fn insert(&mut self, key: AnomalyKey, event: OldestEvent) {
        self.older.remove(&key);
        if self.younger.len() >= MAX_OF_TABLE && !self.younger.contains_key(&key) {
            self.older = std::mem::take(&mut self.younger);
        }
        self.younger.insert(key, event);
    }

    fn remove(&mut self, key: AnomalyKey) {
        self.younger.remove(&key);
        self.older.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn event(id: &str) -> Option<OldestEvent> {
        Some(OldestEvent { id: id.into(), at: Timestamp::from_micros(7) })
    }

    /// All of them are of the same part.
    fn key(number: usize) -> AnomalyKey {
        AnomalyKey::from_bits(number as u64)
    }

    fn id_of(known: &KnownTimelines, number: usize) -> Option<String> {
        let [oldest] = &known.oldest([key(number)].into_iter())[..] else { panic!() };
        oldest.as_ref().map(|event| event.id.to_string())
    }

    proptest! {
        #[test]
        fn the_oldest_event_is_known_until_it_is_not(
            steps in vec((0..20_usize, prop::option::of("[a-z]{1,50}")), 0..200),
        ) {
            let (known, mut model) = (KnownTimelines::default(), BTreeMap::new());
            for (number, id) in steps {
                known.set(key(number), id.as_deref().and_then(event));
                model.insert(number, id.filter(|id| id.len() <= MAX_ID_BYTES));
                for (number, id) in &model {
                    prop_assert_eq!(&id_of(&known, *number), id);
                }
            }
        }
    }

    #[test]
    fn anomalies_and_bytes_are_bounded() {
        let known = KnownTimelines::default();
        known.set(key(0), event(&"x".repeat(MAX_ID_BYTES + 1)));
        assert_eq!(id_of(&known, 0), None);
        for number in 1..=2 * MAX_OF_TABLE {
            known.set(key(number), event(&"x".repeat(MAX_ID_BYTES)));
            assert!(id_of(&known, 1).is_some(), "it is in use");
        }
        assert_eq!(id_of(&known, 2), None, "it was used the longest ago");
        assert!(id_of(&known, MAX_OF_TABLE + 10).is_some());
        let part = known.part(key(1)).lock();
        assert!(part.younger.len() <= MAX_OF_TABLE && part.older.len() <= MAX_OF_TABLE);
    }
}
