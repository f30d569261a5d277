//! One spooled operation as bytes, framed so that it can be found and trusted in a file that is
//! otherwise damaged.
//!
//! A record is a mark, a version, a newline, the payload's length, a CRC-32 of version and payload
//! (both numbers of 4 bytes, little-endian), and the payload in postcard: a flag and the operation.
//! The flag is set where the operation may have been sent to the store before. The frame is the
//! same in all versions from 2 on, so that an intact record of a newer version is distinguished
//! from a damaged one. In version 1 the checksum is of the payload alone, and there is no flag: any
//! of its operations may have been sent.

use super::record_v1::OperationV1;
use crate::domain::Operation;

/// A write that waits, as a record holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolWrite {
    /// The write itself.
    pub operation: Operation,
    /// True if it may have been sent to the store before it was spooled.
    pub maybe_sent: bool,
}

/// The version that is written. Version 1 is also read.
pub(super) const VERSION: u8 = 2;

/// Bytes that are unlikely to stand anywhere else.
const MARK: [u8; 6] = *b"\xACspool";
/// The mark, the version, a newline, the length and the checksum.
const HEADER_BYTES: usize = MARK.len() + 2 + 4 + 4;
/// No operation is larger: it came in a body of limited size.
const MAX_PAYLOAD_BYTES: usize = 64 << 20;

/// Why bytes can't be read as a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    #[error("the record is torn")]
    Torn,
    #[error("the record's checksum does not fit")]
    Checksum,
    #[error("the record can't be read: {0}")]
    Content(postcard::Error),
    /// It is intact.
    #[error(transparent)]
    Newer(#[from] NewerVersion),
}

/// That a record is of a version which this program does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record is of version {found}, written by a newer version of this program")]
pub(super) struct NewerVersion {
    pub(super) found: u8,
}

/// Returns the record of `write`.
pub(super) fn encode(write: &SpoolWrite) -> Result<Vec<u8>, postcard::Error> {
    Ok(frame(VERSION, &postcard::to_stdvec(&(write.maybe_sent, &write.operation))?))
}

fn frame(version: u8, payload: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEADER_BYTES + payload.len());
    record.extend(MARK);
    record.extend([version_byte(version), b'\n']);
    record.extend((payload.len() as u32).to_le_bytes());
    record.extend(checksum(version, payload).to_le_bytes());
    record.extend(payload);
    record
}

/// Returns the write of a record.
pub(super) fn decode(record: &[u8]) -> Result<SpoolWrite, RecordError> {
    read(record).map(|(write, _)| write)
}

/// Returns the write of the record at the beginning of `bytes`, and the record's length.
fn read(bytes: &[u8]) -> Result<(SpoolWrite, usize), RecordError> {
    let header = bytes.get(..HEADER_BYTES).ok_or(RecordError::Torn)?;
    let (mark, header) = header.split_at(MARK.len());
    let (&[version, newline], numbers) = header.split_first_chunk().ok_or(RecordError::Torn)?;
    let (length, expected) = numbers.split_at(4);
    let length = little_endian(length);
    let version = version.wrapping_sub(version_byte(0));
    let is_framed = mark == MARK && version > 0 && newline == b'\n';
    if !is_framed || length > MAX_PAYLOAD_BYTES {
        return Err(RecordError::Torn);
    }
    let payload = bytes.get(HEADER_BYTES..HEADER_BYTES + length).ok_or(RecordError::Torn)?;
    if checksum(version, payload) as usize != little_endian(expected) {
        return Err(RecordError::Checksum);
    }
    let content = match version {
        1 => postcard::from_bytes::<OperationV1>(payload).map(|old| (true, old.into())),
        VERSION => postcard::from_bytes(payload),
        found => return Err(NewerVersion { found }.into()),
    };
    let (maybe_sent, operation) = content.map_err(RecordError::Content)?;
    Ok((SpoolWrite { operation, maybe_sent }, HEADER_BYTES + length))
}

/// Returns every write whose record stands intact anywhere in `bytes`, in the order of their
/// positions. None is looked for within another, whose texts could spell one. Any of them may have
/// been sent, because a record that was removed may be found again.
///
/// # Errors
/// If an intact record is of a newer version.
pub(super) fn salvage(bytes: &[u8]) -> Result<Vec<SpoolWrite>, NewerVersion> {
    let mut writes = Vec::new();
    let mut rest = bytes;
    while let Some(start) = rest.windows(MARK.len()).position(|window| window == MARK) {
        rest = &rest[start..];
        let length = match read(rest) {
            Ok((write, length)) => {
                writes.push(SpoolWrite { maybe_sent: true, ..write });
                length
            }
            Err(RecordError::Newer(newer)) => return Err(newer),
            Err(_) => MARK.len(),
        };
        rest = &rest[length..];
    }
    Ok(writes)
}

/// Versions are digits, as the first one was.
fn version_byte(version: u8) -> u8 {
    b'0'.wrapping_add(version)
}

fn checksum(version: u8, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    if version > 1 {
        hasher.update(&[version_byte(version)]);
    }
    hasher.update(payload);
    hasher.finalize()
}

fn little_endian(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        Action, Actor, AnomalyKey, EventId, FixMark, FixRemoval, Occurrence, RepairAttempt,
        Timestamp,
    };

    const KEY: AnomalyKey = AnomalyKey::from_bits(7);

    fn at() -> Timestamp {
        Timestamp::from_micros(1_774_799_738_123_456)
    }

    fn id(text: &str) -> EventId {
        EventId::parse(text).unwrap()
    }

    fn removal(text: &str) -> FixRemoval {
        let actor = Actor { by: Some("ops".to_owned()), request_id: None };
        FixRemoval { key: KEY, id: id(text), at: at(), actor }
    }

    fn operation(text: &str) -> Operation {
        Operation::Unmark(removal(text))
    }

    fn new(operation: Operation) -> SpoolWrite {
        SpoolWrite { operation, maybe_sent: false }
    }

    fn maybe_sent(operation: Operation) -> SpoolWrite {
        SpoolWrite { operation, maybe_sent: true }
    }

    fn record(text: &str) -> Vec<u8> {
        encode(&new(operation(text))).unwrap()
    }

    fn repair(actor: Actor) -> RepairAttempt {
        let action = Action::parse("restart_pod").unwrap();
        RepairAttempt { key: KEY, id: id("r"), action, success: true, at: at(), actor }
    }

    fn mark(description: &str, actor: Actor) -> FixMark {
        let (description, fixed_by) = (description.to_owned(), Some("ana".to_owned()));
        FixMark { key: KEY, id: id("m"), at: at(), description, fixed_by, actor }
    }

    fn record_v1(operation: &OperationV1) -> Vec<u8> {
        frame(1, &postcard::to_stdvec(operation).unwrap())
    }

    #[test]
    fn a_record_gives_its_operation_and_a_damaged_one_gives_none() {
        for record in [record("a"), record_v1(&OperationV1::Unmark(removal("a")))] {
            assert_eq!(decode(&record).unwrap().operation, operation("a"));
            for length in 0..record.len() {
                assert_eq!(decode(&record[..length]), Err(RecordError::Torn), "cut to {length}");
            }
            for index in 0..record.len() {
                for bit in 0..8 {
                    let mut damaged = record.clone();
                    damaged[index] ^= 1 << bit;
                    let error = decode(&damaged).expect_err("a bit has turned");
                    let is_newer = matches!(error, RecordError::Newer(_));
                    assert!(!is_newer, "bit {bit} of byte {index} has turned: {error}");
                }
            }
        }
    }

    #[test]
    fn a_record_says_whether_its_operation_may_have_been_sent() {
        for write in [new(operation("a")), maybe_sent(operation("a"))] {
            assert_eq!(decode(&encode(&write).unwrap()), Ok(write));
        }
    }

    #[test]
    fn every_kind_of_version_1_is_read() {
        let (action, at) = (Action::parse("restart_pod").unwrap(), at());
        let (description, fixed_by) = ("raised the limit".to_owned(), Some("ana".to_owned()));
        let signature_json = r#"{"alert_name":"HighCPU"}"#.into();
        let occurrence = Occurrence { key: KEY, id: id("o"), at, signature_json };
        let actor = Actor { by: Some("ops".to_owned()), request_id: Some("r-1".to_owned()) };
        let nobody = Actor::default();
        let unmark = FixRemoval { key: KEY, id: id("u"), at, actor: nobody.clone() };
        let kinds = [
            (OperationV1::Occurrence(occurrence.clone()), Operation::Occurrence(occurrence)),
            (
                OperationV1::RepairWithoutActor {
                    key: KEY,
                    id: id("r"),
                    action,
                    success: true,
                    at,
                },
                Operation::Repair(repair(nobody.clone())),
            ),
            (
                OperationV1::MarkWithoutActor { key: KEY, id: id("m"), at, description, fixed_by },
                Operation::Mark(mark("raised the limit", nobody)),
            ),
            (
                OperationV1::UnmarkWithoutActor { key: KEY, id: id("u"), at },
                Operation::Unmark(unmark),
            ),
            (OperationV1::Repair(repair(actor.clone())), Operation::Repair(repair(actor.clone()))),
            (
                OperationV1::Mark(mark("raised", actor.clone())),
                Operation::Mark(mark("raised", actor)),
            ),
            (OperationV1::Unmark(removal("u")), operation("u")),
        ];
        for (position, (old, expected)) in kinds.into_iter().enumerate() {
            let record = record_v1(&old);
            assert!(record.starts_with(b"\xACspool1\n"));
            assert_eq!(record[HEADER_BYTES], position as u8, "postcard's number of the variant");
            assert_eq!(decode(&record), Ok(maybe_sent(expected)));
        }
    }

    #[test]
    fn whole_records_of_either_version_are_found_between_rubbish() {
        let mut file = b"rubbish".to_vec();
        file.extend(record("a"));
        file.extend([0; 1_000]);
        let torn = record("b");
        file.extend(&torn[..torn.len() - 1]);
        file.extend(MARK);
        file.extend(record_v1(&OperationV1::Unmark(removal("c"))));
        file.extend(record("d"));
        assert_eq!(
            salvage(&file),
            Ok(["a", "c", "d"].map(|text| maybe_sent(operation(text))).to_vec())
        );
    }

    #[test]
    fn an_intact_record_of_a_newer_version_is_no_damage() {
        let newer = frame(VERSION + 1, b"whatever it holds");
        let found = NewerVersion { found: VERSION + 1 };
        assert_eq!(decode(&newer), Err(RecordError::Newer(found.clone())));
        let file = [record("a"), newer].concat();
        assert_eq!(salvage(&file), Err(found));
    }

    #[test]
    fn a_text_that_spells_a_record_is_none() {
        // The mark's first byte is the last of a euro sign; of some ids the checksum is a text too.
        let spell = |text: &str| {
            let inner = Operation::Unmark(FixRemoval {
                key: KEY,
                id: id(text),
                at: Timestamp::from_micros(7),
                actor: Actor::default(),
            });
            String::from_utf8([b"\xE2\x82", &encode(&new(inner)).unwrap()[..]].concat()).ok()
        };
        let description = (0..1_000).find_map(|n| spell(&n.to_string())).unwrap();
        let mark = Operation::Mark(mark(&description, Actor::default()));
        let file = [encode(&new(mark.clone())).unwrap(), record("b")].concat();
        assert_eq!(salvage(&file), Ok(vec![maybe_sent(mark), maybe_sent(operation("b"))]));
    }
}
