//! Access to the records for `fuzz/`; absent from other builds.

use std::ops::ControlFlow;

use super::{
    record::{self, Position, SpoolWrite},
    salvage::{Found, Survey},
};
use crate::domain::Operation;

/// Returns the record of `operation`, as a write that waits at the position `sequence`.
///
/// # Errors
/// When it can't be encoded.
pub fn encode(sequence: u64, operation: &Operation) -> Result<Vec<u8>, String> {
    let write = SpoolWrite { operation: operation.clone(), maybe_sent: false };
    record::encode_waiting(Position { sequence, settled_below: 0 }, &write)
        .map_err(|error| error.to_string())
}

/// Returns the operation of a record.
///
/// # Errors
/// When the record is damaged or of a newer version.
pub fn decode(record: &[u8]) -> Result<Operation, String> {
    record::decode(record).map(|write| write.operation).map_err(|error| error.to_string())
}

/// Returns every operation that is not settled and whose record stands intact in `bytes`; `None` if
/// one is of a newer version.
pub fn salvage(bytes: &[u8]) -> Option<Vec<Operation>> {
    let mut operations = Vec::new();
    let survey = Survey::of(&bytes).ok()?;
    let ended = survey.unsettled(&bytes, |found, _| {
        let (Found::Waiting { write, .. } | Found::Letter { write, .. }) = found;
        operations.push(write.operation);
        ControlFlow::<()>::Continue(())
    });
    ended.ok().map(|_| operations)
}
