//! The redb file of the embedded store: a row for each anomaly as of some journal sequence, and
//! the journal of batches since. Relies on redb for atomic, durable commits.

use std::{
    fs::{self, File},
    io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable, StorageError, Table,
    TableDefinition,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    anomaly::Anomaly,
    journal::{Audit, JournalRow},
};
use crate::domain::{AUDIT_ENTRIES, AnomalyKey, AuditEntry};

/// Anomaly key → [`AnomalyRow`].
const ANOMALIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("anomalies_v2");
/// The same as an earlier version had it, with the signature inside.
const ANOMALIES_V1: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("anomalies_v1");
/// Anomaly key → the object as first posted, as JSON. Of a row of its own, since it never changes, and is
/// not kept in memory.
const SIGNATURES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("signatures_v1");
/// Anomaly key, journal sequence and place in its batch → [`AuditEntry`]. On disk only, since they are few and
/// seldom asked for.
const AUDIT: TableDefinition<'_, (u64, u64, u32), &[u8]> = TableDefinition::new("audit_v1");
/// Sequence → [`JournalRow`].
const JOURNAL: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("journal_v1");

const FILE_NAME: &str = "anomalies.redb";

/// All anomalies are in memory anyway: the cache serves the journal and the checkpoints.
const PAGE_CACHE_BYTES: usize = 8 << 20;

/// An anomaly with all changes up to and including a journal sequence.
#[derive(Debug, Serialize, serde::Deserialize)]
pub(super) struct AnomalyRow<A> {
    pub(super) as_of: u64,
    pub(super) anomaly: A,
}

/// Rows of anomalies, and the signatures of those that have none on disk yet.
#[derive(Debug, Default)]
pub(super) struct AnomalyRows {
    rows: Vec<(AnomalyKey, Vec<u8>)>,
    pub(super) signatures: Vec<(AnomalyKey, String)>,
    pub(super) bytes: usize,
}

impl AnomalyRows {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn add(
        &mut self,
        as_of: u64,
        key: AnomalyKey,
        anomaly: &Anomaly,
    ) -> Result<(), FileError> {
        let row = encode(&AnomalyRow { as_of, anomaly })?;
        self.bytes += row.len();
        self.rows.push((key, row));
        if let Some(signature_json) = anomaly.new_signature_json() {
            self.bytes += signature_json.len();
            self.signatures.push((key, signature_json.to_owned()));
        }
        Ok(())
    }
}

/// Why the store's file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder is missing and can't be made.
    #[error("data_dir {}: {source}. Make it writable, or name another one in `data_dir`", dir.display())]
    DataDir {
        /// The configured folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it open.
    #[error(
        "{} is in use by another process. Stop that one, or give this one a `data_dir` of its own \
         (ANOMALY_COUNTER__DATA_DIR)",
        file.display()
    )]
    InUse {
        /// The file.
        file: PathBuf,
    },
    /// It is damaged, of another version, or the disk fails.
    #[error("{}: {source}. Restore it from a backup, or move it away to start empty", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What redb or the decoder said.
        source: FileError,
    },
}

impl OpenError {
    pub(super) fn unreadable(data_dir: &Path, source: impl Into<FileError>) -> Self {
        Self::Unreadable { file: data_dir.join(FILE_NAME), source: source.into() }
    }
}

/// A fault of the open file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The database says so.
    #[error(transparent)]
    Database(#[from] redb::Error),
    /// A row is not of this format.
    #[error("a row can't be read: {0}")]
    Row(#[from] postcard::Error),
    /// It lacks what this process has written.
    #[error("the file is not the one that was open before, or an older copy of it")]
    Older,
}

/// The open file.
#[derive(Debug)]
pub(super) struct StoreFile {
    database: Database,
    /// The sequence of the journal's next row.
    next_sequence: u64,
}

impl StoreFile {
    /// Opens the file, which is made when it is missing.
    pub(super) fn open(data_dir: &Path) -> Result<Self, OpenError> {
        let in_data_dir = |source| OpenError::DataDir { dir: data_dir.to_owned(), source };
        fs::create_dir_all(data_dir).map_err(in_data_dir)?;
        Self::open_by(data_dir, |builder, file| builder.create(file))
    }

    /// Opens the file again after a fault. It must be there and hold the sequence `last`: a disk that
    /// is gone, or another one in its place, is no reason to begin empty.
    pub(super) fn reopen(data_dir: &Path, last: u64) -> Result<Self, OpenError> {
        let file = Self::open_by(data_dir, |builder, file| builder.open(file))?;
        if file.last_sequence() < last {
            return Err(OpenError::unreadable(data_dir, FileError::Older));
        }
        Ok(file)
    }

    fn open_by(
        data_dir: &Path,
        open: impl FnOnce(&mut redb::Builder, &Path) -> Result<Database, DatabaseError>,
    ) -> Result<Self, OpenError> {
        let in_data_dir = |source| OpenError::DataDir { dir: data_dir.to_owned(), source };
        let file = data_dir.join(FILE_NAME);
        let mut builder = Database::builder();
        builder.set_cache_size(PAGE_CACHE_BYTES);
        let database = open(&mut builder, &file).map_err(|fault| match fault {
            DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { file },
            DatabaseError::Storage(StorageError::Io(source)) if !is_damage(&source) => {
                in_data_dir(source)
            }
            other => OpenError::unreadable(data_dir, redb::Error::from(other)),
        })?;
        // redb syncs the file, but not that the folder names it.
        File::open(data_dir).and_then(|dir| dir.sync_all()).map_err(in_data_dir)?;

        let next_sequence =
            prepare(&database).map_err(|fault| OpenError::unreadable(data_dir, fault))?;
        Ok(Self { database, next_sequence })
    }

    /// Hands over every anomaly's row.
    pub(super) fn read_anomalies(
        &self,
        mut take: impl FnMut(AnomalyKey, AnomalyRow<Anomaly>),
    ) -> Result<(), FileError> {
        self.read(ANOMALIES, |key, bytes| {
            take(AnomalyKey::from_bits(key), decode(bytes)?);
            Ok(())
        })
    }

    /// Hands over every row of the journal with its sequence and its size in bytes, in order.
    pub(super) fn read_journal(
        &self,
        mut take: impl FnMut(u64, usize, JournalRow),
    ) -> Result<(), FileError> {
        self.read(JOURNAL, |sequence, bytes| {
            take(sequence, bytes.len(), decode(bytes)?);
            Ok(())
        })
    }

    /// Adds a row to the journal, and what it has for the audit. It is durable when this returns. Answers the
    /// row's size in bytes.
    pub(super) fn append(&mut self, row: &JournalRow, audit: &Audit) -> Result<usize, FileError> {
        let sequence = self.next_sequence;
        let bytes = encode(row)?;
        let mut entries = Vec::with_capacity(audit.len());
        for (place, (key, entry)) in (0..).zip(audit) {
            entries.push(((key.to_bits(), sequence, place), encode(entry)?));
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

    /// The sequence of the journal's newest row; 0 before the first.
    pub(super) fn last_sequence(&self) -> u64 {
        self.next_sequence - 1
    }

    /// Writes anomalies' rows, and their signatures with them.
    pub(super) fn write_anomalies(&self, rows: &AnomalyRows) -> Result<(), FileError> {
        self.transact(|transaction| insert(transaction, rows))
    }

    /// The object that made an anomaly known, as JSON.
    pub(super) fn signature_json(&self, key: AnomalyKey) -> Result<Option<String>, FileError> {
        let transaction = self.database.begin_read().map_err(redb::Error::from)?;
        let signatures = transaction.open_table(SIGNATURES).map_err(redb::Error::from)?;
        let row = signatures.get(key.to_bits()).map_err(redb::Error::from)?;
        Ok(row.map(|row| String::from_utf8_lossy(row.value()).into_owned()))
    }

    /// Who has done what about an anomaly, newest first.
    pub(super) fn audit(&self, key: AnomalyKey) -> Result<Vec<AuditEntry>, FileError> {
        let transaction = self.database.begin_read().map_err(redb::Error::from)?;
        let audit = transaction.open_table(AUDIT).map_err(redb::Error::from)?;
        let mut entries = Vec::new();
        for row in audit.range(audit_of(key.to_bits())).map_err(redb::Error::from)?.rev() {
            let (_, entry) = row.map_err(redb::Error::from)?;
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

    /// Removes up to `limit` of the journal's oldest rows before `first_kept`, and says whether
    /// there are more. The newest row is to be kept always: it carries the sequence on.
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
        let transaction = self.database.begin_read().map_err(redb::Error::from)?;
        let table = transaction.open_table(table).map_err(redb::Error::from)?;
        for entry in table.iter().map_err(redb::Error::from)? {
            let (key, bytes) = entry.map_err(redb::Error::from)?;
            take(key.value(), bytes.value())?;
        }
        Ok(())
    }

    fn transact(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), FileError> {
        let transaction = self.database.begin_write().map_err(redb::Error::from)?;
        change(&transaction)?;
        // The default durability is immediate: this returns after fsync.
        transaction.commit().map_err(redb::Error::from)?;
        Ok(())
    }
}

/// Makes the tables of an empty file or of an earlier version, and answers the next sequence.
fn prepare(database: &Database) -> Result<u64, FileError> {
    let transaction = database.begin_write().map_err(redb::Error::from)?;
    let old_rows = {
        transaction.open_table(SIGNATURES).map_err(redb::Error::from)?;
        transaction.open_table(AUDIT).map_err(redb::Error::from)?;
        transaction.open_table(ANOMALIES).map_err(redb::Error::from)?;
        read_v1(&transaction.open_table(ANOMALIES_V1).map_err(redb::Error::from)?)?
    };
    insert(&transaction, &old_rows)?;
    transaction.delete_table(ANOMALIES_V1).map_err(redb::Error::from)?;
    let journal = transaction.open_table(JOURNAL).map_err(redb::Error::from)?;
    let last = journal.last().map_err(redb::Error::from)?.map(|(sequence, _)| sequence.value());
    drop(journal);
    transaction.commit().map_err(redb::Error::from)?;
    Ok(last.map_or(1, |last| last + 1))
}

fn read_v1(table: &impl ReadableTable<u64, &'static [u8]>) -> Result<AnomalyRows, FileError> {
    let mut rows = AnomalyRows::default();
    for entry in table.iter().map_err(redb::Error::from)? {
        let (key, bytes) = entry.map_err(redb::Error::from)?;
        let AnomalyRow { as_of, anomaly } = decode(bytes.value())?;
        rows.add(as_of, AnomalyKey::from_bits(key.value()), &Anomaly::from_v1(anomaly))?;
    }
    Ok(rows)
}

fn insert(transaction: &redb::WriteTransaction, rows: &AnomalyRows) -> Result<(), redb::Error> {
    let mut anomalies = transaction.open_table(ANOMALIES)?;
    for (key, bytes) in &rows.rows {
        anomalies.insert(key.to_bits(), bytes.as_slice())?;
    }
    let mut signatures = transaction.open_table(SIGNATURES)?;
    for (key, json) in &rows.signatures {
        signatures.insert(key.to_bits(), json.as_bytes())?;
    }
    Ok(())
}

/// The keys of an anomaly's entries in the audit.
fn audit_of(key: u64) -> RangeInclusive<(u64, u64, u32)> {
    (key, 0, 0)..=(key, u64::MAX, u32::MAX)
}

/// Removes what is beyond the newest of an anomaly's entries.
fn trim_audit(
    audit: &mut Table<'_, (u64, u64, u32), &'static [u8]>,
    key: u64,
) -> Result<(), redb::Error> {
    let oldest = audit.range(audit_of(key))?.rev().nth(AUDIT_ENTRIES).transpose()?;
    let Some(oldest) = oldest.map(|(key, _)| key.value()) else { return Ok(()) };
    audit.retain_in((key, 0, 0)..=oldest, |_, _| false)?;
    Ok(())
}

/// Whether it is what the file holds that is at fault, and not the disk or its permissions.
fn is_damage(fault: &io::Error) -> bool {
    matches!(fault.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn encode(row: &impl Serialize) -> Result<Vec<u8>, FileError> {
    Ok(postcard::to_stdvec(row)?)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FileError> {
    Ok(postcard::from_bytes(bytes)?)
}
