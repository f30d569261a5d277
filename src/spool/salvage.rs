//! Reads the records of a file that redb can't open. The file is read as a stream, twice: first for
//! what is settled, then for what is not.

use std::{fs::File, io, ops::ControlFlow, os::unix::fs::FileExt};

use super::{
    record::{
        self, HEADER_BYTES, MARK, NewerVersion, Place, Position, Record, RecordError, Settled,
        SpoolWrite,
    },
    settled::Sequences,
};
use crate::{domain::Timestamp, redb_file::ReadableFile};

/// Number of bytes that are read at once. Longer records take a buffer of their own.
const BUFFER_BYTES: usize = 1 << 20;

/// Bytes that are read from any position.
pub(super) trait ReadAt {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}

impl ReadAt for ReadableFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_at_most(buffer, offset)
    }
}

impl ReadAt for &[u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..));
        let rest = rest.unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }
}

/// Why a damaged file can't be salvaged.
#[derive(Debug, thiserror::Error)]
pub(super) enum SalvageError {
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error(transparent)]
    Newer(#[from] NewerVersion),
}

/// A record that is not settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Waiting { sequence: u64, write: SpoolWrite },
    Letter { sequence: u64, rejected_at: Timestamp, reason: String, write: SpoolWrite },
}

/// The facts about a file that come from all of its records.
#[derive(Clone, Debug, Default)]
pub(super) struct Survey {
    left_queue: Sequences,
    left_letters: Sequences,
    /// The number of records without a sequence.
    unnumbered: u64,
    last_sequence: u64,
}

impl Survey {
    /// Returns a sequence that is above all that [`Survey::unsettled`] gives.
    pub(super) fn next_sequence(&self) -> u64 {
        self.unnumbered + self.last_sequence + 1
    }

    /// Returns how many sequences are neither settled nor `found`. Those of appends that have
    /// failed are among them.
    pub(super) fn missing(&self, found: &Sequences) -> usize {
        let is_missing = |sequence: &u64| {
            let is_settled =
                self.left_queue.contains(*sequence) || self.left_letters.contains(*sequence);
            !is_settled && !found.contains(self.unnumbered + sequence)
        };
        (self.left_queue.below().max(1)..=self.last_sequence).filter(is_missing).count()
    }

    /// Reads the file for the first time.
    ///
    /// # Errors
    /// If it can't be read, or an intact record is of a newer version.
    pub(super) fn of(source: &impl ReadAt) -> Result<Self, SalvageError> {
        let mut survey = Self::default();
        let _: ControlFlow<()> = scan(source, |record, _| {
            survey.add(record);
            ControlFlow::Continue(())
        })?;
        Ok(survey)
    }

    fn add(&mut self, record: Record) {
        match record {
            Record::Waiting { position: None, .. } => self.unnumbered += 1,
            Record::Waiting { position: Some(Position { sequence, settled_below }), .. } => {
                self.last_sequence = self.last_sequence.max(sequence);
                self.left_queue.insert_below(settled_below);
            }
            Record::Letter { sequence, .. } => {
                self.last_sequence = self.last_sequence.max(sequence);
                // It has left the queue to become what it is.
                self.left_queue.insert(sequence);
            }
            Record::Settled(Settled::Below { place, sequence }) => {
                self.left(place).insert_below(sequence);
                self.last_sequence = self.last_sequence.max(sequence.saturating_sub(1));
            }
            Record::Settled(Settled::Block { place, block, bits }) => {
                self.left(place).insert_block(block, &bits);
            }
        }
    }

    fn left(&mut self, place: Place) -> &mut Sequences {
        match place {
            Place::Queue => &mut self.left_queue,
            Place::Letters => &mut self.left_letters,
        }
    }

    /// Reads the file again, and passes what is not settled to `take`, with the length of its
    /// record, until it breaks. A record may come more than once. Those without a sequence get one
    /// before all others, because an earlier version has written them. Any write may have been
    /// sent, because one that was removed may be found again.
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn unsettled<B>(
        &self,
        source: &impl ReadAt,
        mut take: impl FnMut(Found, usize) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, SalvageError> {
        let mut unnumbered = 0;
        scan(source, |record, bytes| {
            let found = match record {
                Record::Waiting { position: None, write } => {
                    unnumbered += 1;
                    Found::Waiting { sequence: unnumbered, write }
                }
                Record::Waiting { position: Some(Position { sequence, .. }), write }
                    if !self.left_queue.contains(sequence) =>
                {
                    Found::Waiting { sequence: self.unnumbered + sequence, write }
                }
                Record::Letter { sequence, rejected_at, reason, write }
                    if !self.left_letters.contains(sequence) =>
                {
                    let sequence = self.unnumbered + sequence;
                    Found::Letter { sequence, rejected_at, reason, write }
                }
                _ => return ControlFlow::Continue(()),
            };
            take(found.maybe_sent(), bytes)
        })
    }
}

impl Found {
    fn maybe_sent(mut self) -> Self {
        let (Self::Waiting { write, .. } | Self::Letter { write, .. }) = &mut self;
        write.maybe_sent = true;
        self
    }
}

/// Returns true if a write that waits has this sequence or a later one.
///
/// # Errors
/// If the file can't be read.
pub(super) fn holds_later(source: &impl ReadAt, next_sequence: u64) -> io::Result<bool> {
    let is_later = |record| match record {
        Record::Waiting { position: Some(position), .. } => position.sequence >= next_sequence,
        _ => false,
    };
    let scanned = scan(source, |record, _| match is_later(record) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    });
    match scanned {
        Ok(ended) => Ok(ended.is_break()),
        Err(SalvageError::Read(fault)) => Err(fault),
        // The rows of the file show whether it is refused for that.
        Err(SalvageError::Newer(_)) => Ok(false),
    }
}

/// Passes every record that stands intact anywhere in the file to `take`, with its length, until it
/// breaks. None is looked for within another.
fn scan<B>(
    source: &impl ReadAt,
    mut take: impl FnMut(Record, usize) -> ControlFlow<B>,
) -> Result<ControlFlow<B>, SalvageError> {
    let mut offset = 0;
    loop {
        let buffer = read(source, offset, BUFFER_BYTES)?;
        let is_end = buffer.len() < BUFFER_BYTES;
        let mut used = 0;
        while let Some(start) = position_of_mark(buffer.get(used..).unwrap_or_default()) {
            used += start;
            let rest = &buffer[used..];
            if rest.len() < HEADER_BYTES && !is_end {
                break;
            }
            let length = record::framed_length(rest).unwrap_or(MARK.len());
            let longer = match length > rest.len() {
                true => read(source, offset + used as u64, length)?,
                false => Vec::new(),
            };
            match record::read(if longer.is_empty() { rest } else { &longer }) {
                Ok((record, length)) => {
                    used += length;
                    if let ControlFlow::Break(reason) = take(record, length) {
                        return Ok(ControlFlow::Break(reason));
                    }
                }
                Err(RecordError::Newer(newer)) => return Err(newer.into()),
                Err(_) => used += MARK.len(),
            }
        }
        if is_end {
            return Ok(ControlFlow::Continue(()));
        }
        // A mark may begin at the buffer's end.
        offset += used.max(buffer.len() + 1 - HEADER_BYTES) as u64;
    }
}

fn position_of_mark(bytes: &[u8]) -> Option<usize> {
    bytes.windows(MARK.len()).position(|window| window == MARK)
}

/// Returns the bytes from `offset` on; fewer than `length` only at the end of the file.
fn read(source: &impl ReadAt, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match source.read_at(&mut bytes[filled..], offset + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{Actor, AnomalyKey, EventId, FixMark, FixRemoval, Operation},
        spool::record::{BLOCK_SEQUENCES, VERSION, encode_letter, encode_settled, encode_waiting},
    };

    fn operation(text: &str) -> Operation {
        Operation::Unmark(FixRemoval {
            key: AnomalyKey::from_bits(7),
            id: EventId::parse(text).unwrap(),
            at: Timestamp::from_micros(7),
            reason: None,
            actor: Actor::default(),
        })
    }

    fn described(description: &str) -> Operation {
        Operation::Mark(FixMark {
            key: AnomalyKey::from_bits(7),
            id: EventId::parse("m").unwrap(),
            at: Timestamp::from_micros(7),
            description: description.to_owned(),
            fixed_by: None,
            actor: Actor::default(),
        })
    }

    fn new(operation: Operation) -> SpoolWrite {
        SpoolWrite { operation, maybe_sent: false }
    }

    fn waiting(sequence: u64, settled_below: u64, text: &str) -> Vec<u8> {
        encode_waiting(Position { sequence, settled_below }, &new(operation(text))).unwrap()
    }

    fn letter(sequence: u64, text: &str) -> Vec<u8> {
        let at = Timestamp::from_micros(9);
        encode_letter(sequence, at, "a reason", &new(operation(text))).unwrap()
    }

    fn settled(settled: Settled) -> Vec<u8> {
        encode_settled(settled).unwrap()
    }

    fn settled_one(place: Place, sequence: u64) -> Vec<u8> {
        let mut bits = vec![0; BLOCK_SEQUENCES as usize / 8];
        bits[sequence as usize % BLOCK_SEQUENCES as usize / 8] = 1 << (sequence % 8);
        settled(Settled::Block { place, block: sequence / BLOCK_SEQUENCES, bits })
    }

    /// A record of an earlier version.
    fn record_of(version: u8, payload: &[u8]) -> Vec<u8> {
        let version = b'0' + version;
        let covered: &[u8] = if version == b'1' { &[] } else { &[version] };
        let checksum = crc32fast::hash(&[covered, payload].concat()).to_le_bytes();
        let length = (payload.len() as u32).to_le_bytes();
        [&MARK, &[version, b'\n'][..], &length, &checksum, payload].concat()
    }

    fn record_v2(text: &str) -> Vec<u8> {
        record_of(2, &postcard::to_stdvec(&(false, operation(text))).unwrap())
    }

    fn unsettled(file: &[u8]) -> Result<Vec<Found>, SalvageError> {
        let mut all = Vec::new();
        let _: ControlFlow<()> = Survey::of(&file)?.unsettled(&file, |found, _| {
            all.push(found);
            ControlFlow::Continue(())
        })?;
        Ok(all)
    }

    /// The sequences and ids of the writes that wait.
    fn found_waiting(file: &[u8]) -> Vec<(u64, String)> {
        let waits = |found| match found {
            Found::Waiting { sequence, write } => {
                assert!(write.maybe_sent, "what was removed may be found again");
                Some((sequence, write.operation.id().to_string()))
            }
            Found::Letter { .. } => None,
        };
        unsettled(file).unwrap().into_iter().filter_map(waits).collect()
    }

    fn is(expected: &[(u64, &str)]) -> Vec<(u64, String)> {
        expected.iter().map(|(sequence, id)| (*sequence, (*id).to_owned())).collect()
    }

    #[test]
    fn whole_records_are_found_between_rubbish() {
        let torn = waiting(2, 0, "torn");
        let file = [
            b"rubbish",
            &waiting(1, 0, "a")[..],
            &[0; 1_000],
            &torn[..torn.len() - 1],
            &MARK,
            &waiting(3, 0, "b"),
        ];
        assert_eq!(found_waiting(&file.concat()), is(&[(1, "a"), (3, "b")]));
    }

    #[test]
    fn a_record_is_found_wherever_the_buffer_ends() {
        let record = waiting(1, 0, "a");
        for before_end in 0..record.len() + 2 {
            let mut file = vec![0xAC; BUFFER_BYTES - before_end];
            file.extend(&record);
            file.extend(waiting(2, 0, "b"));
            assert_eq!(found_waiting(&file), is(&[(1, "a"), (2, "b")]), "{before_end} before it");
        }
    }

    #[test]
    fn a_record_that_is_longer_than_the_buffer_is_found() {
        let long = described(&"x".repeat(3 * BUFFER_BYTES));
        let position = Position { sequence: 1, settled_below: 0 };
        let file = [encode_waiting(position, &new(long)).unwrap(), waiting(2, 0, "b")].concat();
        assert_eq!(found_waiting(&file), is(&[(1, "m"), (2, "b")]));
    }

    #[test]
    fn what_is_settled_is_not_found() {
        let records = [waiting(1, 0, "a"), waiting(2, 0, "b"), waiting(3, 0, "c")].concat();
        let below = settled(Settled::Below { place: Place::Queue, sequence: 2 });
        assert_eq!(found_waiting(&[&records[..], &below].concat()), is(&[(2, "b"), (3, "c")]));
        let one = settled_one(Place::Queue, 2);
        assert_eq!(found_waiting(&[&one, &records[..]].concat()), is(&[(1, "a"), (3, "c")]));
        let later = waiting(9, 3, "i");
        let all = [&records[..], &later].concat();
        assert_eq!(found_waiting(&all), is(&[(3, "c"), (9, "i")]), "a record says so too");
    }

    #[test]
    fn a_dead_letter_stays_one_until_it_is_dropped() {
        let records = [waiting(1, 0, "a"), letter(1, "a"), letter(2, "b")].concat();
        let is_letter = |found: &Found, expected: u64| match found {
            Found::Letter { sequence, rejected_at, reason, .. } => {
                let is_kept = reason == "a reason" && *rejected_at == Timestamp::from_micros(9);
                *sequence == expected && is_kept
            }
            Found::Waiting { .. } => false,
        };
        let found = unsettled(&records).unwrap();
        assert_eq!(found.len(), 2);
        assert!(is_letter(&found[0], 1) && is_letter(&found[1], 2));
        let dropped = settled_one(Place::Letters, 2);
        let found = unsettled(&[&records[..], &dropped].concat()).unwrap();
        assert_eq!(found.len(), 1);
        assert!(is_letter(&found[0], 1));
    }

    #[test]
    fn records_of_earlier_versions_come_before_all_others() {
        let file = [waiting(1, 0, "new"), record_v2("old"), record_v2("older")].concat();
        let found = found_waiting(&file);
        assert_eq!(found, is(&[(3, "new"), (1, "old"), (2, "older")]));
        assert_eq!(Survey::of(&&file[..]).unwrap().next_sequence(), 4);
    }

    #[test]
    fn what_is_missing_is_counted() {
        let file = [waiting(3, 2, "c"), waiting(6, 2, "f"), letter(4, "d")].concat();
        let survey = Survey::of(&&file[..]).unwrap();
        let mut found = Sequences::default();
        assert!(found.insert(3) && found.insert(6) && !found.insert(6));
        assert_eq!(survey.missing(&found), 2, "those of the sequences 2 and 5");
    }

    #[test]
    fn a_record_of_a_newer_version_ends_the_salvage() {
        let file = [waiting(1, 0, "a"), record_of(VERSION + 1, b"whatever it holds")].concat();
        let refused = unsettled(&file).unwrap_err();
        assert!(
            matches!(refused, SalvageError::Newer(NewerVersion { found }) if found == VERSION + 1)
        );
    }

    #[test]
    fn a_text_that_spells_a_record_is_none() {
        // The mark's first byte is the last of a euro sign; of some ids the checksum is a text too.
        let spell = |id: u64| {
            let payload = postcard::to_stdvec(&(false, operation(&id.to_string()))).unwrap();
            String::from_utf8([b"\xE2\x82", &record_of(2, &payload)[..]].concat()).ok()
        };
        let operation = described(&(0..1_000).find_map(spell).unwrap());
        let position = Position { sequence: 1, settled_below: 0 };
        let record = encode_waiting(position, &new(operation)).unwrap();
        let file = [record, waiting(2, 0, "b")].concat();
        assert_eq!(found_waiting(&file), is(&[(1, "m"), (2, "b")]));
    }

    #[test]
    fn no_text_spells_a_record_of_this_version_even_where_its_own_is_damaged() {
        for record in [waiting(1, 0, "a"), settled_one(Place::Queue, 1)] {
            assert!(std::str::from_utf8(&record[HEADER_BYTES..]).is_err());
        }
    }
}
