//! A segment of the rows, under one lock: found by their keys, and visited in no order.

use std::collections::HashMap;

use hashbrown::HashTable;

use super::row::Row;
use crate::domain::{AnomalyKey, Firing};

/// Rows of keys that begin with the same bits.
#[derive(Debug, Default)]
pub(super) struct Segment {
    /// The indices of the rows, found by their keys.
    index: HashTable<u32>,
    rows: Vec<Row>,
    /// The keys of rows with news, each once.
    pub(super) with_news: Vec<AnomalyKey>,
    /// The firing alerts of the rows that have any.
    pub(super) firing: HashMap<AnomalyKey, Firing>,
    /// The keys of rows whose firing alerts are to be read, each once.
    pub(super) unread: Vec<AnomalyKey>,
}

/// Spreads a key over the bits that the index uses: the first bits are the same in a segment.
fn hash(key: AnomalyKey) -> u64 {
    key.to_bits().wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Segment {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(super) fn rows_mut(&mut self) -> &mut [Row] {
        &mut self.rows
    }

    /// Sets the firing alerts of a row. Returns true if they differ.
    pub(super) fn set_firing(&mut self, key: AnomalyKey, firing: Option<Firing>) -> bool {
        let Some(row) = self.get_mut(key) else { return false };
        row.set_firing(firing.is_some());
        let before = match firing {
            Some(firing) => self.firing.insert(key, firing),
            None => self.firing.remove(&key),
        };
        before != firing
    }

    /// Notes that the firing alerts of a row are to be read.
    pub(super) fn set_firing_unread(&mut self, key: AnomalyKey) {
        let Some(row) = self.get_mut(key) else { return };
        if !row.is_firing_unread() {
            row.set_firing_unread();
            self.unread.push(key);
        }
    }

    pub(super) fn get(&self, key: AnomalyKey) -> Option<&Row> {
        let place = self.index.find(hash(key), |place| self.key_at(*place) == Some(key))?;
        self.rows.get(*place as usize)
    }

    pub(super) fn get_mut(&mut self, key: AnomalyKey) -> Option<&mut Row> {
        let rows = &self.rows;
        let is_it = |place: &u32| rows.get(*place as usize).is_some_and(|row| row.key == key);
        let place = *self.index.find(hash(key), is_it)?;
        self.rows.get_mut(place as usize)
    }

    /// Adds a row whose key is not there.
    pub(super) fn insert(&mut self, row: Row) {
        if self.rows.len() == self.rows.capacity() {
            // Grows by an eighth: doubling could leave half of the memory of a million rows unused.
            self.rows.reserve_exact(self.rows.len() / 8 + 16);
        }
        let Ok(place) = u32::try_from(self.rows.len()) else { return };
        self.rows.push(row);
        let rows = &self.rows;
        let rehash = |place: &u32| rows.get(*place as usize).map_or(0, |row| hash(row.key));
        self.index.insert_unique(hash(row.key), place, rehash);
    }

    pub(super) fn remove(&mut self, key: AnomalyKey) -> Option<Row> {
        let rows = &self.rows;
        let is_it = |place: &u32| rows.get(*place as usize).is_some_and(|row| row.key == key);
        let entry = self.index.find_entry(hash(key), is_it).ok()?;
        let (place, _) = entry.remove();
        let last = u32::try_from(self.rows.len() - 1).ok()?;
        let removed = self.rows.swap_remove(place as usize);
        self.firing.remove(&key);
        if let Some(moved) = self.rows.get(place as usize)
            && let Some(its_place) = self.index.find_mut(hash(moved.key), |place| *place == last)
        {
            *its_place = place;
        }
        if self.rows.len() < self.rows.capacity() / 2 {
            self.rows.shrink_to(self.rows.len() + self.rows.len() / 8 + 16);
        }
        Some(removed)
    }

    /// Removes a number of rows, those that have been quiet for longest.
    pub(super) fn remove_quietest(&mut self, number: usize) -> Vec<Row> {
        let number = number.min(self.rows.len());
        if number == 0 {
            return Vec::new();
        }
        let mut quiet: Vec<_> = self.rows.iter().map(|row| (row.quiet_since(), row.key)).collect();
        quiet.select_nth_unstable(number - 1);
        quiet.truncate(number);
        quiet.into_iter().filter_map(|(_, key)| self.remove(key)).collect()
    }

    fn key_at(&self, place: u32) -> Option<AnomalyKey> {
        self.rows.get(place as usize).map(|row| row.key)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::domain::{AnomalyStats, Timestamp};

    fn row(key: u64, second: i64) -> Row {
        let seen = Some(Timestamp::from_micros(second * 1_000_000));
        let stats = AnomalyStats { last_seen: seen, ..AnomalyStats::default() };
        Row::new(AnomalyKey::from_bits(key), Timestamp::MIN, &stats)
    }

    proptest! {
        #[test]
        fn a_segment_is_a_map(steps in vec((0..50_u64, 0..3_u8, 0..100_i64), 0..400)) {
            let (mut segment, mut model) = (Segment::default(), BTreeMap::new());
            for (key, step, second) in steps {
                let of = AnomalyKey::from_bits(key);
                match (step, segment.get(of).is_some()) {
                    (0, _) => {
                        let removed = segment.remove(of).map(|row| row.quiet_since());
                        prop_assert_eq!(removed, model.remove(&key));
                    }
                    (_, true) => {
                        *segment.get_mut(of).unwrap() = row(key, second);
                        model.insert(key, row(key, second).quiet_since());
                    }
                    (_, false) => {
                        segment.insert(row(key, second));
                        model.insert(key, row(key, second).quiet_since());
                    }
                }
                prop_assert_eq!(segment.len(), model.len());
            }
            for key in 0..50 {
                let found = segment.get(AnomalyKey::from_bits(key)).map(Row::quiet_since);
                prop_assert_eq!(found, model.get(&key).copied());
            }
        }
    }

    #[test]
    fn the_quietest_rows_are_removed_first() {
        let mut segment = Segment::default();
        (0..10).for_each(|key| segment.insert(row(key, 100 - key as i64)));
        let mut gone: Vec<_> =
            segment.remove_quietest(3).iter().map(|row| row.key.to_bits()).collect();
        gone.sort_unstable();
        assert_eq!(gone, [7, 8, 9]);
        assert_eq!(segment.len(), 7);
        assert_eq!(segment.remove_quietest(100).len(), 7);
    }
}
