//! The held writes in the spool's file: those that the store had acknowledged last when it became
//! unavailable. They do not wait: they are sent again only if the store has forgotten them. The
//! rows are not framed as records, so that the salvage of a damaged file does not find them.

use redb::{ReadableTable as _, TableDefinition, WriteTransaction};

use super::{error::SpoolError, record_v3::OperationV3, usage::Usage};
use crate::domain::{Operation, Timestamp};

/// Shard and position → time of the acknowledgement in microseconds, and the operation in postcard.
pub(super) const HELD: TableDefinition<'_, (u16, u64), (i64, &[u8])> =
    TableDefinition::new("held_v2");
/// As above, before operations could be alerts.
const OLD_HELD: TableDefinition<'_, (u16, u64), (i64, &[u8])> = TableDefinition::new("held_v1");
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

/// Converts the held writes of an older version. Returns the size of all that are held.
pub(super) fn convert(transaction: &WriteTransaction) -> Result<u64, redb::Error> {
    let mut rows = transaction.open_table(HELD)?;
    let old = transaction.open_table(OLD_HELD)?;
    for entry in old.iter()? {
        let (key, value) = entry?;
        let (acknowledged_at, bytes) = value.value();
        // One that can't be read is lost: it is a copy of what the store has.
        let operation = postcard::from_bytes::<OperationV3>(bytes).map(Operation::from);
        if let Ok(bytes) = operation.and_then(|operation| postcard::to_stdvec(&operation)) {
            rows.insert(key.value(), (acknowledged_at, bytes.as_slice()))?;
        }
    }
    drop(old);
    transaction.delete_table(OLD_HELD)?;
    let mut bytes = 0;
    for entry in rows.iter()? {
        bytes += entry?.1.value().1.len() as u64;
    }
    Ok(bytes)
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
