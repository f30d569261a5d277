//! A way in for `fuzz/`: records are nobody else's business, and in other builds this is not there.

use super::record;
use crate::domain::Operation;

/// The record of `operation`.
///
/// # Errors
/// When it can't be written down.
pub fn encode(operation: &Operation) -> Result<Vec<u8>, String> {
    record::encode(operation).map_err(|error| error.to_string())
}

/// The operation of a record.
///
/// # Errors
/// When it is damaged.
pub fn decode(record: &[u8]) -> Result<Operation, String> {
    record::decode(record).map_err(|damage| damage.to_string())
}

/// Every operation whose record stands whole in `bytes`.
pub fn salvage(bytes: &[u8]) -> Vec<Operation> {
    record::salvage(bytes)
}
