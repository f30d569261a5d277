//! Access to the records for `fuzz/`; absent from other builds.

use super::record::{self, SpoolWrite};
use crate::domain::Operation;

/// Returns the record of `operation`.
///
/// # Errors
/// When it can't be encoded.
pub fn encode(operation: &Operation) -> Result<Vec<u8>, String> {
    let write = SpoolWrite { operation: operation.clone(), maybe_sent: false };
    record::encode(&write).map_err(|error| error.to_string())
}

/// Returns the operation of a record.
///
/// # Errors
/// When the record is damaged or of a newer version.
pub fn decode(record: &[u8]) -> Result<Operation, String> {
    record::decode(record).map(|write| write.operation).map_err(|error| error.to_string())
}

/// Returns every operation whose record stands intact in `bytes`; `None` if one is of a newer
/// version.
pub fn salvage(bytes: &[u8]) -> Option<Vec<Operation>> {
    let salvaged = record::salvage(bytes).ok()?;
    Some(salvaged.into_iter().map(|write| write.operation).collect())
}
