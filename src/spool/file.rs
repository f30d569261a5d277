//! The spool's redb file: operations that wait for the store, in order, and those that the store
//! rejected for good. A damaged file is set aside, and what can be read of it is kept.

use std::{fs, path::Path};

use redb::{
    Database, Error, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction,
};

use super::{
    error::{SpoolError, SpoolOpenError},
    record::{NewerVersion, RecordError, decode, encode, salvage},
};
use crate::{
    domain::{Operation, Timestamp},
    redb_file::{Missing, OpenFault, RedbFile},
};

/// Sequence → record of a waiting operation.
const WAITING: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("waiting_v1");
/// Sequence → reason and record of an operation that the store has rejected for good.
const DEAD: TableDefinition<'_, u64, (&str, &[u8])> = TableDefinition::new("dead_v1");

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
}

/// An operation that the store has rejected for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The position that it had in the order.
    pub sequence: u64,
    /// Why it was rejected.
    pub reason: String,
    /// The operation itself; absent if its record is damaged.
    pub operation: Option<Operation>,
}

/// The open file.
#[derive(Debug)]
pub(super) struct SpoolFile {
    database: Database,
    next_sequence: u64,
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
        file.verify_records(on_disk.path())?;
        Ok(file)
    }

    /// Opens the file again after a fault of the disk, just as it is.
    pub(super) fn reopen(data_dir: &Path) -> Result<Self, SpoolError> {
        Self::try_open(&redb_file(data_dir), Missing::Fail)
            .map_err(|fault| SpoolError::Failed(fault.to_string()))
    }

    fn try_open(on_disk: &RedbFile, missing: Missing) -> Result<Self, OpenFault> {
        let (database, next_sequence) = on_disk.open(missing, prepare)?;
        Ok(Self { database, next_sequence })
    }

    /// Adds operations at the end, at most `room` bytes. They are durable when this returns.
    /// Returns how many bytes they take.
    pub(super) fn append(
        &mut self,
        operations: &[Operation],
        room: u64,
    ) -> Result<u64, SpoolError> {
        let mut sequence = self.next_sequence;
        let mut bytes = 0;
        self.transact(|transaction| {
            let mut waiting = transaction.open_table(WAITING)?;
            for operation in operations {
                let record = encode(operation)?;
                bytes += record.len() as u64;
                if bytes > room {
                    return Err(SpoolError::Full);
                }
                waiting.insert(sequence, record.as_slice())?;
                sequence += 1;
            }
            Ok(())
        })?;
        self.next_sequence = sequence;
        Ok(bytes)
    }

    /// Returns up to `limit` waiting operations from `first` on, oldest first.
    pub(super) fn waiting(&self, first: u64, limit: usize) -> Result<Vec<Spooled>, SpoolError> {
        let table = self.database.begin_read()?.open_table(WAITING)?;
        let mut found = Vec::new();
        for entry in table.range(first..)?.take(limit) {
            let (sequence, record) = entry?;
            let record = record.value();
            let operation = decode(record)?;
            found.push(Spooled { sequence: sequence.value(), bytes: record.len(), operation });
        }
        Ok(found)
    }

    /// Removes the operations that were applied, and moves the rejected ones to the dead letters.
    /// Returns by how many bytes the waiting ones have become less.
    pub(super) fn settle(
        &mut self,
        applied: &[u64],
        rejected: &[(u64, String)],
    ) -> Result<u64, SpoolError> {
        let mut bytes = 0;
        self.transact(|transaction| {
            let mut waiting = transaction.open_table(WAITING)?;
            for sequence in applied {
                bytes += waiting.remove(sequence)?.map_or(0, |record| record.value().len() as u64);
            }
            let mut dead = transaction.open_table(DEAD)?;
            for (sequence, reason) in rejected {
                if let Some(record) = waiting.remove(sequence)? {
                    bytes += record.value().len() as u64;
                    dead.insert(sequence, (reason.as_str(), record.value()))?;
                }
            }
            Ok(())
        })?;
        Ok(bytes)
    }

    pub(super) fn dead_letters(&self) -> Result<Vec<DeadLetter>, SpoolError> {
        let table = self.database.begin_read()?.open_table(DEAD)?;
        let mut found = Vec::new();
        for entry in table.iter()? {
            let (sequence, letter) = entry?;
            let (reason, record) = letter.value();
            found.push(DeadLetter {
                sequence: sequence.value(),
                reason: reason.to_owned(),
                operation: decode(record).ok(),
            });
        }
        Ok(found)
    }

    /// Puts a dead letter back at the end of the queue. Returns the size of its record; `None` if
    /// there is no dead letter of this sequence.
    pub(super) fn revive_dead(&mut self, sequence: u64) -> Result<Option<u64>, SpoolError> {
        let next = self.next_sequence;
        let mut revived = None;
        self.transact(|transaction| {
            let mut dead = transaction.open_table(DEAD)?;
            let Some(letter) = dead.remove(sequence)? else { return Ok(()) };
            let record = letter.value().1;
            // A damaged record would only die again.
            decode(record)?;
            revived = Some(record.len() as u64);
            transaction.open_table(WAITING)?.insert(next, record)?;
            Ok(())
        })?;
        if revived.is_some() {
            self.next_sequence += 1;
        }
        Ok(revived)
    }

    /// Drops a dead letter. Returns false if there is none of this sequence.
    pub(super) fn drop_dead(&mut self, sequence: u64) -> Result<bool, SpoolError> {
        let mut dropped = false;
        self.transact(|transaction| {
            dropped = transaction.open_table(DEAD)?.remove(sequence)?.is_some();
            Ok(())
        })?;
        Ok(dropped)
    }

    /// Makes damaged records dead letters, because they must not hold up those behind them. A
    /// record of a newer version is not damaged: it refuses the whole file.
    fn verify_records(&mut self, path: &Path) -> Result<(), SpoolOpenError> {
        let newer = |newer| newer_version(path, &newer);
        let fault = |source| SpoolOpenError::Fault { file: path.to_owned(), source };
        let damaged = self.damaged_records().map_err(fault)?.map_err(newer)?;
        if damaged.is_empty() {
            return Ok(());
        }
        tracing::error!(records = damaged.len(), "damaged records of the spool are dead letters");
        self.settle(&[], &damaged).map(|_| ()).map_err(fault)
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

    fn transact(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<(), SpoolError>,
    ) -> Result<(), SpoolError> {
        let transaction = self.database.begin_write()?;
        change(&transaction)?;
        // The default durability is immediate: this returns after fsync.
        transaction.commit()?;
        Ok(())
    }
}

fn redb_file(data_dir: &Path) -> RedbFile {
    RedbFile::new(data_dir, FILE_NAME, PAGE_CACHE_BYTES).with_integrity_check()
}

/// Creates the tables of an empty file, and returns the next sequence.
fn prepare(database: &Database) -> Result<u64, Error> {
    let transaction = database.begin_write()?;
    let last_waiting = transaction.open_table(WAITING)?.last()?.map(|(key, _)| key.value());
    let last_dead = transaction.open_table(DEAD)?.last()?.map(|(key, _)| key.value());
    transaction.commit()?;
    Ok(last_waiting.max(last_dead).map_or(1, |last| last + 1))
}

fn newer_version(path: &Path, newer: &NewerVersion) -> SpoolOpenError {
    SpoolOpenError::NewerVersion { file: path.to_owned(), found: newer.found }
}

/// Sets a damaged file aside, and begins a new one with what can be read of it. A record that had
/// been removed may be found again: applying it a second time changes nothing, by its id.
fn salvage_into_new(
    on_disk: &RedbFile,
    now: Timestamp,
    damage: &Error,
) -> Result<SpoolFile, SpoolOpenError> {
    let path = on_disk.path();
    let failed = |source| SpoolOpenError::SetAside { file: path.to_owned(), source };
    let bytes = fs::read(path).map_err(failed)?;
    let operations = salvage(&bytes).map_err(|newer| newer_version(path, &newer))?;
    drop(bytes);
    let aside = on_disk.set_aside(&format!("damaged-{}", now.as_micros())).map_err(failed)?;
    tracing::error!(
        error = %damage,
        set_aside = %aside.display(),
        salvaged = operations.len(),
        "the spool's file is damaged: it is set aside as {}, and {} operations that can be read \
         of it wait again",
        aside.display(),
        operations.len()
    );
    let fault = |source| SpoolOpenError::Fault { file: path.to_owned(), source };
    let mut file = SpoolFile::try_open(on_disk, Missing::Create)
        .map_err(|error| fault(SpoolError::Failed(error.to_string())))?;
    file.append(&operations, u64::MAX).map_err(fault)?;
    Ok(file)
}
