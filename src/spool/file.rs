//! The spool's redb file: operations that wait for the store, in order, and those that it refused
//! for good. A file that can't be opened is set aside, and what can be read of it is kept.

use std::{
    fs::{self, File},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError,
    TableDefinition, WriteTransaction,
};

use super::{
    DeadLetter, SpoolError, SpoolOpenError, Spooled,
    record::{decode, encode, salvage},
};
use crate::domain::{Operation, Timestamp};

/// Sequence → record of an operation that waits.
const WAITING: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("waiting_v1");
/// Sequence → reason and record of an operation that the store has refused for good.
const DEAD: TableDefinition<'_, u64, (&str, &[u8])> = TableDefinition::new("dead_v1");

const FILE_NAME: &str = "spool.redb";
const PAGE_CACHE_BYTES: usize = 4 << 20;

/// The open file.
#[derive(Debug)]
pub(super) struct SpoolFile {
    database: Database,
    next_sequence: u64,
}

impl SpoolFile {
    /// Opens the file in `data_dir`. A damaged one is set aside under a name that `now` tells, and
    /// what can be read of it waits in the new one.
    pub(super) fn open(data_dir: &Path, now: Timestamp) -> Result<Self, SpoolOpenError> {
        let in_data_dir = |source| SpoolOpenError::DataDir { dir: data_dir.to_owned(), source };
        fs::create_dir_all(data_dir).map_err(in_data_dir)?;
        let path = data_dir.join(FILE_NAME);
        let mut file = match try_create(&path) {
            Ok(file) => file,
            Err(DatabaseError::DatabaseAlreadyOpen) => {
                return Err(SpoolOpenError::InUse { file: path });
            }
            Err(DatabaseError::Storage(StorageError::Io(source))) if !is_damage(&source) => {
                return Err(in_data_dir(source));
            }
            Err(damage) => start_anew(&path, now, &damage)?,
        };
        File::open(data_dir).and_then(|dir| dir.sync_all()).map_err(in_data_dir)?;
        file.bury_unreadable().map_err(|source| SpoolOpenError::Fault { file: path, source })?;
        Ok(file)
    }

    /// Opens the file again after a fault of the disk, just as it is.
    pub(super) fn reopen(data_dir: &Path) -> Result<Self, SpoolError> {
        // Not made anew: a disk that is gone is no reason to begin empty.
        Ok(try_open(&data_dir.join(FILE_NAME), |builder, path| builder.open(path))?)
    }

    /// Adds operations at the end, at most `room` bytes. They are durable when this returns.
    /// Answers how many bytes they take.
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

    /// Up to `limit` waiting operations from `first` on, oldest first.
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

    /// Removes what has been carried out, and moves what was refused to the dead letters. Answers
    /// how many bytes wait no longer.
    pub(super) fn settle(
        &mut self,
        done: &[u64],
        refused: &[(u64, String)],
    ) -> Result<u64, SpoolError> {
        let mut bytes = 0;
        self.transact(|transaction| {
            let mut waiting = transaction.open_table(WAITING)?;
            for sequence in done {
                bytes += waiting.remove(sequence)?.map_or(0, |record| record.value().len() as u64);
            }
            let mut dead = transaction.open_table(DEAD)?;
            for (sequence, reason) in refused {
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

    /// Puts a dead letter back at the end of what waits. Answers its bytes; `None` when there is
    /// none of this sequence.
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

    /// Drops a dead letter, and says whether there was one of this sequence.
    pub(super) fn drop_dead(&mut self, sequence: u64) -> Result<bool, SpoolError> {
        let mut dropped = false;
        self.transact(|transaction| {
            dropped = transaction.open_table(DEAD)?.remove(sequence)?.is_some();
            Ok(())
        })?;
        Ok(dropped)
    }

    /// A record that is damaged in itself must not hold up those behind it.
    fn bury_unreadable(&mut self) -> Result<(), SpoolError> {
        let mut damaged = Vec::new();
        let table = self.database.begin_read()?.open_table(WAITING)?;
        for entry in table.iter()? {
            let (sequence, record) = entry?;
            if let Err(damage) = decode(record.value()) {
                damaged.push((sequence.value(), damage.to_string()));
            }
        }
        drop(table);
        if damaged.is_empty() {
            return Ok(());
        }
        tracing::error!(records = damaged.len(), "damaged records of the spool are dead letters");
        self.settle(&[], &damaged).map(|_| ())
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

fn try_create(path: &Path) -> Result<SpoolFile, DatabaseError> {
    try_open(path, |builder, path| builder.create(path))
}

fn try_open(
    path: &Path,
    open: impl FnOnce(&mut redb::Builder, &Path) -> Result<Database, DatabaseError>,
) -> Result<SpoolFile, DatabaseError> {
    // redb may panic on a file that was altered outside of it.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let mut builder = Database::builder();
        builder.set_cache_size(PAGE_CACHE_BYTES).set_check_integrity_on_open(true);
        let database = open(&mut builder, path)?;
        let next_sequence = prepare(&database).map_err(|fault| match fault {
            redb::Error::Io(source) => StorageError::Io(source),
            other => StorageError::Corrupted(other.to_string()),
        })?;
        Ok(SpoolFile { database, next_sequence })
    }));
    opened.unwrap_or_else(|_| {
        Err(DatabaseError::Storage(StorageError::Corrupted("redb panicked".to_owned())))
    })
}

/// Whether it is what the file holds that is at fault, and not the disk or its permissions.
fn is_damage(fault: &io::Error) -> bool {
    matches!(fault.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// Makes the tables of an empty file, and answers the next sequence.
fn prepare(database: &Database) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    let last_waiting = transaction.open_table(WAITING)?.last()?.map(|(key, _)| key.value());
    let last_dead = transaction.open_table(DEAD)?.last()?.map(|(key, _)| key.value());
    transaction.commit()?;
    Ok(last_waiting.max(last_dead).map_or(1, |last| last + 1))
}

/// Sets a damaged file aside, and begins a new one with what can be read of it. A record that had
/// been removed may be found again: carrying it out a second time changes nothing, by its id.
fn start_anew(
    path: &Path,
    now: Timestamp,
    damage: &DatabaseError,
) -> Result<SpoolFile, SpoolOpenError> {
    let aside: PathBuf = path.with_extension(format!("damaged-{}", now.as_micros()));
    let on_disk = |source| SpoolOpenError::SetAside { file: path.to_owned(), source };
    let operations = salvage(&fs::read(path).map_err(on_disk)?);
    fs::rename(path, &aside).map_err(on_disk)?;
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
    let mut file =
        try_create(path).map_err(|error| fault(SpoolError::Failed(error.to_string())))?;
    file.append(&operations, u64::MAX).map_err(fault)?;
    Ok(file)
}
