//! The records of the spool's file as bytes, framed so that they can be found and trusted in a file
//! that is otherwise damaged: writes that wait, dead letters, and which of both are settled.
//!
//! A record is a mark, a version, a newline, the payload's length, a CRC-32 of version and payload
//! (both numbers of 4 bytes, little-endian), and the payload. The frame is the same in all versions
//! from 2 on, so that an intact record of a newer version is distinguished from a damaged one.
//!
//! - Version 4, which is written: a byte that no text has, so that no text of a caller can spell a
//!   record, and [`Content`] in postcard.
//! - Version 3: the same with occurrences that can't be alerts.
//! - Version 2: in postcard a flag, which is set where the operation may have been sent to the
//!   store before, and the operation. It has no sequence: it does not show what is settled.
//! - Version 1: in postcard the operation, any of which may have been sent. The checksum is of the
//!   payload alone.

use serde::{Deserialize, Serialize};

use super::{record_v1::OperationV1, record_v3::OperationV3};
use crate::domain::{Operation, Timestamp};

/// A write that waits, as a record holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolWrite {
    /// The write itself.
    pub operation: Operation,
    /// True if it may have been sent to the store before it was spooled.
    pub maybe_sent: bool,
}

/// A record by what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// A write that waits.
    Waiting {
        /// Absent in versions before 3.
        position: Option<Position>,
        write: SpoolWrite,
    },
    /// A dead letter.
    Letter { sequence: u64, rejected_at: Timestamp, reason: String, write: SpoolWrite },
    /// Sequences that are settled.
    Settled(Settled),
}

/// Where a write stands in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) sequence: u64,
    /// All below had left the queue when the record was written.
    pub(super) settled_below: u64,
}

/// Where records are until they are settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Place {
    Queue,
    Letters,
}

/// Sequences that have left a place for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Settled {
    Below {
        place: Place,
        sequence: u64,
    },
    /// Those of [`BLOCK_SEQUENCES`], from a multiple of it on, whose bit is set.
    Block {
        place: Place,
        block: u64,
        bits: Vec<u8>,
    },
}

/// Number of sequences in a block of settled ones.
pub(super) const BLOCK_SEQUENCES: u64 = 1_024;

/// The payload of versions 3 and 4, whose operations differ. postcard numbers variants by their
/// position, and writes fields in their order, so that neither may change within the version.
#[derive(Serialize, Deserialize)]
enum Content<O, T> {
    Waiting { sequence: u64, settled_below: u64, maybe_sent: bool, operation: O },
    Letter { sequence: u64, rejected_at: Timestamp, reason: T, maybe_sent: bool, operation: O },
    Settled(Settled),
}

/// The version that is written. Versions 1 to 3 are also read.
pub(super) const VERSION: u8 = 4;

/// The first byte of a payload of version 3 and later: UTF-8 has no such byte.
const NO_TEXT: u8 = 0xFF;

/// Bytes that are unlikely to stand anywhere else.
pub(super) const MARK: [u8; 6] = *b"\xACspool";
/// The mark, the version, a newline, the length and the checksum.
pub(super) const HEADER_BYTES: usize = MARK.len() + 2 + 4 + 4;
/// No operation is larger: it came in a body of limited size.
const MAX_PAYLOAD_BYTES: usize = 64 << 20;

/// Why bytes can't be read as a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    #[error("the record is incomplete")]
    Torn,
    #[error("the record's checksum does not match")]
    Checksum,
    #[error("the record can't be read: {0}")]
    Content(postcard::Error),
    #[error("the record is not a write")]
    Kind,
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

/// Returns the record of a write that waits.
pub(super) fn encode_waiting(
    position: Position,
    write: &SpoolWrite,
) -> Result<Vec<u8>, postcard::Error> {
    let Position { sequence, settled_below } = position;
    let SpoolWrite { operation, maybe_sent } = write;
    let maybe_sent = *maybe_sent;
    encode(&Content::<_, &str>::Waiting { sequence, settled_below, maybe_sent, operation })
}

/// Returns the record of a dead letter.
pub(super) fn encode_letter(
    sequence: u64,
    rejected_at: Timestamp,
    reason: &str,
    write: &SpoolWrite,
) -> Result<Vec<u8>, postcard::Error> {
    let SpoolWrite { operation, maybe_sent } = write;
    let maybe_sent = *maybe_sent;
    encode(&Content::Letter { sequence, rejected_at, reason, maybe_sent, operation })
}

/// Returns the record of sequences that are settled.
pub(super) fn encode_settled(settled: Settled) -> Result<Vec<u8>, postcard::Error> {
    encode(&Content::<&Operation, &str>::Settled(settled))
}

fn encode(content: &impl Serialize) -> Result<Vec<u8>, postcard::Error> {
    Ok(frame(VERSION, &postcard::to_extend(content, vec![NO_TEXT])?))
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
    match read(record)? {
        (Record::Waiting { write, .. } | Record::Letter { write, .. }, _) => Ok(write),
        (Record::Settled(_), _) => Err(RecordError::Kind),
    }
}

/// Returns the length of the record whose header is at the beginning of `bytes`, if it is one.
pub(super) fn framed_length(bytes: &[u8]) -> Option<usize> {
    frame_of(bytes).ok().map(|frame| HEADER_BYTES + frame.payload_length)
}

struct Frame {
    version: u8,
    payload_length: usize,
    checksum: usize,
}

fn frame_of(bytes: &[u8]) -> Result<Frame, RecordError> {
    let header = bytes.get(..HEADER_BYTES).ok_or(RecordError::Torn)?;
    let (mark, header) = header.split_at(MARK.len());
    let (&[version, newline], numbers) = header.split_first_chunk().ok_or(RecordError::Torn)?;
    let (length, checksum) = numbers.split_at(4);
    let (payload_length, checksum) = (little_endian(length), little_endian(checksum));
    let version = version.wrapping_sub(version_byte(0));
    let is_framed = mark == MARK && version > 0 && newline == b'\n';
    if !is_framed || payload_length > MAX_PAYLOAD_BYTES {
        return Err(RecordError::Torn);
    }
    Ok(Frame { version, payload_length, checksum })
}

/// Returns the record at the beginning of `bytes`, and its length.
pub(super) fn read(bytes: &[u8]) -> Result<(Record, usize), RecordError> {
    let Frame { version, payload_length, checksum: expected } = frame_of(bytes)?;
    let length = HEADER_BYTES + payload_length;
    let payload = bytes.get(HEADER_BYTES..length).ok_or(RecordError::Torn)?;
    if checksum(version, payload) as usize != expected {
        return Err(RecordError::Checksum);
    }
    let unnumbered = |(maybe_sent, operation)| {
        let write = SpoolWrite { operation, maybe_sent };
        Record::Waiting { position: None, write }
    };
    let record = match version {
        1 => postcard::from_bytes::<OperationV1>(payload).map(|old| unnumbered((true, old.into()))),
        2 => postcard::from_bytes::<(bool, OperationV3)>(payload)
            .map(|(maybe_sent, old)| unnumbered((maybe_sent, old.into()))),
        3 => postcard::from_bytes::<Content<OperationV3, String>>(content(payload)?)
            .map(Record::from),
        VERSION => {
            postcard::from_bytes::<Content<Operation, String>>(content(payload)?).map(Record::from)
        }
        found => return Err(NewerVersion { found }.into()),
    };
    Ok((record.map_err(RecordError::Content)?, length))
}

/// Returns what follows the first byte of a payload.
fn content(payload: &[u8]) -> Result<&[u8], RecordError> {
    payload.strip_prefix(&[NO_TEXT]).ok_or(RecordError::Kind)
}

impl<O: Into<Operation>> From<Content<O, String>> for Record {
    fn from(content: Content<O, String>) -> Self {
        match content {
            Content::Waiting { sequence, settled_below, maybe_sent, operation } => {
                let position = Some(Position { sequence, settled_below });
                let operation = operation.into();
                Self::Waiting { position, write: SpoolWrite { operation, maybe_sent } }
            }
            Content::Letter { sequence, rejected_at, reason, maybe_sent, operation } => {
                let write = SpoolWrite { operation: operation.into(), maybe_sent };
                Self::Letter { sequence, rejected_at, reason, write }
            }
            Content::Settled(settled) => Self::Settled(settled),
        }
    }
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
    use super::{
        super::{
            record_v1::{ActorV1, FixMarkV1, FixRemovalV1, RepairAttemptV1},
            record_v3::OccurrenceV3,
        },
        *,
    };
    use crate::domain::{
        Action, Actor, AlertEpisode, AlertState, AnomalyKey, EventId, Fingerprint, FixMark,
        FixRemoval, Occurrence, RepairAttempt, Timestamp,
    };

    const KEY: AnomalyKey = AnomalyKey::from_bits(7);

    fn at() -> Timestamp {
        Timestamp::from_micros(1_774_799_738_123_456)
    }

    fn id(text: &str) -> EventId {
        EventId::parse(text).unwrap()
    }

    fn removal(text: &str) -> FixRemoval {
        let actor = Actor { by: Some("ops".to_owned()), ..Actor::default() };
        FixRemoval { key: KEY, id: id(text), at: at(), reason: None, actor }
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

    const POSITION: Position = Position { sequence: 7, settled_below: 3 };

    fn record(text: &str) -> Vec<u8> {
        encode_waiting(POSITION, &new(operation(text))).unwrap()
    }

    fn repair(actor: Actor) -> RepairAttempt {
        let action = Action::parse("restart_pod").unwrap();
        RepairAttempt { key: KEY, id: id("r"), action, success: true, at: at(), actor }
    }

    fn mark(description: &str, actor: Actor) -> FixMark {
        let (description, fixed_by) = (description.to_owned(), Some("ana".to_owned()));
        FixMark { key: KEY, id: id("m"), at: at(), description, fixed_by, actor }
    }

    fn actor_v1(request_id: Option<&str>) -> ActorV1 {
        let request_id = request_id.map(str::to_owned);
        ActorV1 { by: Some("ops".to_owned()), request_id }
    }

    fn removal_v1(text: &str) -> FixRemovalV1 {
        FixRemovalV1 { key: KEY, id: id(text), at: at(), actor: actor_v1(None) }
    }

    fn record_v1(operation: &OperationV1) -> Vec<u8> {
        frame(1, &postcard::to_stdvec(operation).unwrap())
    }

    #[test]
    fn a_record_gives_its_operation_and_a_damaged_one_gives_none() {
        for record in [record("a"), record_v1(&OperationV1::Unmark(removal_v1("a")))] {
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
            let record = encode_waiting(POSITION, &write).unwrap();
            assert_eq!(decode(&record), Ok(write.clone()));
            let expected = Record::Waiting { position: Some(POSITION), write };
            assert_eq!(read(&record), Ok((expected, record.len())));
        }
    }

    #[test]
    fn every_kind_of_version_1_is_read() {
        let (action, at) = (Action::parse("restart_pod").unwrap(), at());
        let (description, fixed_by) = ("raised the limit".to_owned(), Some("ana".to_owned()));
        let signature_json = r#"{"alert_name":"HighCPU"}"#.into();
        let old = OccurrenceV3 { key: KEY, id: id("o"), at, signature_json };
        let occurrence = Occurrence::from(old.clone());
        let old_actor = actor_v1(Some("r-1"));
        let actor = Actor::from(old_actor.clone());
        let nobody = Actor::default();
        let unmark = FixRemoval { key: KEY, id: id("u"), at, reason: None, actor: nobody.clone() };
        let kinds = [
            (OperationV1::Occurrence(old), Operation::Occurrence(occurrence)),
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
            (
                OperationV1::Repair(RepairAttemptV1 {
                    key: KEY,
                    id: id("r"),
                    action: Action::parse("restart_pod").unwrap(),
                    success: true,
                    at,
                    actor: old_actor.clone(),
                }),
                Operation::Repair(repair(actor.clone())),
            ),
            (
                OperationV1::Mark(FixMarkV1 {
                    key: KEY,
                    id: id("m"),
                    at,
                    description: "raised".to_owned(),
                    fixed_by: Some("ana".to_owned()),
                    actor: old_actor,
                }),
                Operation::Mark(mark("raised", actor)),
            ),
            (OperationV1::Unmark(removal_v1("u")), operation("u")),
        ];
        for (position, (old, expected)) in kinds.into_iter().enumerate() {
            let record = record_v1(&old);
            assert!(record.starts_with(b"\xACspool1\n"));
            assert_eq!(record[HEADER_BYTES], position as u8, "postcard's number of the variant");
            assert_eq!(decode(&record), Ok(maybe_sent(expected)));
        }
    }

    #[test]
    fn an_intact_record_of_a_newer_version_is_no_damage() {
        let newer = frame(VERSION + 1, b"whatever it holds");
        let found = NewerVersion { found: VERSION + 1 };
        assert_eq!(decode(&newer), Err(RecordError::Newer(found.clone())));
    }

    #[test]
    fn an_alert_reads_back() {
        let episode = AlertEpisode {
            fingerprint: Fingerprint::of("f"),
            starts_at: None,
            delivered_at: at(),
            state: AlertState::Interrupted { ends_at: Some(at().minus_seconds(7)) },
        };
        let (signature_json, episode) = ("{}".into(), Some(Box::new(episode)));
        let (id, at, rule) = (id("f"), at(), None);
        let alert = Occurrence { key: KEY, id, at, signature_json, episode, rule };
        let write = new(Operation::Occurrence(alert));
        assert_eq!(decode(&encode_waiting(POSITION, &write).unwrap()), Ok(write));
    }

    fn operation_v3() -> OperationV3 {
        let (key, id, signature_json) = (KEY, id("o"), r#"{"alert_name":"A"}"#.into());
        OperationV3::Occurrence(OccurrenceV3 { key, id, at: at(), signature_json })
    }

    #[test]
    fn a_record_of_version_3_is_read() {
        let payload = Content::<_, &str>::Waiting {
            sequence: 7,
            settled_below: 3,
            maybe_sent: true,
            operation: operation_v3(),
        };
        let payload = postcard::to_extend(&payload, vec![NO_TEXT]).unwrap();
        let record = frame(3, &payload);
        let write = maybe_sent(operation_v3().into());
        let expected = Record::Waiting { position: Some(POSITION), write };
        assert_eq!(read(&record), Ok((expected, record.len())));
    }

    #[test]
    fn a_record_of_version_2_is_read() {
        for is_sent in [false, true] {
            let old = OperationV3::Unmark(removal("a"));
            let record = frame(2, &postcard::to_stdvec(&(is_sent, old)).unwrap());
            let write = SpoolWrite { operation: operation("a"), maybe_sent: is_sent };
            assert_eq!(decode(&record), Ok(write.clone()));
            let expected = Record::Waiting { position: None, write };
            assert_eq!(read(&record), Ok((expected, record.len())));
        }
    }

    #[test]
    fn a_dead_letter_and_what_is_settled_read_back() {
        let write = maybe_sent(operation("a"));
        let letter = encode_letter(7, at(), "a reason", &write).unwrap();
        assert_eq!(decode(&letter), Ok(write.clone()));
        let reason = "a reason".to_owned();
        let expected = Record::Letter { sequence: 7, rejected_at: at(), reason, write };
        assert_eq!(read(&letter), Ok((expected, letter.len())));

        let settled = Settled::Below { place: Place::Letters, sequence: 7 };
        let record = encode_settled(settled.clone()).unwrap();
        assert_eq!(read(&record), Ok((Record::Settled(settled), record.len())));
        assert_eq!(decode(&record), Err(RecordError::Kind));
    }
}
