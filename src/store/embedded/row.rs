//! The rows of the embedded store's file: a version byte, and a value in postcard.
//!
//! postcard writes fields in their order and numbers variants by their position. A change of
//! either, in a type that a row holds, is a new version, whose reader keeps the old types.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{anomaly::Anomaly, error::FileError};
use crate::domain::AnomalyKey;

/// The version that is written, and the newest that is read. Commit 8c08e13 wrote the same values
/// as version 1 without the byte in front.
pub(super) const VERSION: u8 = 1;

/// An anomaly with all changes up to and including a journal sequence.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AnomalyRow<A> {
    pub(super) as_of: u64,
    pub(super) anomaly: A,
}

/// Rows of anomalies, and the signatures of those that have none on disk yet.
#[derive(Debug, Default)]
pub(super) struct AnomalyRows {
    pub(super) rows: Vec<(AnomalyKey, Vec<u8>)>,
    pub(super) signatures: Vec<(AnomalyKey, String)>,
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
    ) -> Result<(), FileError> {
        let row = encode(&AnomalyRow { as_of, anomaly })?;
        self.bytes += row.len();
        self.rows.push((key, row));
        if let Some(signature_json) = anomaly.new_signature_json() {
            self.bytes += signature_json.len();
            self.signatures.push((key, signature_json.to_owned()));
        }
        Ok(())
    }
}

pub(super) fn encode(value: &impl Serialize) -> Result<Vec<u8>, FileError> {
    Ok(postcard::to_extend(value, vec![VERSION])?)
}

pub(super) fn decode<T: DeserializeOwned>(row: &[u8]) -> Result<T, FileError> {
    Ok(postcard::from_bytes(payload(row)?)?)
}

/// Returns what follows the version, which must be one that is known.
pub(super) fn payload(row: &[u8]) -> Result<&[u8], FileError> {
    match row.split_first() {
        Some((&VERSION, payload)) => Ok(payload),
        Some((&found, _)) if found > VERSION => {
            Err(FileError::NewerVersion { found, known: VERSION })
        }
        _ => Err(FileError::NoVersion),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_begins_with_its_version() {
        let row = encode(&(7_u64, "text")).unwrap();
        assert_eq!(row[0], VERSION);
        assert_eq!(decode::<(u64, String)>(&row).unwrap(), (7, "text".to_owned()));
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let newer = payload(&[2, 7]);
        let Err(FileError::NewerVersion { found, known }) = newer else { panic!("{newer:?}") };
        assert_eq!(found, VERSION + 1);
        assert_eq!(known, VERSION);
        assert!(matches!(payload(&[0, 7]), Err(FileError::NoVersion)));
        assert!(matches!(payload(&[]), Err(FileError::NoVersion)));
    }
}
