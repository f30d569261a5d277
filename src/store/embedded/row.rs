//! The rows of the embedded store's file. Each has a frame, so that it can be verified by itself,
//! and found in a file that is otherwise damaged.
//!
//! A row is its version, a mark, its kind, the payload's length, a CRC-32 of version, kind and
//! payload (both numbers of 4 bytes, little-endian), and the payload in postcard: the row's key and
//! its value. redb has checksums too, but verifies them only when the file is opened, and computes
//! them again for a page that it copies. The frame is the same in all versions from 2 on, so that
//! an intact row of a newer version is distinguished from a damaged one. Rows of version 2 have no
//! alerts. Version 4 is the same as version 6, but has no file for the newest rows of the journal.
//! There is no version 3 or 5, because one flipped bit would make it version 1. A row of version 1
//! is the version and the value; a signature of that version is its JSON.
//!
//! postcard writes fields in their order and numbers variants by their position. A change of either
//! in a type of a row needs a new version, whose reader keeps the old types.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    anomaly::{Anomaly, AnomalyV2},
    audit_v1::AuditEntryV1,
    error::RowError,
    journal::{JournalRow, JournalRowV1},
};
use crate::domain::{AnomalyKey, AuditEntry};

/// The version that is written, which is also the newest that is read.
pub(super) const VERSION: u8 = 6;
/// The first version with a frame.
const VERSION_2: u8 = 2;
/// The oldest version that is read. Commit 8c08e13 wrote the same values without a version byte.
pub(super) const VERSION_1: u8 = 1;

/// Bytes that can't occur in a text, and are unlikely to occur elsewhere.
pub(super) const MARK: [u8; 4] = *b"\xACrow";
/// The version and the mark at the beginning of a row.
pub(super) const BEGINNING: [u8; 5] = *b"\x06\xACrow";
/// Size of the beginning, the kind, the length and the checksum.
pub(super) const HEADER_BYTES: usize = BEGINNING.len() + 1 + 4 + 4;
/// No row is larger: a batch has a limited number of elements, which arrived in bodies of limited
/// size.
const MAX_PAYLOAD_BYTES: usize = 1 << 30;

/// The kind of a row: the table that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Anomaly,
    Signature,
    Audit,
    Journal,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Anomaly, Self::Signature, Self::Audit, Self::Journal];

    /// Returns the name for the content of such rows.
    pub(super) const fn plural(self) -> &'static str {
        match self {
            Self::Anomaly => "anomalies",
            Self::Signature => "signatures",
            Self::Audit => "audit entries",
            Self::Journal => "batches of the journal",
        }
    }

    /// Returns its byte in the frame.
    const fn byte(self) -> u8 {
        match self {
            Self::Anomaly => b'A',
            Self::Signature => b'S',
            Self::Audit => b'U',
            Self::Journal => b'J',
        }
    }
}

/// The header of a row of version 2 or newer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) version: u8,
    pub(super) kind: Kind,
    pub(super) payload_bytes: usize,
    pub(super) checksum: u32,
}

impl Header {
    /// Reads the header at the beginning of `bytes`.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, RowError> {
        let header = bytes.first_chunk::<HEADER_BYTES>().ok_or(RowError::Torn)?;
        let [version, m0, m1, m2, m3, kind, l0, l1, l2, l3, c0, c1, c2, c3] = *header;
        let kind = Kind::ALL.into_iter().find(|known| known.byte() == kind);
        let payload_bytes = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let is_framed = version >= VERSION_2 && [m0, m1, m2, m3] == MARK;
        match kind {
            Some(kind) if is_framed && payload_bytes <= MAX_PAYLOAD_BYTES => Ok(Self {
                version,
                kind,
                payload_bytes,
                checksum: u32::from_le_bytes([c0, c1, c2, c3]),
            }),
            _ => Err(RowError::Torn),
        }
    }

    /// Verifies the payload of the row and the row's version.
    pub(super) fn verify(self, payload: &[u8]) -> Result<(), RowError> {
        if payload.len() != self.payload_bytes {
            return Err(RowError::Torn);
        }
        if checksum(self.version, self.kind, payload) != self.checksum {
            return Err(RowError::Checksum);
        }
        if self.version > VERSION {
            return Err(RowError::Newer { found: self.version, known: VERSION });
        }
        Ok(())
    }
}

/// An anomaly including all changes up to a journal sequence.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AnomalyRow<A> {
    pub(super) as_of: u64,
    pub(super) anomaly: A,
}

impl From<AnomalyRow<AnomalyV2>> for AnomalyRow<Anomaly> {
    fn from(AnomalyRow { as_of, anomaly }: AnomalyRow<AnomalyV2>) -> Self {
        Self { as_of, anomaly: anomaly.into() }
    }
}

/// The object that made an anomaly known, as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SignatureRow<S> {
    /// The sequence of the journal when it was written: an expired anomaly may start again with
    /// another object.
    pub(super) as_of: u64,
    pub(super) json: S,
}

/// Rows of anomalies, and the signatures of those without one on disk.
#[derive(Debug, Default)]
pub(super) struct AnomalyRows {
    pub(super) rows: Vec<(AnomalyKey, Vec<u8>)>,
    pub(super) signatures: Vec<(AnomalyKey, Vec<u8>)>,
    pub(super) bytes: usize,
}

impl AnomalyRows {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn add(
        &mut self,
        as_of: u64,
        key: AnomalyKey,
        anomaly: &Anomaly,
    ) -> Result<(), RowError> {
        let row = encode(Kind::Anomaly, key.to_bits(), &AnomalyRow { as_of, anomaly })?;
        self.bytes += row.len();
        self.rows.push((key, row));
        if let Some(json) = anomaly.new_signature_json() {
            self.add_signature(as_of, key, json)?;
        }
        Ok(())
    }

    pub(super) fn add_signature(
        &mut self,
        as_of: u64,
        key: AnomalyKey,
        json: &str,
    ) -> Result<(), RowError> {
        let row = encode(Kind::Signature, key.to_bits(), &SignatureRow { as_of, json })?;
        self.bytes += row.len();
        self.signatures.push((key, row));
        Ok(())
    }
}

/// Encodes a value as a row, for its key in the table of `kind`.
pub(super) fn encode(
    kind: Kind,
    key: impl Serialize,
    value: &impl Serialize,
) -> Result<Vec<u8>, RowError> {
    let mut row = postcard::to_extend(&(key, value), vec![0; HEADER_BYTES])?;
    let (header, payload) = row.split_at_mut(HEADER_BYTES);
    let length = u32::try_from(payload.len()).map_err(|_| RowError::Torn)?;
    header[..BEGINNING.len()].copy_from_slice(&BEGINNING);
    header[5] = kind.byte();
    header[6..10].copy_from_slice(&length.to_le_bytes());
    header[10..].copy_from_slice(&checksum(VERSION, kind, payload).to_le_bytes());
    Ok(row)
}

/// Returns the anomaly of a row.
pub(super) fn decode_anomaly(key: u64, row: &[u8]) -> Result<AnomalyRow<Anomaly>, RowError> {
    match row.first() {
        Some(&(VERSION_1 | VERSION_2)) => {
            decode::<_, AnomalyRow<AnomalyV2>>(Kind::Anomaly, &key, row).map(AnomalyRow::from)
        }
        _ => decode(Kind::Anomaly, &key, row),
    }
}

/// Returns the key and the anomaly of the payload of a row with a frame.
pub(super) fn anomaly_of_payload(
    version: u8,
    payload: &[u8],
) -> Result<(u64, AnomalyRow<Anomaly>), RowError> {
    if version == VERSION_2 {
        let (key, row) = whole::<(u64, AnomalyRow<AnomalyV2>)>(payload)?;
        return Ok((key, row.into()));
    }
    whole(payload)
}

/// Returns the value of a row, which must be that of the key in the table of `kind`.
pub(super) fn decode<K, T>(kind: Kind, key: &K, row: &[u8]) -> Result<T, RowError>
where
    K: DeserializeOwned + PartialEq,
    T: DeserializeOwned,
{
    if let Some((&VERSION_1, value)) = row.split_first() {
        return whole(value);
    }
    let payload = payload(kind, row)?;
    let (of, value) = whole::<(K, T)>(payload)?;
    if of == *key { Ok(value) } else { Err(RowError::Misplaced) }
}

/// Returns the JSON of a signature's row.
pub(super) fn decode_signature(key: u64, row: &[u8]) -> Result<String, RowError> {
    // Version 1 has no frame. No row of a later version begins with this byte.
    if row.first() == Some(&b'{') {
        return String::from_utf8(row.to_vec()).map_err(|_| RowError::Torn);
    }
    decode::<_, SignatureRow<String>>(Kind::Signature, &key, row).map(|signature| signature.json)
}

/// Returns the entry of an audit's row.
pub(super) fn decode_audit<K>(key: &K, row: &[u8]) -> Result<AuditEntry, RowError>
where
    K: DeserializeOwned + PartialEq,
{
    match row.split_first() {
        Some((&VERSION_1, value)) => whole::<AuditEntryV1>(value).map(AuditEntry::from),
        _ => decode(Kind::Audit, key, row),
    }
}

/// Returns a row of the journal.
pub(super) fn decode_journal(sequence: u64, row: &[u8]) -> Result<JournalRow, RowError> {
    match row.split_first() {
        Some((&VERSION_1, value)) => whole::<JournalRowV1>(value).map(JournalRow::from),
        _ => decode(Kind::Journal, &sequence, row),
    }
}

/// Returns the sequence in the payload of a row of the journal.
pub(super) fn sequence_of_payload(payload: &[u8]) -> Result<u64, RowError> {
    Ok(postcard::take_from_bytes(payload)?.0)
}

/// Decodes the value in `bytes`, which must contain nothing else.
pub(super) fn whole<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RowError> {
    match postcard::take_from_bytes(bytes)? {
        (value, []) => Ok(value),
        _ => Err(RowError::Torn),
    }
}

fn payload(kind: Kind, row: &[u8]) -> Result<&[u8], RowError> {
    let header = Header::read(row)?;
    let payload = row.get(HEADER_BYTES..).ok_or(RowError::Torn)?;
    header.verify(payload)?;
    if header.kind == kind { Ok(payload) } else { Err(RowError::Misplaced) }
}

fn checksum(version: u8, kind: Kind, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[version, kind.byte()]);
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Vec<u8> {
        encode(Kind::Anomaly, 7_u64, &"text".to_owned()).unwrap()
    }

    fn decoded(row: &[u8]) -> Result<String, RowError> {
        decode(Kind::Anomaly, &7_u64, row)
    }

    #[test]
    fn a_row_begins_with_its_version_and_gives_its_value_back() {
        assert_eq!(row()[0], VERSION);
        assert_eq!(row()[..5], BEGINNING);
        assert_eq!(decoded(&row()).unwrap(), "text");
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let row = row();
        for bit in 0..row.len() * 8 {
            let mut damaged = row.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let read = decoded(&damaged);
            assert!(matches!(read, Err(RowError::Torn | RowError::Checksum)), "{bit}: {read:?}");
        }
        assert!(matches!(decoded(&row[..row.len() - 1]), Err(RowError::Torn)));
        assert!(matches!(decoded(&[]), Err(RowError::Torn)));
    }

    #[test]
    fn a_row_of_another_key_or_table_is_noticed() {
        let other_key = decode::<_, String>(Kind::Anomaly, &8_u64, &row());
        assert!(matches!(other_key, Err(RowError::Misplaced)), "{other_key:?}");
        let other_table = decode::<_, String>(Kind::Journal, &7_u64, &row());
        assert!(matches!(other_table, Err(RowError::Misplaced)), "{other_table:?}");
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut newer = row();
        newer[0] = VERSION + 1;
        assert!(matches!(decoded(&newer), Err(RowError::Checksum)));
        let checksum = checksum(VERSION + 1, Kind::Anomaly, &newer[HEADER_BYTES..]);
        newer[10..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
        let read = decoded(&newer);
        let Err(RowError::Newer { found, known }) = read else { panic!("{read:?}") };
        assert_eq!(found, VERSION + 1);
        assert_eq!(known, VERSION);
    }

    #[test]
    fn rows_of_version_1_are_read() {
        let old = postcard::to_extend("text", vec![VERSION_1]).unwrap();
        assert_eq!(decoded(&old).unwrap(), "text");
        assert_eq!(decode_signature(7, br#"{"a":1}"#).unwrap(), r#"{"a":1}"#);
    }
}
