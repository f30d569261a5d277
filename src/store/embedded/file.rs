//! The redb file of the embedded store: a row for each anomaly as of some journal sequence, and the
//! journal of the batches since then. Each change is one durable commit.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use redb::{
    Builder, Database, Error, ReadableDatabase as _, ReadableTable as _, Table, TableDefinition,
    TableError,
};

use super::{
    acknowledged::{self, Acknowledged},
    anomaly::Anomaly,
    error::{FileError, OpenError},
    format::{
        ANOMALIES, AUDIT, AuditKey, JOURNAL, OLD_JOURNAL, SIGNATURES, Sequences, audit_of, prepare,
    },
    journal::{Change, JournalRow, ShouldHold},
    row::{self, AnomalyRow, AnomalyRows, Kind, encode},
};
use crate::{
    domain::{AUDIT_ENTRIES, AnomalyKey, AuditEntry},
    redb_file::{
        Missing, OpenedFile, Overlay, RedbFile, sync_folder, takes_other_slot, without_panic,
    },
    store::StoreSize,
};

/// Name of the file in the data directory.
pub const FILE_NAME: &str = "anomalies.redb";
/// The name of a new file until it is complete.
const NEW_FILE_NAME: &str = "anomalies.new";

/// Small, because all anomalies are in memory anyway: the cache serves the journal and the
/// checkpoints.
const PAGE_CACHE_BYTES: usize = 8 << 20;

/// The treatment of an unreadable last commit: it is refused, or rolled back.
#[derive(Clone, Copy, Debug)]
enum Rollback {
    Refused,
    Permitted,
}

/// The open file with its journal's sequences.
#[derive(Debug)]
pub(super) struct StoreFile {
    database: Database,
    opened: OpenedFile,
    sequences: Sequences,
    acknowledged: Acknowledged,
}

impl StoreFile {
    /// Opens the file, and creates it if it is missing. An existing empty file is damaged: a new
    /// file gets its name only when it is complete.
    pub(super) fn open(data_dir: &Path) -> Result<Self, OpenError> {
        let in_data_dir = |source| OpenError::DataDir { dir: data_dir.to_owned(), source };
        fs::create_dir_all(data_dir).map_err(in_data_dir)?;
        if !fs::exists(Self::path(data_dir)).map_err(in_data_dir)? {
            // If two processes start for the first time, the second one waits for the file of the
            // first. On a folder that can't be locked, redb can't lock its files either.
            let folder = File::open(data_dir).map_err(in_data_dir)?;
            let _ = folder.lock();
            if !fs::exists(Self::path(data_dir)).map_err(in_data_dir)? {
                let new = Self::create(data_dir)?;
                fs::rename(new, Self::path(data_dir)).map_err(in_data_dir)?;
                sync_folder(&Self::path(data_dir)).map_err(in_data_dir)?;
            }
        }
        Self::open_existing(data_dir)
    }

    /// Opens the file again after a fault. It must exist and contain the sequence `last`: if a disk
    /// has lost data that this process wrote, starting with less would be wrong.
    pub(super) fn reopen(data_dir: &Path, last: u64) -> Result<Self, OpenError> {
        // At this point, it is known which sequence was acknowledged.
        let file = Self::open_at_its_place(data_dir, Rollback::Permitted)?;
        if file.last_sequence() < last {
            return Err(Self::unreadable(data_dir, FileError::Older));
        }
        Ok(file)
    }

    /// Returns the file as identified at its path.
    pub(super) fn opened(&self) -> &OpenedFile {
        &self.opened
    }

    /// Opens an existing file and verifies all of it: redb trusts a file that was closed properly.
    pub(super) fn open_existing(data_dir: &Path) -> Result<Self, OpenError> {
        let path = Self::path(data_dir);
        if fs::metadata(&path).is_ok_and(|file| file.len() == 0) {
            return Err(OpenError::Unreadable { file: path, source: FileError::Empty });
        }
        if acknowledged::last(data_dir).is_some()
            && takes_other_slot(&path).map_err(|fault| OpenError::of_file(&path, fault.into()))?
        {
            return Self::roll_back(data_dir);
        }
        match Self::open_at_its_place(data_dir, Rollback::Refused) {
            Err(OpenError::Unreadable {
                source: FileError::Database(Error::RepairAborted),
                ..
            }) => Self::roll_back(data_dir),
            opened => opened,
        }
    }

    /// Tries to open the file without changing it; opening normally may convert it. Succeeds if the
    /// file is missing or in use.
    pub(super) fn try_open(data_dir: &Path) -> Result<(), OpenError> {
        let path = Self::path(data_dir);
        let in_data_dir = |source| OpenError::DataDir { dir: data_dir.to_owned(), source };
        if !fs::exists(&path).map_err(in_data_dir)? {
            return Ok(());
        }
        let on_disk = match Overlay::of(&path) {
            Err(Error::DatabaseAlreadyOpen) => return Ok(()),
            on_disk => on_disk.map_err(|fault| OpenError::of_file(&path, fault.into()))?,
        };
        if fs::metadata(&path).map_err(in_data_dir)?.len() == 0 {
            return Err(OpenError::Unreadable { file: path, source: FileError::Empty });
        }
        let opened = OpenedFile::at(&path).map_err(in_data_dir)?;
        let read = unless_panicked(|| {
            let database = without_change(on_disk)?;
            let sequences = prepare(&database)??;
            let file = Self { database, opened, sequences, acknowledged: Acknowledged::nowhere() };
            file.read_anomalies(|_, _| ())?;
            file.read_journal(|_, _, _| ())
        });
        read.map_err(|fault| OpenError::of_file(&path, fault))
    }

    fn open_at_its_place(data_dir: &Path, rollback: Rollback) -> Result<Self, OpenError> {
        let file = Self::open_as(data_dir, FILE_NAME, Missing::Fail, rollback)?;
        Ok(Self { acknowledged: Acknowledged::open(data_dir), ..file })
    }

    /// Opens a file whose last commit can't be read. If the commit was acknowledged, the file is
    /// damaged. Otherwise, the commit was incomplete when the system lost power or the disk failed.
    fn roll_back(data_dir: &Path) -> Result<Self, OpenError> {
        let file = Self::path(data_dir);
        if let Some(acknowledged) = acknowledged::last(data_dir) {
            let left =
                last_after_rollback(&file).map_err(|fault| OpenError::of_file(&file, fault))?;
            if acknowledged > left {
                return Err(OpenError::Unreadable { file, source: FileError::LastCommit });
            }
        }
        tracing::warn!(
            file = %file.display(),
            "the last commit to {} is incomplete, as after a power failure or on a failing disk. \
             It is rolled back; there is no record that it was acknowledged",
            file.display()
        );
        Self::open_at_its_place(data_dir, Rollback::Permitted)
    }

    /// Creates a file next to that of the store, and replaces one that was left incomplete.
    fn create(data_dir: &Path) -> Result<PathBuf, OpenError> {
        Self::create_with(data_dir, |_| Ok(()))
    }

    /// Creates a file as [`StoreFile::create`] does, with the content that `fill` writes. The file
    /// is removed if that fails, so that it does not fill a full disk.
    pub(super) fn create_with(
        data_dir: &Path,
        fill: impl FnOnce(&mut Self) -> Result<(), FileError>,
    ) -> Result<PathBuf, OpenError> {
        let path = data_dir.join(NEW_FILE_NAME);
        let remove = || match fs::remove_file(&path) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => Err(fault),
            _ => Ok(()),
        };
        let in_data_dir = |source| OpenError::DataDir { dir: data_dir.to_owned(), source };
        remove().map_err(in_data_dir)?;
        let created = Self::open_as(data_dir, NEW_FILE_NAME, Missing::Create, Rollback::Refused)
            .and_then(|mut file| {
                fill(&mut file).map_err(|fault| OpenError::of_file(&path, fault))?;
                file.database.close().map_err(|fault| {
                    let fault = Error::from(fault).into();
                    OpenError::of_file(&path, fault)
                })
            });
        if created.is_err() {
            // The returned error is more useful than one of this call.
            let _ = remove();
        }
        created.map(|()| path)
    }

    fn open_as(
        data_dir: &Path,
        name: &str,
        missing: Missing,
        rollback: Rollback,
    ) -> Result<Self, OpenError> {
        let on_disk = RedbFile::new(data_dir, name, PAGE_CACHE_BYTES).with_integrity_check();
        let on_disk = match rollback {
            Rollback::Refused => on_disk.without_rollback(),
            Rollback::Permitted => on_disk,
        };
        let (database, prepared) = on_disk
            .open(missing, prepare)
            .map_err(|fault| OpenError::of_opening(data_dir, on_disk.path(), fault))?;
        let sequences = prepared.map_err(|fault| OpenError::of_file(on_disk.path(), fault))?;
        let in_data_dir = |source| OpenError::DataDir { dir: data_dir.to_owned(), source };
        let opened = OpenedFile::at(on_disk.path()).map_err(in_data_dir)?;
        Ok(Self { database, opened, sequences, acknowledged: Acknowledged::nowhere() })
    }

    /// Returns the path of the store's file.
    pub(super) fn path(data_dir: &Path) -> PathBuf {
        data_dir.join(FILE_NAME)
    }

    /// Returns the error of a file in `data_dir` that was opened but can't be read.
    pub(super) fn unreadable(data_dir: &Path, fault: FileError) -> OpenError {
        OpenError::of_file(&Self::path(data_dir), fault)
    }

    /// Closes a failed file, on which redb may panic again.
    pub(super) fn discard(self) {
        let _ = without_panic(|| drop(self));
    }

    /// Calls `take` with every anomaly's row.
    pub(super) fn read_anomalies(
        &self,
        mut take: impl FnMut(AnomalyKey, AnomalyRow<Anomaly>),
    ) -> Result<(), FileError> {
        self.read(ANOMALIES, |key, bytes| {
            take(AnomalyKey::from_bits(key), row::decode_anomaly(key, bytes)?);
            Ok(())
        })
    }

    /// Calls `take` with every row of the journal, its sequence and its size in bytes, in order.
    pub(super) fn read_journal(
        &self,
        mut take: impl FnMut(u64, usize, JournalRow),
    ) -> Result<(), FileError> {
        self.read(JOURNAL, |sequence, bytes| {
            take(sequence, bytes.len(), row::decode_journal(sequence, bytes)?);
            Ok(())
        })
    }

    /// Calls `take` with every anomaly's signature, in the order of the keys.
    pub(super) fn read_signatures(
        &self,
        mut take: impl FnMut(AnomalyKey, &str),
    ) -> Result<(), FileError> {
        self.read(SIGNATURES, |key, bytes| {
            take(AnomalyKey::from_bits(key), &row::decode_signature(key, bytes)?);
            Ok(())
        })
    }

    /// Adds a row to the journal, and its entries to the audit. They are durable when this returns.
    /// Returns the row's size in bytes.
    pub(super) fn append(
        &mut self,
        row: &JournalRow,
        audit: &[(AnomalyKey, AuditEntry)],
    ) -> Result<usize, FileError> {
        let sequence = self.sequences.next;
        let bytes = encode(Kind::Journal, sequence, row)?;
        let mut entries = Vec::with_capacity(audit.len());
        for (index, (key, entry)) in (0_u32..).zip(audit) {
            let key = (key.to_bits(), sequence, index);
            entries.push((key, encode(Kind::Audit, key, entry)?));
        }
        let forgotten: Vec<_> = row.changes.iter().filter_map(Change::forgotten).collect();
        self.transact(|transaction| {
            transaction.open_table(JOURNAL)?.insert(sequence, bytes.as_slice())?;
            // Removed together with the change itself, because the journal is trimmed: remaining
            // rows would come back.
            remove(transaction, &forgotten)?;
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
        self.acknowledged.note(sequence);
        self.sequences.next += 1;
        Ok(bytes.len())
    }

    /// Returns the sequence of the journal's newest row; 0 before the first row.
    pub(super) fn last_sequence(&self) -> u64 {
        self.sequences.next - 1
    }

    /// Returns the expected content of the file for the journal's next row, given the size of the
    /// store.
    pub(super) fn should_hold(&self, size: StoreSize) -> ShouldHold {
        ShouldHold { oldest: self.sequences.oldest, anomalies: size.anomalies as u64 }
    }

    /// Writes anomalies' rows and their signatures.
    pub(super) fn write_anomalies(&self, rows: &AnomalyRows) -> Result<(), FileError> {
        self.transact(|transaction| insert(transaction, rows))
    }

    /// Writes entries of several audits.
    pub(super) fn write_audit(&self, entries: &[(AuditKey, AuditEntry)]) -> Result<(), FileError> {
        let row = |(key, entry): &(AuditKey, AuditEntry)| {
            encode(Kind::Audit, *key, entry).map(|row| (*key, row))
        };
        let rows = entries.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        self.transact(|transaction| {
            let mut audit = transaction.open_table(AUDIT)?;
            for (key, row) in &rows {
                audit.insert(key, row.as_slice())?;
            }
            Ok(())
        })
    }

    /// Makes the journal of a new file begin after a sequence.
    pub(super) fn continue_after(&mut self, sequence: u64) {
        self.sequences = Sequences { oldest: sequence + 1, next: sequence + 1 };
    }

    /// Returns the object that made an anomaly known, as JSON.
    pub(super) fn signature_json(&self, key: AnomalyKey) -> Result<Option<String>, FileError> {
        unless_panicked(|| {
            let transaction = self.database.begin_read().map_err(Error::from)?;
            let signatures = transaction.open_table(SIGNATURES).map_err(Error::from)?;
            let row = signatures.get(key.to_bits()).map_err(Error::from)?;
            Ok(row.map(|row| row::decode_signature(key.to_bits(), row.value())).transpose()?)
        })
    }

    /// Returns the audit of an anomaly, newest first.
    pub(super) fn audit(&self, key: AnomalyKey) -> Result<Vec<AuditEntry>, FileError> {
        unless_panicked(|| {
            let transaction = self.database.begin_read().map_err(Error::from)?;
            let audit = transaction.open_table(AUDIT).map_err(Error::from)?;
            let mut entries = Vec::new();
            for row in audit.range(audit_of(key.to_bits())).map_err(Error::from)?.rev() {
                let (key, entry) = row.map_err(Error::from)?;
                entries.push(row::decode_audit(&key.value(), entry.value())?);
            }
            Ok(entries)
        })
    }

    /// Removes the rows of anomalies.
    pub(super) fn remove_anomalies(&self, keys: &[AnomalyKey]) -> Result<(), FileError> {
        self.transact(|transaction| remove(transaction, keys))
    }

    /// Removes up to `limit` of the journal's oldest rows before `first_kept`. Returns true if
    /// there may be more. The newest row is always kept, because the next sequence follows from it.
    pub(super) fn trim_journal(
        &mut self,
        first_kept: u64,
        limit: usize,
    ) -> Result<bool, FileError> {
        let mut more = true;
        let mut removed = None;
        self.transact(|transaction| {
            let mut journal = transaction.open_table(JOURNAL)?;
            for _ in 0..limit {
                let oldest = journal.first()?.map(|(sequence, _)| sequence.value());
                let Some(oldest) = oldest.filter(|oldest| *oldest < first_kept) else {
                    more = false;
                    break;
                };
                journal.remove(oldest)?;
                removed = Some(oldest);
            }
            Ok(())
        })?;
        self.sequences.oldest = removed.map_or(self.sequences.oldest, |removed| removed + 1);
        Ok(more)
    }

    fn read(
        &self,
        table: TableDefinition<'_, u64, &[u8]>,
        mut take: impl FnMut(u64, &[u8]) -> Result<(), FileError>,
    ) -> Result<(), FileError> {
        unless_panicked(|| {
            let transaction = self.database.begin_read().map_err(Error::from)?;
            let table = transaction.open_table(table).map_err(Error::from)?;
            for entry in table.iter().map_err(Error::from)? {
                let (key, bytes) = entry.map_err(Error::from)?;
                take(key.value(), bytes.value())?;
            }
            Ok(())
        })
    }

    fn transact(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<(), Error>,
    ) -> Result<(), FileError> {
        unless_panicked(|| {
            let transaction = self.database.begin_write().map_err(Error::from)?;
            change(&transaction)?;
            // The default durability is immediate: this returns after the fsync.
            transaction.commit().map_err(Error::from)?;
            Ok(())
        })
    }
}

/// Returns the newest sequence of the journal in a file without its last commit. The file does not
/// change, although rolling back writes.
fn last_after_rollback(file: &Path) -> Result<u64, FileError> {
    unless_panicked(|| {
        let database = without_change(Overlay::of(file)?)?;
        let transaction = database.begin_read().map_err(Error::from)?;
        let mut last = 0;
        for table in [JOURNAL, OLD_JOURNAL] {
            let journal = match transaction.open_table(table) {
                Err(TableError::TableDoesNotExist(_)) => continue,
                opened => opened.map_err(Error::from)?,
            };
            let newest = journal.last().map_err(Error::from)?;
            last = last.max(newest.map_or(0, |(sequence, _)| sequence.value()));
        }
        Ok(last)
    })
}

/// Opens a file without changing it.
fn without_change(file: Overlay) -> Result<Database, Error> {
    let mut builder = Builder::new();
    builder.set_check_integrity_on_open(true).set_cache_size(PAGE_CACHE_BYTES);
    Ok(builder.create_with_backend(file)?)
}

/// Runs a call of redb, which may panic on a page that was damaged after the file was verified.
/// After a panic, the file must be opened again.
pub(super) fn unless_panicked<T>(
    call: impl FnOnce() -> Result<T, FileError>,
) -> Result<T, FileError> {
    without_panic(call).unwrap_or(Err(FileError::Panicked))
}

fn insert(transaction: &redb::WriteTransaction, rows: &AnomalyRows) -> Result<(), Error> {
    let mut anomalies = transaction.open_table(ANOMALIES)?;
    for (key, row) in &rows.rows {
        anomalies.insert(key.to_bits(), row.as_slice())?;
    }
    let mut signatures = transaction.open_table(SIGNATURES)?;
    for (key, row) in &rows.signatures {
        signatures.insert(key.to_bits(), row.as_slice())?;
    }
    Ok(())
}

/// Removes the rows of anomalies, with their signatures and audits.
fn remove(transaction: &redb::WriteTransaction, keys: &[AnomalyKey]) -> Result<(), Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut anomalies = transaction.open_table(ANOMALIES)?;
    let mut signatures = transaction.open_table(SIGNATURES)?;
    let mut audit = transaction.open_table(AUDIT)?;
    for key in keys {
        anomalies.remove(key.to_bits())?;
        signatures.remove(key.to_bits())?;
        audit.retain_in(audit_of(key.to_bits()), |_, _| false)?;
    }
    Ok(())
}

/// Removes all entries of an anomaly except the newest ones.
fn trim_audit(audit: &mut Table<'_, AuditKey, &'static [u8]>, key: u64) -> Result<(), Error> {
    let oldest = audit.range(audit_of(key))?.rev().nth(AUDIT_ENTRIES).transpose()?;
    let Some(oldest) = oldest.map(|(key, _)| key.value()) else { return Ok(()) };
    audit.retain_in((key, 0, 0)..=oldest, |_, _| false)?;
    Ok(())
}
