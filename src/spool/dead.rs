//! The dead letters in the spool's file: the writes that the store has rejected for good, with the
//! reason and the time. Their number and age are bounded; the oldest are dropped first.

use redb::{ReadableTable as _, ReadableTableMetadata as _, TableDefinition, WriteTransaction};

use super::{
    error::SpoolError,
    record::{SpoolWrite, decode},
    usage::Usage,
};
use crate::domain::{Operation, Timestamp};

/// Sequence → reason and record.
pub(super) const DEAD: TableDefinition<'_, u64, (&str, &[u8])> = TableDefinition::new("dead_v1");
/// Sequence → time of the rejection, in microseconds. Earlier versions have written none.
pub(super) const DIED: TableDefinition<'_, u64, i64> = TableDefinition::new("died_v1");

/// Maximum number of dead letters.
const MAX_LETTERS: u64 = 10_000;
/// How long a dead letter is kept: 35 days, in seconds, as an anomaly after its last event.
const KEPT_SECONDS: i64 = 35 * 86_400;

/// A write that the store has rejected for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The position that it had in the order.
    pub sequence: u64,
    /// Why it was rejected.
    pub reason: String,
    /// The operation itself; absent if its record is damaged.
    pub operation: Option<Operation>,
}

/// Adds a dead letter, and drops the oldest beyond the maximum number.
pub(super) fn bury(
    transaction: &WriteTransaction,
    usage: &mut Usage,
    now: Timestamp,
    (sequence, reason, record): (u64, &str, &[u8]),
) -> Result<(), SpoolError> {
    let mut dead = transaction.open_table(DEAD)?;
    dead.insert(sequence, (reason, record))?;
    transaction.open_table(DIED)?.insert(sequence, now.as_micros())?;
    usage.dead += letter_bytes(reason, record);
    usage.letters += 1;
    drop(dead);
    while usage.letters > MAX_LETTERS && drop_oldest(transaction, usage)? {}
    Ok(())
}

/// Drops the oldest dead letter because there is no room for it. Returns false if there is none.
pub(super) fn drop_oldest(
    transaction: &WriteTransaction,
    usage: &mut Usage,
) -> Result<bool, SpoolError> {
    let oldest = transaction.open_table(DEAD)?.first()?.map(|(sequence, _)| sequence.value());
    let Some(sequence) = oldest else { return Ok(false) };
    usage.dropped_letters += 1;
    Ok(remove(transaction, usage, sequence)?.is_some())
}

/// Removes a dead letter, and returns its record.
pub(super) fn remove(
    transaction: &WriteTransaction,
    usage: &mut Usage,
    sequence: u64,
) -> Result<Option<Vec<u8>>, SpoolError> {
    let mut dead = transaction.open_table(DEAD)?;
    let Some(letter) = dead.remove(sequence)? else { return Ok(None) };
    let (reason, record) = letter.value();
    usage.dead = usage.dead.saturating_sub(letter_bytes(reason, record));
    usage.letters = usage.letters.saturating_sub(1);
    let record = record.to_vec();
    transaction.open_table(DIED)?.remove(sequence)?;
    Ok(Some(record))
}

/// Drops the dead letters that are older than 35 days, and gives those without a time the time
/// `now`.
pub(super) fn expire(
    transaction: &WriteTransaction,
    usage: &mut Usage,
    now: Timestamp,
) -> Result<(), SpoolError> {
    let oldest_kept = now.minus_seconds(KEPT_SECONDS).as_micros();
    let mut died = transaction.open_table(DIED)?;
    let dead = transaction.open_table(DEAD)?;
    if died.len()? < dead.len()? {
        for entry in dead.iter()? {
            let sequence = entry?.0.value();
            if died.get(sequence)?.is_none() {
                died.insert(sequence, now.as_micros())?;
            }
        }
    }
    let mut expired = Vec::new();
    for entry in died.iter()? {
        let (sequence, at) = entry?;
        if at.value() < oldest_kept {
            expired.push(sequence.value());
        }
    }
    drop((died, dead));
    for sequence in expired {
        remove(transaction, usage, sequence)?;
    }
    Ok(())
}

/// Returns a dead letter of these rows.
pub(super) fn letter(sequence: u64, (reason, record): (&str, &[u8])) -> DeadLetter {
    let operation = decode(record).ok().map(|SpoolWrite { operation, .. }| operation);
    DeadLetter { sequence, reason: reason.to_owned(), operation }
}

/// The bytes by which a dead letter counts in the budget.
pub(super) fn letter_bytes(reason: &str, record: &[u8]) -> u64 {
    (reason.len() + record.len()) as u64
}
