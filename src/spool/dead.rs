//! The dead letters in the spool's file: the writes that the store has rejected for good, with the
//! reason and the time. Their number and age are bounded; the oldest are dropped first.

use redb::{ReadableTable as _, ReadableTableMetadata as _, TableDefinition, WriteTransaction};

use super::{
    error::SpoolError,
    record::{self, Place, Record},
    settled,
    usage::Usage,
};
use crate::domain::{Operation, Timestamp};

/// Sequence → reason and record. The record of a letter has its reason itself; the column has it
/// beside a damaged one, and beside one of an earlier version.
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

/// Adds a dead letter. The oldest may have to be dropped then.
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
    Ok(())
}

/// Drops those that died first until there are no more than the maximum number, and all that the
/// file holds fits into `max_bytes`. A letter without a time is of an earlier version.
pub(super) fn drop_oldest(
    transaction: &WriteTransaction,
    usage: &mut Usage,
    max_bytes: u64,
) -> Result<(), SpoolError> {
    let are_too_many = |usage: &Usage| usage.letters > MAX_LETTERS || usage.total() > max_bytes;
    if usage.letters == 0 || !are_too_many(usage) {
        return Ok(());
    }
    let mut by_time = Vec::new();
    let died = transaction.open_table(DIED)?;
    for entry in transaction.open_table(DEAD)?.iter()? {
        let sequence = entry?.0.value();
        by_time.push((died.get(sequence)?.map_or(i64::MIN, |at| at.value()), sequence));
    }
    drop(died);
    by_time.sort_unstable();
    for (_, sequence) in by_time {
        if !are_too_many(usage) {
            break;
        }
        remove(transaction, usage, sequence)?;
        usage.dropped_letters += 1;
    }
    Ok(())
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
    settled::insert(transaction, Place::Letters, [sequence])?;
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
    let (reason, operation) = match record::read(record) {
        Ok((Record::Letter { reason, write, .. }, _)) => (reason, Some(write.operation)),
        Ok((Record::Waiting { write, .. }, _)) => (reason.to_owned(), Some(write.operation)),
        Ok((Record::Settled(_), _)) | Err(_) => (reason.to_owned(), None),
    };
    DeadLetter { sequence, reason, operation }
}

/// The bytes by which a dead letter counts in the budget.
pub(super) fn letter_bytes(reason: &str, record: &[u8]) -> u64 {
    (reason.len() + record.len()) as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::{
        super::{Rejection, Settlement, Spool, SpoolConfig},
        *,
    };
    use crate::{
        domain::{Actor, AnomalyKey, EventId, FixRemoval},
        spool::SpoolWrite,
    };

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(1_774_799_738_000_000).plus_seconds(second)
    }

    fn write(id: &str) -> SpoolWrite {
        let (key, id) = (AnomalyKey::from_bits(7), EventId::parse(id).unwrap());
        let removal = FixRemoval { key, id, at: at(0), reason: None, actor: Actor::default() };
        SpoolWrite { operation: Operation::Unmark(removal), maybe_sent: true }
    }

    #[tokio::test]
    async fn the_letter_that_died_first_is_dropped_first() {
        let dir = TempDir::new().unwrap();
        let bytes = 4 * 300;
        let config = SpoolConfig { max_bytes: bytes };
        let spool = Spool::open(dir.path(), config, TIMEOUT, at(0), |_| {}).unwrap();
        let reason = || "x".repeat(200);
        // The first write waits for long, and dies after letters with higher sequences.
        spool.append(vec![write("waits")]).await.unwrap();
        spool.bury(vec![(write("a"), reason())], at(1)).await.unwrap();
        spool.bury(vec![(write("b"), reason())], at(2)).await.unwrap();
        let rejection = Rejection { sequence: 1, reason: reason(), maybe_sent: false };
        let settlement = Settlement { rejected: vec![rejection], ..Default::default() };
        spool.settle(settlement, at(3)).await.unwrap();
        let mut left = Vec::new();
        for second in 4.. {
            let letters = spool.dead_letters(0, 100, usize::MAX).await.unwrap();
            let ids = letters.iter().map(|letter| letter.operation.as_ref().unwrap().id().clone());
            let ids: Vec<String> = ids.map(|id| id.as_str().to_owned()).collect();
            if !ids.contains(&"a".to_owned()) {
                left = ids;
                break;
            }
            spool.bury(vec![(write("c"), reason())], at(second)).await.unwrap();
        }
        assert!(left.contains(&"waits".to_owned()), "it died after `a`: {left:?}");
        assert!(left.contains(&"b".to_owned()), "{left:?}");
    }

    #[tokio::test]
    async fn a_rejection_decides_whether_a_retry_may_have_been_sent() {
        let dir = TempDir::new().unwrap();
        let config = SpoolConfig { max_bytes: 1 << 20 };
        let spool = Spool::open(dir.path(), config, TIMEOUT, at(0), |_| {}).unwrap();
        spool.append(vec![write("a"), write("b")]).await.unwrap();
        let rejection =
            |sequence, maybe_sent| Rejection { sequence, reason: String::new(), maybe_sent };
        let rejected = vec![rejection(1, true), rejection(2, false)];
        let settlement = Settlement { rejected, ..Default::default() };
        spool.settle(settlement, at(1)).await.unwrap();
        assert_eq!(spool.revive_dead(vec![1, 2]).await.unwrap(), [1, 2]);
        let waiting = spool.waiting(0, 10, usize::MAX).await.unwrap();
        let flags: Vec<bool> = waiting.iter().map(|spooled| spooled.maybe_sent).collect();
        assert_eq!(flags, [true, false]);
    }
}
