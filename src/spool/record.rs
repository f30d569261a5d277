//! One spooled operation as bytes, framed so that it can be found and trusted in a file that is
//! otherwise damaged: a mark, the length, a CRC-32, and the operation (postcard).

use crate::domain::Operation;

/// Eight bytes that are unlikely to stand anywhere else.
const MARK: [u8; 8] = *b"\xACspool1\n";
const HEADER_BYTES: usize = MARK.len() + 4 + 4;
/// No operation is larger: it came in a body of limited size.
const MAX_PAYLOAD_BYTES: usize = 64 << 20;

/// Why bytes are no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Damage {
    #[error("the record is torn")]
    Torn,
    #[error("the record's checksum does not fit")]
    Checksum,
    #[error("the record can't be read: {0}")]
    Content(postcard::Error),
}

/// The record of `operation`.
pub(super) fn encode(operation: &Operation) -> Result<Vec<u8>, postcard::Error> {
    let payload = postcard::to_stdvec(operation)?;
    let mut record = Vec::with_capacity(HEADER_BYTES + payload.len());
    record.extend(MARK);
    record.extend((payload.len() as u32).to_le_bytes());
    record.extend(crc32fast::hash(&payload).to_le_bytes());
    record.extend(payload);
    Ok(record)
}

/// The operation of a record.
pub(super) fn decode(record: &[u8]) -> Result<Operation, Damage> {
    read(record).map(|(operation, _)| operation)
}

/// The operation of the record at the beginning of `record`, and the record's length.
fn read(record: &[u8]) -> Result<(Operation, usize), Damage> {
    let header = record.get(..HEADER_BYTES).ok_or(Damage::Torn)?;
    let (mark, numbers) = header.split_at(MARK.len());
    let (length, checksum) = numbers.split_at(4);
    let length = little_endian(length);
    if mark != MARK || length > MAX_PAYLOAD_BYTES {
        return Err(Damage::Torn);
    }
    let payload = record.get(HEADER_BYTES..HEADER_BYTES + length).ok_or(Damage::Torn)?;
    if crc32fast::hash(payload) as usize != little_endian(checksum) {
        return Err(Damage::Checksum);
    }
    let operation = postcard::from_bytes(payload).map_err(Damage::Content)?;
    Ok((operation, HEADER_BYTES + length))
}

/// Every operation whose record stands whole anywhere in `bytes`, in the order of its place. None is
/// looked for within another, whose texts could spell one.
pub(super) fn salvage(bytes: &[u8]) -> Vec<Operation> {
    let mut operations = Vec::new();
    let mut rest = bytes;
    while let Some(place) = rest.windows(MARK.len()).position(|window| window == MARK) {
        rest = &rest[place..];
        let length = match read(rest) {
            Ok((operation, length)) => {
                operations.push(operation);
                length
            }
            Err(_) => MARK.len(),
        };
        rest = &rest[length..];
    }
    operations
}

fn little_endian(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Actor, AnomalyKey, EventId, FixMark, FixRemoval, Timestamp};

    fn operation(id: &str) -> Operation {
        Operation::Unmark(FixRemoval {
            key: AnomalyKey::from_bits(7),
            id: EventId::parse(id).unwrap(),
            at: Timestamp::from_micros(1_774_799_738_123_456),
            actor: Actor { by: Some("ops".to_owned()), request_id: None },
        })
    }

    #[test]
    fn a_record_gives_its_operation_and_a_damaged_one_gives_none() {
        let record = encode(&operation("a")).unwrap();
        assert_eq!(decode(&record).unwrap(), operation("a"));
        for length in 0..record.len() {
            assert_eq!(decode(&record[..length]), Err(Damage::Torn), "cut to {length}");
        }
        for place in 0..record.len() {
            let mut damaged = record.clone();
            damaged[place] ^= 1;
            assert!(decode(&damaged).is_err(), "a bit of byte {place} has turned");
        }
    }

    #[test]
    fn a_record_of_the_version_that_kept_no_origin_is_read() {
        // The fourth variant with its three fields.
        let payload = postcard::to_stdvec(&(3_u32, 7_u64, "a", 1_774_799_738_000_000_i64)).unwrap();
        let mut record = MARK.to_vec();
        record.extend((payload.len() as u32).to_le_bytes());
        record.extend(crc32fast::hash(&payload).to_le_bytes());
        record.extend(&payload);
        let Operation::Unmark(removal) = decode(&record).unwrap() else { panic!("another kind") };
        assert_eq!((removal.key.to_bits(), removal.id.as_str()), (7, "a"));
        assert_eq!(removal.at, Timestamp::from_micros(1_774_799_738_000_000));
        assert_eq!(removal.actor, Actor::default());
    }

    #[test]
    fn whole_records_are_found_between_rubbish() {
        let mut file = b"rubbish".to_vec();
        file.extend(encode(&operation("a")).unwrap());
        file.extend([0; 1_000]);
        let torn = encode(&operation("b")).unwrap();
        file.extend(&torn[..torn.len() - 1]);
        file.extend(MARK);
        file.extend(encode(&operation("c")).unwrap());
        assert_eq!(salvage(&file), [operation("a"), operation("c")]);
    }

    #[test]
    fn a_text_that_spells_a_record_is_none() {
        // The mark's first byte is the last of a euro sign; of some ids the checksum is a text too.
        let spell = |id: &str| {
            let inner = Operation::Unmark(FixRemoval {
                key: AnomalyKey::from_bits(7),
                id: EventId::parse(id).unwrap(),
                at: Timestamp::from_micros(7),
                actor: Actor::default(),
            });
            String::from_utf8([b"\xE2\x82", &encode(&inner).unwrap()[..]].concat()).ok()
        };
        let description = (0..1_000).find_map(|n| spell(&n.to_string())).unwrap();
        let mark = Operation::Mark(FixMark {
            key: AnomalyKey::from_bits(7),
            id: EventId::parse("a").unwrap(),
            at: Timestamp::from_micros(7),
            description,
            fixed_by: None,
            actor: Actor::default(),
        });
        let file = [encode(&mark).unwrap(), encode(&operation("b")).unwrap()].concat();
        assert_eq!(salvage(&file), [mark, operation("b")]);
    }
}
