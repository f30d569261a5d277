//! The held writes in the spool's file: those that the store had acknowledged last when it became
//! unavailable. They do not wait: they are sent again only if the store has forgotten them. The
//! rows are not framed as records, so that the salvage of a damaged file does not find them.

use redb::{ReadableTable as _, TableDefinition, WriteTransaction};

use super::{error::SpoolError, usage::Usage};
use crate::domain::{Operation, Timestamp};

/// Shard and position → time of the acknowledgement in microseconds, and the operation in postcard.
pub(super) const HELD: TableDefinition<'_, (u16, u64), (i64, &[u8])> =
    TableDefinition::new("held_v1");
/// Shard → the identity of the server that has acknowledged them; empty where it is not known.
pub(super) const HELD_BY: TableDefinition<'_, u16, &str> = TableDefinition::new("held_by_v1");

/// An acknowledged write, with the time of its acknowledgement.
pub type AcknowledgedWrite = (Timestamp, Operation);

/// The held writes of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldOnDisk {
    /// The shard's number when they were held.
    pub shard: u16,
    /// The identity of the server that has acknowledged all of the shard's held writes, these and
    /// those before; `None` where it is not known.
    pub identity: Option<String>,
    /// The writes, in the order in which they were held.
    pub writes: Vec<AcknowledgedWrite>,
}

/// Adds acknowledged writes of a shard.
///
/// # Errors
/// If there is no room for them.
pub(super) fn add(
    transaction: &WriteTransaction,
    usage: &mut Usage,
    max_bytes: u64,
    held: &HeldOnDisk,
) -> Result<(), SpoolError> {
    let shard = held.shard;
    let mut rows = transaction.open_table(HELD)?;
    let last = rows.range((shard, 0)..=(shard, u64::MAX))?.next_back().transpose()?;
    let first = last.map_or(0, |(key, _)| key.value().1 + 1);
    for (position, (acknowledged_at, operation)) in (first..).zip(&held.writes) {
        let bytes = postcard::to_stdvec(operation)?;
        usage.held += bytes.len() as u64;
        if usage.total() > max_bytes {
            return Err(SpoolError::Full);
        }
        rows.insert((shard, position), (acknowledged_at.as_micros(), bytes.as_slice()))?;
    }
    let identity = held.identity.as_deref().unwrap_or_default();
    transaction.open_table(HELD_BY)?.insert(shard, identity)?;
    Ok(())
}

/// Removes the held writes of a shard.
pub(super) fn release(
    transaction: &WriteTransaction,
    usage: &mut Usage,
    shard: u16,
) -> Result<(), SpoolError> {
    let mut rows = transaction.open_table(HELD)?;
    rows.retain_in((shard, 0)..=(shard, u64::MAX), |_, (_, bytes)| {
        usage.held = usage.held.saturating_sub(bytes.len() as u64);
        false
    })?;
    transaction.open_table(HELD_BY)?.remove(shard)?;
    Ok(())
}

/// Removes all of them, because what waits needs their room.
pub(super) fn drop_all(
    transaction: &WriteTransaction,
    usage: &mut Usage,
) -> Result<(), SpoolError> {
    transaction.open_table(HELD)?.retain(|_, _| false)?;
    transaction.open_table(HELD_BY)?.retain(|_, _| false)?;
    usage.held = 0;
    usage.dropped_held += 1;
    Ok(())
}
