//! The redb file of the embedded store: a row for each anomaly as of some journal sequence, and
//! the journal of batches since. Each change is one durable commit.

use std::{fs, path::Path};

use redb::{Database, Error, ReadableDatabase as _, ReadableTable as _, Table, TableDefinition};

use super::{
    anomaly::Anomaly,
    error::{FileError, OpenError},
    format::{ANOMALIES, AUDIT, AuditKey, JOURNAL, SIGNATURES, audit_of, prepare},
    journal::{Audit, JournalRow},
    row::{AnomalyRow, AnomalyRows, decode, encode},
};
use crate::{
    domain::{AUDIT_ENTRIES, AnomalyKey, AuditEntry},
    redb_file::{Missing, RedbFile},
};

const FILE_NAME: &str = "anomalies.redb";

/// All anomalies are in memory anyway: the cache serves the journal and the checkpoints.
const PAGE_CACHE_BYTES: usize = 8 << 20;

/// The open file.
#[derive(Debug)]
pub(super) struct StoreFile {
    database: Database,
    /// The sequence of the journal's next row.
    next_sequence: u64,
}

impl StoreFile {
    /// Opens the file, and creates it if it is missing.
    pub(super) fn open(data_dir: &Path) -> Result<Self, OpenError> {
        let in_data_dir = |source| OpenError::DataDir { dir: data_dir.to_owned(), source };
        fs::create_dir_all(data_dir).map_err(in_data_dir)?;
        Self::open_with(data_dir, Missing::Create)
    }

    /// Opens the file again after a fault. It must be there and hold the sequence `last`: a disk
    /// that is gone, or another one in its place, is no reason to begin empty.
    pub(super) fn reopen(data_dir: &Path, last: u64) -> Result<Self, OpenError> {
        let file = Self::open_with(data_dir, Missing::Fail)?;
        if file.last_sequence() < last {
            return Err(Self::unreadable(data_dir, FileError::Older));
        }
        Ok(file)
    }

    fn open_with(data_dir: &Path, missing: Missing) -> Result<Self, OpenError> {
        let on_disk = RedbFile::new(data_dir, FILE_NAME, PAGE_CACHE_BYTES);
        let (database, prepared) = on_disk
            .open(missing, prepare)
            .map_err(|fault| OpenError::of_opening(data_dir, on_disk.path(), fault))?;
        let next_sequence = prepared.map_err(|fault| OpenError::of_file(on_disk.path(), fault))?;
        Ok(Self { database, next_sequence })
    }

    /// The error of a file in `data_dir` that was opened and can't be read.
    pub(super) fn unreadable(data_dir: &Path, fault: FileError) -> OpenError {
        OpenError::of_file(&data_dir.join(FILE_NAME), fault)
    }

    /// Passes every anomaly's row to `take`.
    pub(super) fn read_anomalies(
        &self,
        mut take: impl FnMut(AnomalyKey, AnomalyRow<Anomaly>),
    ) -> Result<(), FileError> {
        self.read(ANOMALIES, |key, bytes| {
            take(AnomalyKey::from_bits(key), decode(bytes)?);
            Ok(())
        })
    }

    /// Passes every row of the journal to `take`, with its sequence and its size in bytes, in
    /// order.
    pub(super) fn read_journal(
        &self,
        mut take: impl FnMut(u64, usize, JournalRow),
    ) -> Result<(), FileError> {
        self.read(JOURNAL, |sequence, bytes| {
            take(sequence, bytes.len(), decode(bytes)?);
            Ok(())
        })
    }

    /// Adds a row to the journal, and its entries to the audit. They are durable when this returns.
    /// Returns the row's size in bytes.
    pub(super) fn append(&mut self, row: &JournalRow, audit: &Audit) -> Result<usize, FileError> {
        let sequence = self.next_sequence;
        let bytes = encode(row)?;
        let mut entries = Vec::with_capacity(audit.len());
        for (index, (key, entry)) in (0..).zip(audit) {
            entries.push(((key.to_bits(), sequence, index), encode(entry)?));
        }
        self.transact(|transaction| {
            transaction.open_table(JOURNAL)?.insert(sequence, bytes.as_slice())?;
            if entries.is_empty() {
                return Ok(());
            }
            let mut audit = transaction.open_table(AUDIT)?;
            for (key, entry) in &entries {
                audit.insert(key, entry.as_slice())?;
                trim_audit(&mut audit, key.0)?;
            }
            Ok(())
        })?;
        self.next_sequence += 1;
        Ok(bytes.len())
    }

    /// Returns the sequence of the journal's newest row; 0 before the first.
    pub(super) fn last_sequence(&self) -> u64 {
        self.next_sequence - 1
    }

    /// Writes anomalies' rows, and their signatures with them.
    pub(super) fn write_anomalies(&self, rows: &AnomalyRows) -> Result<(), FileError> {
        self.transact(|transaction| insert(transaction, rows))
    }

    /// Returns the object that made an anomaly known, as JSON.
    pub(super) fn signature_json(&self, key: AnomalyKey) -> Result<Option<String>, FileError> {
        let transaction = self.database.begin_read().map_err(Error::from)?;
        let signatures = transaction.open_table(SIGNATURES).map_err(Error::from)?;
        let row = signatures.get(key.to_bits()).map_err(Error::from)?;
        Ok(row.map(|row| String::from_utf8_lossy(row.value()).into_owned()))
    }

    /// Returns the audit of an anomaly, newest first.
    pub(super) fn audit(&self, key: AnomalyKey) -> Result<Vec<AuditEntry>, FileError> {
        let transaction = self.database.begin_read().map_err(Error::from)?;
        let audit = transaction.open_table(AUDIT).map_err(Error::from)?;
        let mut entries = Vec::new();
        for row in audit.range(audit_of(key.to_bits())).map_err(Error::from)?.rev() {
            let (_, entry) = row.map_err(Error::from)?;
            entries.push(decode(entry.value())?);
        }
        Ok(entries)
    }

    /// Removes anomalies' rows.
    pub(super) fn remove_anomalies(&self, keys: &[AnomalyKey]) -> Result<(), FileError> {
        self.transact(|transaction| {
            let mut anomalies = transaction.open_table(ANOMALIES)?;
            let mut signatures = transaction.open_table(SIGNATURES)?;
            let mut audit = transaction.open_table(AUDIT)?;
            for key in keys {
                anomalies.remove(key.to_bits())?;
                signatures.remove(key.to_bits())?;
                audit.retain_in(audit_of(key.to_bits()), |_, _| false)?;
            }
            Ok(())
        })
    }

    /// Removes up to `limit` of the journal's oldest rows before `first_kept`. Returns true if
    /// there may be more. The newest row must always be kept, because the next sequence follows
    /// from it.
    pub(super) fn trim_journal(&self, first_kept: u64, limit: usize) -> Result<bool, FileError> {
        let mut more = true;
        self.transact(|transaction| {
            let mut journal = transaction.open_table(JOURNAL)?;
            for _ in 0..limit {
                let oldest = journal.first()?.map(|(sequence, _)| sequence.value());
                let Some(oldest) = oldest.filter(|oldest| *oldest < first_kept) else {
                    more = false;
                    break;
                };
                journal.remove(oldest)?;
            }
            Ok(())
        })?;
        Ok(more)
    }

    fn read(
        &self,
        table: TableDefinition<'_, u64, &[u8]>,
        mut take: impl FnMut(u64, &[u8]) -> Result<(), FileError>,
    ) -> Result<(), FileError> {
        let transaction = self.database.begin_read().map_err(Error::from)?;
        let table = transaction.open_table(table).map_err(Error::from)?;
        for entry in table.iter().map_err(Error::from)? {
            let (key, bytes) = entry.map_err(Error::from)?;
            take(key.value(), bytes.value())?;
        }
        Ok(())
    }

    fn transact(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<(), Error>,
    ) -> Result<(), FileError> {
        let transaction = self.database.begin_write().map_err(Error::from)?;
        change(&transaction)?;
        // The default durability is immediate: this returns after fsync.
        transaction.commit().map_err(Error::from)?;
        Ok(())
    }
}

fn insert(transaction: &redb::WriteTransaction, rows: &AnomalyRows) -> Result<(), Error> {
    let mut anomalies = transaction.open_table(ANOMALIES)?;
    for (key, row) in &rows.rows {
        anomalies.insert(key.to_bits(), row.as_slice())?;
    }
    let mut signatures = transaction.open_table(SIGNATURES)?;
    for (key, json) in &rows.signatures {
        signatures.insert(key.to_bits(), json.as_bytes())?;
    }
    Ok(())
}

/// Removes all but the newest of an anomaly's entries.
fn trim_audit(audit: &mut Table<'_, AuditKey, &'static [u8]>, key: u64) -> Result<(), Error> {
    let oldest = audit.range(audit_of(key))?.rev().nth(AUDIT_ENTRIES).transpose()?;
    let Some(oldest) = oldest.map(|(key, _)| key.value()) else { return Ok(()) };
    audit.retain_in((key, 0, 0)..=oldest, |_, _| false)?;
    Ok(())
}
