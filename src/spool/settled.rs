//! Which sequences are settled: those that have left the queue or the dead letters for good. redb
//! itself needs none of it. It is for the salvage of a damaged file, in which removed records are
//! found too, because redb removes them from its tree and leaves the bytes.
//!
//! For each place the file has the sequence below which all are settled, and a bit for each settled
//! one beyond it. The rows are framed as records, and there are two of each, in tables of their
//! own and so on pages of their own. Settled sequences stay so: also what older pages say of them
//! holds. The records of the queue say it once more, each as of the time when it was written.

use std::collections::BTreeMap;

use redb::{ReadableTable as _, Table, TableDefinition, WriteTransaction};

use super::{
    error::SpoolError,
    record::{self, BLOCK_SEQUENCES, Place, Record, Settled},
};

type Key = (u8, u64);

/// Place and block → record. The last block of a place stands for all below a sequence.
const TABLES: [TableDefinition<'_, Key, &[u8]>; 2] =
    [TableDefinition::new("settled_v1"), TableDefinition::new("settled_copy_v1")];

const BELOW: u64 = u64::MAX;
const BLOCK_BYTES: usize = BLOCK_SEQUENCES as usize / 8;

type Bits = [u8; BLOCK_BYTES];

fn key(place: Place, block: u64) -> Key {
    (place as u8, block)
}

/// Returns the block of a sequence, and the byte and the bit in it.
fn bit(sequence: u64) -> (u64, usize, u8) {
    let within = sequence % BLOCK_SEQUENCES;
    (sequence / BLOCK_SEQUENCES, within as usize / 8, 1 << (within % 8))
}

/// Notes that sequences have left a place.
pub(super) fn insert(
    transaction: &WriteTransaction,
    place: Place,
    sequences: impl IntoIterator<Item = u64>,
) -> Result<(), SpoolError> {
    let mut added = Sequences::default();
    for sequence in sequences {
        added.insert(sequence);
    }
    for table in TABLES {
        let mut table = transaction.open_table(table)?;
        for (block, bits) in &added.blocks {
            let mut bits = *bits;
            if let Some(before) = bits_of(&table, key(place, *block))? {
                union(&mut bits, &before);
            }
            let settled = Settled::Block { place, block: *block, bits: bits.to_vec() };
            let row = record::encode_settled(settled)?;
            table.insert(key(place, *block), row.as_slice())?;
        }
    }
    Ok(())
}

fn bits_of(table: &Table<'_, Key, &'static [u8]>, key: Key) -> Result<Option<Bits>, SpoolError> {
    let Some(row) = table.get(key)? else { return Ok(None) };
    match record::read(row.value()) {
        Ok((Record::Settled(Settled::Block { bits, .. }), _)) => Ok(bits.try_into().ok()),
        // What is not known to be settled is found again, which is less bad than the reverse.
        _ => Ok(None),
    }
}

/// Notes that all sequences below `below` have left a place.
pub(super) fn raise(
    transaction: &WriteTransaction,
    place: Place,
    below: u64,
) -> Result<(), SpoolError> {
    let row = record::encode_settled(Settled::Below { place, sequence: below })?;
    let first_kept = below / BLOCK_SEQUENCES;
    for table in TABLES {
        let mut table = transaction.open_table(table)?;
        table.retain_in(key(place, 0)..key(place, first_kept), |_, _| false)?;
        table.insert(key(place, BELOW), row.as_slice())?;
    }
    Ok(())
}

/// The settled sequences of all places that the file knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// All below have left the queue.
    pub(super) queue_below: u64,
    /// All below have left the queue, and are no dead letters.
    pub(super) letters_below: u64,
    /// It is above all that are known to be settled.
    pub(super) next_sequence: u64,
}

/// Returns what the file says. Creates the tables.
pub(super) fn read(transaction: &WriteTransaction) -> Result<Known, redb::Error> {
    let mut known = Known::default();
    for table in TABLES {
        for entry in transaction.open_table(table)?.iter()? {
            let (key, row) = entry?;
            let (_, block) = key.value();
            let next = match record::read(row.value()) {
                Ok((Record::Settled(Settled::Below { place, sequence }), _)) => {
                    let below = match place {
                        Place::Queue => &mut known.queue_below,
                        Place::Letters => &mut known.letters_below,
                    };
                    *below = sequence.max(*below);
                    sequence
                }
                _ if block == BELOW => 0,
                _ => (block + 1) * BLOCK_SEQUENCES,
            };
            known.next_sequence = known.next_sequence.max(next);
        }
    }
    Ok(known)
}

/// A set of sequences in memory, with a bit for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sequences {
    below: u64,
    blocks: BTreeMap<u64, Bits>,
}

impl Sequences {
    /// Adds a sequence. Returns false if it was there before.
    pub(super) fn insert(&mut self, sequence: u64) -> bool {
        let is_new = !self.contains(sequence);
        let (block, byte, bit) = bit(sequence);
        self.blocks.entry(block).or_insert([0; BLOCK_BYTES])[byte] |= bit;
        is_new
    }

    pub(super) fn insert_below(&mut self, sequence: u64) {
        self.below = self.below.max(sequence);
    }

    /// Returns the sequence below which all are in the set.
    pub(super) fn below(&self) -> u64 {
        self.below
    }

    pub(super) fn insert_block(&mut self, block: u64, bits: &[u8]) {
        union(self.blocks.entry(block).or_insert([0; BLOCK_BYTES]), bits);
    }

    pub(super) fn contains(&self, sequence: u64) -> bool {
        let (block, byte, bit) = bit(sequence);
        sequence < self.below || self.blocks.get(&block).is_some_and(|bits| bits[byte] & bit > 0)
    }
}

fn union(bits: &mut Bits, others: &[u8]) {
    bits.iter_mut().zip(others).for_each(|(bits, others)| *bits |= others);
}

#[cfg(test)]
mod tests {
    use redb::{Database, backends::InMemoryBackend};

    use super::*;

    fn database() -> Database {
        Database::builder().create_with_backend(InMemoryBackend::new()).unwrap()
    }

    /// The settled sequences of the queue in each of the tables.
    fn stored(transaction: &WriteTransaction) -> [Sequences; 2] {
        TABLES.map(|table| {
            let mut sequences = Sequences::default();
            for entry in transaction.open_table(table).unwrap().iter().unwrap() {
                match record::read(entry.unwrap().1.value()).unwrap().0 {
                    Record::Settled(Settled::Below { place: Place::Queue, sequence }) => {
                        sequences.insert_below(sequence);
                    }
                    Record::Settled(Settled::Block { place: Place::Queue, block, bits }) => {
                        sequences.insert_block(block, &bits);
                    }
                    _ => {}
                }
            }
            sequences
        })
    }

    #[test]
    fn what_is_settled_is_told_from_what_is_not() {
        let database = database();
        let transaction = database.begin_write().unwrap();
        insert(&transaction, Place::Queue, [7, 1_023, 1_024, 9_000]).unwrap();
        insert(&transaction, Place::Queue, [8]).unwrap();
        insert(&transaction, Place::Letters, [9]).unwrap();
        raise(&transaction, Place::Queue, 5).unwrap();
        for sequences in stored(&transaction) {
            let settled: Vec<u64> = (0..10_000).filter(|n| sequences.contains(*n)).collect();
            assert_eq!(settled, [0, 1, 2, 3, 4, 7, 8, 1_023, 1_024, 9_000]);
        }
    }

    #[test]
    fn blocks_below_the_first_that_waits_are_dropped() {
        let database = database();
        let transaction = database.begin_write().unwrap();
        insert(&transaction, Place::Queue, 0..5_000).unwrap();
        raise(&transaction, Place::Queue, 4_999).unwrap();
        for sequences in stored(&transaction) {
            assert_eq!(sequences.blocks.keys().collect::<Vec<_>>(), [&4]);
            assert!((0..5_000).all(|sequence| sequences.contains(sequence)));
            assert!(!sequences.contains(5_000));
        }
    }

    #[test]
    fn a_sequence_that_was_settled_is_not_given_out_again() {
        let database = database();
        let transaction = database.begin_write().unwrap();
        assert_eq!(read(&transaction).unwrap().next_sequence, 0);
        raise(&transaction, Place::Queue, 70).unwrap();
        assert_eq!(read(&transaction).unwrap().next_sequence, 70);
        insert(&transaction, Place::Letters, [80]).unwrap();
        assert!(read(&transaction).unwrap().next_sequence > 80);
    }
}
