//! The spool's redb file: operations that wait for the store, in order, those that the store has
//! rejected for good (`dead.rs`), and those that it had acknowledged last (`held.rs`). A damaged
//! file is set aside, and what can be read of it is kept.

use std::{fs, path::Path};

use redb::{
    Database, Error, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction,
};

use super::{
    dead::{self, DEAD, DIED, DeadLetter},
    error::{SpoolError, SpoolOpenError},
    held::{self, HELD, HELD_BY, HeldOnDisk},
    record::{NewerVersion, RecordError, SpoolWrite, decode, encode, salvage},
    usage::Usage,
};
use crate::{
    domain::{Operation, Timestamp},
    redb_file::{Missing, OpenFault, RedbFile},
};

/// Sequence → record of a waiting operation.
const WAITING: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("waiting_v1");
/// Name → number.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta_v1");
/// In `META`: every operation up to this sequence may have been sent to the store.
const SENT_UP_TO: &str = "sent_up_to";

const FILE_NAME: &str = "spool.redb";
const PAGE_CACHE_BYTES: usize = 4 << 20;

/// A waiting operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spooled {
    /// Its position in the order; later ones are larger.
    pub sequence: u64,
    /// The size of its record.
    pub bytes: usize,
    /// The operation itself.
    pub operation: Operation,
    /// True if it may have been sent to the store: before it was spooled, or by an earlier process.
    pub maybe_sent: bool,
}

/// A waiting operation that becomes a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Its position in the order.
    pub sequence: u64,
    /// Why it is rejected.
    pub reason: String,
    /// True if it may have been sent to the store.
    pub maybe_sent: bool,
}

/// The outcome of a page of waiting operations.
#[derive(Clone, Debug, Default)]
pub struct Settlement {
    /// The sequences of the operations that were applied.
    pub applied: Vec<u64>,
    /// The operations that become dead letters.
    pub rejected: Vec<Rejection>,
    /// The next page, by its first possible sequence and its length: it counts as sent from now on.
    pub next_page: Option<(u64, usize)>,
}

/// The open file.
#[derive(Debug)]
pub(super) struct SpoolFile {
    database: Database,
    state: FileState,
}

/// What is known of the file without reading it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FileState {
    next_sequence: u64,
    /// As in `META`.
    sent_up_to: u64,
    /// The value of `sent_up_to` when this process opened the file.
    sent_before: u64,
    pub(super) usage: Usage,
}

impl FileState {
    /// Returns whether every operation up to `sequence` counts as sent.
    fn counts_as_sent(&self, sequence: u64) -> bool {
        sequence <= self.sent_up_to
    }
}

impl SpoolFile {
    /// Opens the file in `data_dir`, and creates both where they are missing. A damaged one is set
    /// aside under a name with the time `now`, and what can be read of it waits in the new one.
    pub(super) fn open(data_dir: &Path, now: Timestamp) -> Result<Self, SpoolOpenError> {
        let in_data_dir = |source| SpoolOpenError::DataDir { dir: data_dir.to_owned(), source };
        fs::create_dir_all(data_dir).map_err(in_data_dir)?;
        let on_disk = redb_file(data_dir);
        let mut file = match Self::try_open(&on_disk, Missing::Create) {
            Ok(file) => file,
            Err(OpenFault::InUse) => {
                return Err(SpoolOpenError::InUse { file: on_disk.path().to_owned() });
            }
            Err(OpenFault::Disk(source)) => return Err(in_data_dir(source)),
            Err(OpenFault::Damaged(damage)) => salvage_into_new(&on_disk, now, &damage)?,
        };
        file.verify_records(on_disk.path(), now)?;
        let fault = |source| SpoolOpenError::Fault { file: on_disk.path().to_owned(), source };
        file.expire_letters(now).map_err(fault)?;
        Ok(file)
    }

    /// Opens the file again after a fault of the disk, just as it is.
    pub(super) fn reopen(data_dir: &Path, before: FileState) -> Result<Self, SpoolError> {
        let mut file = Self::try_open(&redb_file(data_dir), Missing::Fail)
            .map_err(|fault| SpoolError::Failed(fault.to_string()))?;
        file.state.sent_before = before.sent_before;
        Ok(file)
    }

    fn try_open(on_disk: &RedbFile, missing: Missing) -> Result<Self, OpenFault> {
        let (database, state) = on_disk.open(missing, prepare)?;
        Ok(Self { database, state })
    }

    pub(super) fn state(&self) -> FileState {
        self.state
    }

    /// Adds operations at the end. They are durable when this returns. Held writes and dead letters
    /// give way to them.
    ///
    /// # Errors
    /// If the waiting operations would take more than `max_bytes`.
    pub(super) fn append(
        &mut self,
        writes: &[SpoolWrite],
        max_bytes: u64,
    ) -> Result<(), SpoolError> {
        self.transact(|transaction, state| {
            let mut waiting = transaction.open_table(WAITING)?;
            for write in writes {
                let record = encode(write)?;
                state.usage.waiting += record.len() as u64;
                if state.usage.waiting > max_bytes {
                    return Err(SpoolError::Full);
                }
                waiting.insert(state.next_sequence, record.as_slice())?;
                state.next_sequence += 1;
            }
            make_room(transaction, &mut state.usage, max_bytes)
        })
    }

    /// Returns up to `limit` waiting operations from `first` on, oldest first.
    pub(super) fn waiting(&self, first: u64, limit: usize) -> Result<Vec<Spooled>, SpoolError> {
        let table = self.database.begin_read()?.open_table(WAITING)?;
        let mut found = Vec::new();
        for entry in table.range(first..)?.take(limit) {
            let (sequence, record) = entry?;
            let record = record.value();
            let SpoolWrite { operation, maybe_sent } = decode(record)?;
            let sequence = sequence.value();
            let maybe_sent = maybe_sent || sequence <= self.state.sent_before;
            found.push(Spooled { sequence, bytes: record.len(), operation, maybe_sent });
        }
        Ok(found)
    }

    /// Makes every operation up to `sequence` count as sent, for a later process.
    pub(super) fn mark_sent(&mut self, sequence: u64) -> Result<(), SpoolError> {
        if self.state.counts_as_sent(sequence) {
            return Ok(());
        }
        self.transact(|transaction, state| mark_sent(transaction, state, sequence))
    }

    /// Removes the operations that were applied, and moves the rejected ones to the dead letters.
    /// Returns the sequence up to which operations count as sent.
    pub(super) fn settle(
        &mut self,
        settlement: &Settlement,
        now: Timestamp,
        max_bytes: u64,
    ) -> Result<u64, SpoolError> {
        self.transact(|transaction, state| {
            let mut waiting = transaction.open_table(WAITING)?;
            for sequence in &settlement.applied {
                let bytes = waiting.remove(sequence)?.map_or(0, |record| record.value().len());
                state.usage.waiting -= bytes as u64;
            }
            for Rejection { sequence, reason, maybe_sent } in &settlement.rejected {
                let Some(record) = waiting.remove(sequence)? else { continue };
                state.usage.waiting -= record.value().len() as u64;
                let record = flagged(record.value(), *maybe_sent)?;
                dead::bury(transaction, &mut state.usage, now, (*sequence, reason, &record))?;
            }
            if let Some((first, limit)) = settlement.next_page {
                let mut page = waiting.range(first..)?.take(limit);
                let last =
                    page.try_fold(None, |_, entry| entry.map(|(key, _)| Some(key.value())))?;
                if let Some(last) = last {
                    mark_sent(transaction, state, last)?;
                }
            }
            make_room(transaction, &mut state.usage, max_bytes)
        })?;
        Ok(self.state.sent_up_to)
    }

    /// Adds dead letters that have never waited.
    pub(super) fn bury(
        &mut self,
        rejected: &[(SpoolWrite, String)],
        now: Timestamp,
        max_bytes: u64,
    ) -> Result<(), SpoolError> {
        self.transact(|transaction, state| {
            for (write, reason) in rejected {
                let record = encode(write)?;
                let sequence = state.next_sequence;
                state.next_sequence += 1;
                dead::bury(transaction, &mut state.usage, now, (sequence, reason, &record))?;
            }
            make_room(transaction, &mut state.usage, max_bytes)
        })
    }

    /// Returns up to `limit` dead letters from the sequence `first` on, oldest first.
    pub(super) fn dead_letters(
        &self,
        first: u64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, SpoolError> {
        let table = self.database.begin_read()?.open_table(DEAD)?;
        let mut found = Vec::new();
        for entry in table.range(first..)?.take(limit) {
            let (sequence, letter) = entry?;
            found.push(dead::letter(sequence.value(), letter.value()));
        }
        Ok(found)
    }

    pub(super) fn last_dead_letter(&self) -> Result<Option<u64>, SpoolError> {
        let table = self.database.begin_read()?.open_table(DEAD)?;
        Ok(table.last()?.map(|(sequence, _)| sequence.value()))
    }

    /// Puts dead letters back at the end of the queue. Returns which of these sequences there were.
    pub(super) fn revive_dead(
        &mut self,
        sequences: &[u64],
        max_bytes: u64,
    ) -> Result<Vec<u64>, SpoolError> {
        let mut revived = Vec::new();
        self.transact(|transaction, state| {
            let mut waiting = transaction.open_table(WAITING)?;
            for sequence in sequences {
                let Some(record) = dead::remove(transaction, &mut state.usage, *sequence)? else {
                    continue;
                };
                // A damaged record would only die again.
                decode(&record)?;
                state.usage.waiting += record.len() as u64;
                if state.usage.waiting > max_bytes {
                    return Err(SpoolError::Full);
                }
                waiting.insert(state.next_sequence, record.as_slice())?;
                state.next_sequence += 1;
                revived.push(*sequence);
            }
            Ok(())
        })?;
        Ok(revived)
    }

    /// Drops a dead letter. Returns false if there is none of this sequence.
    pub(super) fn drop_dead(&mut self, sequence: u64) -> Result<bool, SpoolError> {
        let mut dropped = false;
        self.transact(|transaction, state| {
            dropped = dead::remove(transaction, &mut state.usage, sequence)?.is_some();
            Ok(())
        })?;
        Ok(dropped)
    }

    /// Drops the dead letters that are too old.
    pub(super) fn expire_letters(&mut self, now: Timestamp) -> Result<(), SpoolError> {
        if self.state.usage.letters == 0 {
            return Ok(());
        }
        self.transact(|transaction, state| dead::expire(transaction, &mut state.usage, now))
    }

    /// Adds held writes.
    pub(super) fn hold(&mut self, held: &HeldOnDisk, max_bytes: u64) -> Result<(), SpoolError> {
        self.transact(|transaction, state| {
            held::add(transaction, &mut state.usage, max_bytes, held)
        })
    }

    /// Removes the held writes of these shards.
    pub(super) fn release(&mut self, shards: &[u16]) -> Result<(), SpoolError> {
        if self.state.usage.held == 0 {
            return Ok(());
        }
        self.transact(|transaction, state| {
            shards.iter().try_for_each(|shard| held::release(transaction, &mut state.usage, *shard))
        })
    }

    /// Returns the held writes of all shards.
    pub(super) fn held(&self) -> Result<Vec<HeldOnDisk>, SpoolError> {
        let transaction = self.database.begin_read()?;
        let mut found = Vec::<HeldOnDisk>::new();
        for entry in transaction.open_table(HELD)?.iter()? {
            let (key, row) = entry?;
            let (shard, _) = key.value();
            let (acknowledged_at, bytes) = row.value();
            let write = (Timestamp::from_micros(acknowledged_at), postcard::from_bytes(bytes)?);
            match found.last_mut() {
                Some(last) if last.shard == shard => last.writes.push(write),
                _ => found.push(HeldOnDisk { shard, identity: None, writes: vec![write] }),
            }
        }
        let held_by = transaction.open_table(HELD_BY)?;
        for held in &mut found {
            let identity = held_by.get(held.shard)?.map(|identity| identity.value().to_owned());
            held.identity = identity.filter(|identity| !identity.is_empty());
        }
        Ok(found)
    }

    /// Makes damaged records dead letters, because they must not hold up those behind them. A
    /// record of a newer version is not damaged: it refuses the whole file.
    fn verify_records(&mut self, path: &Path, now: Timestamp) -> Result<(), SpoolOpenError> {
        let newer = |newer| newer_version(path, &newer);
        let fault = |source| SpoolOpenError::Fault { file: path.to_owned(), source };
        let damaged = self.damaged_records().map_err(fault)?.map_err(newer)?;
        if damaged.is_empty() {
            return Ok(());
        }
        tracing::error!(records = damaged.len(), "damaged records of the spool are dead letters");
        let rejected = damaged.into_iter().map(|(sequence, reason)| Rejection {
            sequence,
            reason,
            maybe_sent: true,
        });
        let settlement = Settlement { rejected: rejected.collect(), ..Settlement::default() };
        self.settle(&settlement, now, u64::MAX).map(|_| ()).map_err(fault)
    }

    /// Returns the sequence and the fault of each waiting record that can't be read.
    fn damaged_records(&self) -> Result<Result<Vec<(u64, String)>, NewerVersion>, SpoolError> {
        let transaction = self.database.begin_read()?;
        let mut damaged = Vec::new();
        for entry in transaction.open_table(WAITING)?.iter()? {
            let (sequence, record) = entry?;
            match decode(record.value()) {
                Ok(_) => {}
                Err(RecordError::Newer(newer)) => return Ok(Err(newer)),
                Err(damage) => damaged.push((sequence.value(), damage.to_string())),
            }
        }
        for entry in transaction.open_table(DEAD)?.iter()? {
            if let Err(RecordError::Newer(newer)) = decode(entry?.1.value().1) {
                return Ok(Err(newer));
            }
        }
        Ok(Ok(damaged))
    }

    /// Makes a change. Without a commit the state stays as it was.
    fn transact(
        &mut self,
        change: impl FnOnce(&WriteTransaction, &mut FileState) -> Result<(), SpoolError>,
    ) -> Result<(), SpoolError> {
        let transaction = self.database.begin_write()?;
        let mut state = self.state;
        change(&transaction, &mut state)?;
        // The default durability is immediate: this returns after fsync.
        transaction.commit()?;
        self.state = state;
        Ok(())
    }
}

fn mark_sent(
    transaction: &WriteTransaction,
    state: &mut FileState,
    sequence: u64,
) -> Result<(), SpoolError> {
    if !state.counts_as_sent(sequence) {
        transaction.open_table(META)?.insert(SENT_UP_TO, sequence)?;
        state.sent_up_to = sequence;
    }
    Ok(())
}

/// Drops what has the lowest priority until everything fits.
fn make_room(
    transaction: &WriteTransaction,
    usage: &mut Usage,
    max_bytes: u64,
) -> Result<(), SpoolError> {
    if usage.total() > max_bytes && usage.held > 0 {
        held::drop_all(transaction, usage)?;
    }
    dead::drop_oldest(transaction, usage, max_bytes)
}

/// Returns a record with this flag. A damaged one stays as it is.
fn flagged(record: &[u8], maybe_sent: bool) -> Result<Vec<u8>, SpoolError> {
    match decode(record) {
        Ok(write) if write.maybe_sent != maybe_sent => {
            Ok(encode(&SpoolWrite { maybe_sent, ..write })?)
        }
        _ => Ok(record.to_vec()),
    }
}

fn redb_file(data_dir: &Path) -> RedbFile {
    RedbFile::new(data_dir, FILE_NAME, PAGE_CACHE_BYTES).with_integrity_check()
}

/// Creates the tables of an empty file, and returns the file's state.
fn prepare(database: &Database) -> Result<FileState, Error> {
    let transaction = database.begin_write()?;
    let mut usage = Usage::default();
    let mut last = 0;
    for entry in transaction.open_table(WAITING)?.iter()? {
        let (sequence, record) = entry?;
        usage.waiting += record.value().len() as u64;
        last = sequence.value();
    }
    for entry in transaction.open_table(DEAD)?.iter()? {
        let (sequence, letter) = entry?;
        let (reason, record) = letter.value();
        usage.dead += dead::letter_bytes(reason, record);
        usage.letters += 1;
        last = last.max(sequence.value());
    }
    for entry in transaction.open_table(HELD)?.iter()? {
        usage.held += entry?.1.value().1.len() as u64;
    }
    transaction.open_table(DIED)?;
    transaction.open_table(HELD_BY)?;
    let sent_up_to = transaction.open_table(META)?.get(SENT_UP_TO)?.map_or(0, |row| row.value());
    transaction.commit()?;
    // A sequence that was given out before must not be given out again, because of `sent_up_to`.
    let next_sequence = last.max(sent_up_to) + 1;
    Ok(FileState { next_sequence, sent_up_to, sent_before: sent_up_to, usage })
}

fn newer_version(path: &Path, newer: &NewerVersion) -> SpoolOpenError {
    SpoolOpenError::NewerVersion { file: path.to_owned(), found: newer.found }
}

/// Sets a damaged file aside, and begins a new one with what can be read of it. A record that had
/// been removed may be found again: it counts as one that may have been sent.
fn salvage_into_new(
    on_disk: &RedbFile,
    now: Timestamp,
    damage: &Error,
) -> Result<SpoolFile, SpoolOpenError> {
    let path = on_disk.path();
    let failed = |source| SpoolOpenError::SetAside { file: path.to_owned(), source };
    let bytes = fs::read(path).map_err(failed)?;
    let writes = salvage(&bytes).map_err(|newer| newer_version(path, &newer))?;
    drop(bytes);
    let aside = on_disk.set_aside(&format!("damaged-{}", now.as_micros())).map_err(failed)?;
    tracing::error!(
        error = %damage,
        set_aside = %aside.display(),
        salvaged = writes.len(),
        "the spool's file is damaged: it is set aside as {}, and {} operations that can be read \
         of it wait again",
        aside.display(),
        writes.len()
    );
    let fault = |source| SpoolOpenError::Fault { file: path.to_owned(), source };
    let mut file = SpoolFile::try_open(on_disk, Missing::Create)
        .map_err(|error| fault(SpoolError::Failed(error.to_string())))?;
    file.append(&writes, u64::MAX).map_err(fault)?;
    Ok(file)
}
