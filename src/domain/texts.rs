//! The values of identifying fields, each kept once: a million anomalies have a few thousand
//! distinct values. They are reference-counted, and bounded in bytes.

use std::{
    hash::{BuildHasher as _, RandomState},
    num::NonZeroU32,
    sync::Arc,
};

use hashbrown::HashTable;

use super::Signature;

/// The number of a text. It may stand for another text later, when nothing uses the first one any
/// more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextId(NonZeroU32);

/// The four identifying fields of an anomaly, as numbers. An `Option` of it takes 16 bytes too.
pub type FieldIds = [TextId; 4];

/// A set of texts, each with a number and a count of its users.
#[derive(Debug)]
pub struct Texts {
    /// The numbers by their texts. The table itself holds no texts, of which a million may be
    /// distinct.
    ids: HashTable<TextId>,
    hasher: RandomState,
    entries: Vec<Entry>,
    /// For each number the version, which grows whenever it is assigned to another text. Apart from
    /// the entries, because a query asks for those of a million anomalies, and they fit in a cache.
    versions: Vec<u32>,
    free: Vec<TextId>,
    /// Approximate size of all texts in bytes.
    bytes: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct Entry {
    /// Absent while the number is not used.
    text: Option<Arc<str>>,
    users: u32,
}

/// Approximate size of an entry without its text, in bytes.
const ENTRY_BYTES: usize = 64;

impl TextId {
    /// Returns the number as an index: the first one is 0.
    pub fn index(self) -> usize {
        self.0.get() as usize - 1
    }

    fn of_index(index: usize) -> Option<Self> {
        let number = u32::try_from(index).ok()?.checked_add(1)?;
        NonZeroU32::new(number).map(Self)
    }
}

impl Default for Texts {
    fn default() -> Self {
        Self::new(Self::MAX_BYTES)
    }
}

impl Texts {
    /// Maximum size of all texts of a store, in bytes. Lists do not know the fields of anomalies
    /// above it.
    pub const MAX_BYTES: usize = 256 << 20;

    /// Creates an empty set that takes no more than `max_bytes`.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            ids: HashTable::new(),
            hasher: RandomState::new(),
            entries: Vec::new(),
            versions: Vec::new(),
            free: Vec::new(),
            bytes: 0,
            max_bytes,
        }
    }

    /// Adds the four fields of a signature, or one more user of them; `None` if there is no space.
    pub fn add(&mut self, signature: &Signature) -> Option<FieldIds> {
        let mut added = Vec::with_capacity(4);
        for (_, text) in signature.named_fields() {
            match self.add_text(text) {
                Some(id) => added.push(id),
                None => {
                    added.into_iter().for_each(|id| self.remove_user(id));
                    return None;
                }
            }
        }
        added.try_into().ok()
    }

    /// Removes one user of four fields.
    pub fn remove(&mut self, fields: FieldIds) {
        fields.into_iter().for_each(|id| self.remove_user(id));
    }

    /// Returns the text of a number in use.
    pub fn get(&self, id: TextId) -> Option<&Arc<str>> {
        self.entries.get(id.index())?.text.as_ref()
    }

    /// Returns the version of a number, which changes when the number is assigned to another text.
    pub fn version(&self, id: TextId) -> u32 {
        self.versions.get(id.index()).copied().unwrap_or_default()
    }

    /// Returns the signature with four fields.
    pub fn signature(&self, fields: &FieldIds) -> Option<Signature> {
        let mut texts = fields.iter().map(|id| self.get(*id).map(|text| &**text));
        let texts: [Option<&str>; 4] = std::array::from_fn(|_| texts.next().flatten());
        let named = Signature::FIELDS.map(|(name, _)| name).into_iter().zip(texts);
        let find = |name: &str| named.clone().find(|(other, _)| *other == name)?.1.map(Ok);
        Signature::from_lookup(find).ok()
    }

    /// Returns the number of distinct texts.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Returns true if there are no texts.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    fn add_text(&mut self, text: &str) -> Option<TextId> {
        let hash = self.hasher.hash_one(text);
        let entries = &mut self.entries;
        let is_it = |id: &TextId| entries[id.index()].text.as_deref() == Some(text);
        if let Some(id) = self.ids.find(hash, is_it) {
            entries[id.index()].users += 1;
            return Some(*id);
        }
        let bytes = self.bytes + ENTRY_BYTES + text.len();
        if bytes > self.max_bytes {
            return None;
        }
        let text: Arc<str> = text.into();
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                let id = TextId::of_index(self.entries.len())?;
                if self.entries.len() == self.entries.capacity() {
                    let more = self.entries.len() / 8 + 64;
                    self.entries.reserve_exact(more);
                    self.versions.reserve_exact(more);
                }
                self.entries.push(Entry { text: None, users: 0 });
                self.versions.push(0);
                id
            }
        };
        let entry = &mut self.entries[id.index()];
        entry.text = Some(text);
        entry.users = 1;
        let version = &mut self.versions[id.index()];
        *version = version.wrapping_add(1);
        let Self { ids, hasher, entries, .. } = self;
        let rehash = |id: &TextId| {
            entries[id.index()].text.as_deref().map_or(0, |text| hasher.hash_one(text))
        };
        ids.insert_unique(hash, id, rehash);
        self.bytes = bytes;
        Some(id)
    }

    fn remove_user(&mut self, id: TextId) {
        let Some(entry) = self.entries.get_mut(id.index()) else { return };
        entry.users = entry.users.saturating_sub(1);
        if entry.users > 0 {
            return;
        }
        if let Some(text) = entry.text.take() {
            self.bytes -= ENTRY_BYTES + text.len();
            let hash = self.hasher.hash_one(&*text);
            if let Ok(found) = self.ids.find_entry(hash, |other| *other == id) {
                found.remove();
            }
            self.free.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(alert_name: &str, service: &str) -> Signature {
        Signature::from_lookup(|name| match name {
            "alert_name" => Some(Ok(alert_name)),
            "service" => Some(Ok(service)),
            _ => None,
        })
        .unwrap()
    }

    #[test]
    fn a_text_is_kept_once_and_for_as_long_as_it_is_used() {
        let mut texts = Texts::default();
        let one = texts.add(&signature("HighCPU", "api")).unwrap();
        let other = texts.add(&signature("HighCPU", "web")).unwrap();
        assert_eq!(texts.len(), 4, "HighCPU, api, web and the empty one");
        assert_eq!(one[0], other[0]);
        assert_eq!(texts.signature(&one), Some(signature("HighCPU", "api")));
        let version = texts.version(one[1]);
        texts.remove(one);
        assert_eq!(texts.signature(&other), Some(signature("HighCPU", "web")));
        let third = texts.add(&signature("HighCPU", "db")).unwrap();
        assert_eq!(third[1], one[1], "its number is free");
        assert_ne!(texts.version(third[1]), version, "and stands for another text");
        texts.remove(other);
        texts.remove(third);
        assert!(texts.is_empty() && texts.bytes == 0);
    }

    #[test]
    fn texts_are_bounded_in_bytes() {
        let mut texts = Texts::new(4 * ENTRY_BYTES + 20);
        assert!(texts.add(&signature("a", "b")).is_some());
        let bytes = texts.bytes;
        assert_eq!(texts.add(&signature("a", &"x".repeat(200))), None);
        assert_eq!(texts.bytes, bytes, "a part of a signature leaves nothing behind");
        assert!(texts.add(&signature("b", "a")).is_some(), "what is there takes no more");
    }

    #[test]
    fn absent_fields_take_no_more_than_present_ones() {
        assert_eq!(size_of::<Option<FieldIds>>(), 16);
    }
}
