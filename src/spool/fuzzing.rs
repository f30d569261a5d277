//! Access to the records for `fuzz/`; absent from other builds.

use super::record;
use crate::domain::Operation;

/// Returns the record of `operation`.
///
/// # Errors
/// When it can't be encoded.
pub fn encode(operation: &Operation) -> Result<Vec<u8>, String> {
    record::encode(operation).map_err(|error| error.to_string())
}

/// Returns the operation of a record.
///
/// # Errors
/// When the record is damaged or of a newer version.
pub fn decode(record: &[u8]) -> Result<Operation, String> {
    record::decode(record).map_err(|error| error.to_string())
}

/// Returns every operation whose record stands intact in `bytes`; `None` if one is of a newer
/// version.
pub fn salvage(bytes: &[u8]) -> Option<Vec<Operation>> {
    record::salvage(bytes).ok()
}
