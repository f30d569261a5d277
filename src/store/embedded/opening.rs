//! Opens the files of the embedded store, creates redb's if it is missing, and verifies both. What
//! redb does not notice or would not say is found here: a last commit that it would take back
//! without a word, and rows of the journal that are missing in their own file.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use redb::{Builder, Database, Error, ReadableDatabase as _, ReadableTable as _, TableError};

use super::{
    acknowledged::{self, Acknowledged},
    error::{FileError, OpenError},
    file::{FILE_NAME, StoreFile, unless_panicked},
    format::{JOURNAL, OLD_JOURNAL, Sequences, note_journal_file, prepare},
    journal::JournalRow,
    journal_file::{self, JournalFile},
    limits::{self, Limits},
};
use crate::{
    domain::TimelineConfig,
    redb_file::{Missing, OpenedFile, Overlay, RedbFile, sync_folder, takes_other_slot},
    store::StoreSize,
};

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
            let file = Self::of_redb(database, opened, sequences).with_newest_rows(data_dir)?;
            file.read_anomalies(|_, _| ())?;
            file.read_journal(|_, _, _| ())
        });
        read.map_err(|fault| OpenError::of_file(&path, fault))
    }

    fn open_at_its_place(data_dir: &Path, rollback: Rollback) -> Result<Self, OpenError> {
        let file = Self::open_as(data_dir, FILE_NAME, Missing::Fail, rollback)?;
        let file =
            file.with_newest_rows(data_dir).map_err(|fault| Self::unreadable(data_dir, fault))?;
        let journal = file.sequences.file_id.map(|_| JournalFile::open(data_dir)).transpose();
        let in_data_dir = |source| OpenError::DataDir { dir: data_dir.to_owned(), source };
        let (journal, acknowledged) = (journal.map_err(in_data_dir)?, Acknowledged::open(data_dir));
        Ok(Self { journal, acknowledged, ..file })
    }

    /// Reads the rows of the journal that redb has not got.
    fn with_newest_rows(self, data_dir: &Path) -> Result<Self, FileError> {
        let Some(id) = self.sequences.file_id else { return Ok(self) };
        let unmoved = journal_file::rows_after(data_dir, id, self.last_sequence())?;
        let next = self.sequences.next + unmoved.len() as u64;
        if acknowledged::last(data_dir).is_some_and(|acknowledged| acknowledged >= next) {
            return Err(FileError::LastCommit);
        }
        Ok(Self { unmoved, sequences: Sequences { next, ..self.sequences }, ..self })
    }

    /// Returns the limits by which the rows of the journal were written.
    pub(super) fn read_limits(&self) -> Result<Limits, FileError> {
        Limits::read(&self.database)
    }

    /// Begins to use the file for the newest rows of the journal, once all rows were read. They are
    /// written by these limits.
    pub(super) fn begin_journal(
        &mut self,
        data_dir: &Path,
        size: StoreSize,
        limits: TimelineConfig,
    ) -> Result<(), OpenError> {
        let in_data_dir = |source| OpenError::DataDir { dir: data_dir.to_owned(), source };
        let unreadable = |fault| Self::unreadable(data_dir, fault);
        if self.journal.is_none() {
            let aside = journal_file::set_aside(data_dir, self.last_sequence());
            if let Some(aside) = aside.map_err(in_data_dir)? {
                tracing::warn!(
                    "the journal does not belong to the store's file beside it, and is renamed to \
                     {}",
                    aside.display()
                );
            }
            let id = rand::random();
            let journal = JournalFile::create(data_dir, id).map_err(in_data_dir)?;
            // That of another file may still be there.
            self.acknowledged.note(self.last_sequence());
            // The row below is another commit, so that going back one does not lose the id.
            self.transact(|transaction| note_journal_file(transaction, Some(id)))
                .map_err(unreadable)?;
            self.journal = Some(journal);
        }
        // Like the id, it is before another commit.
        let noted = self.read_limits().map_err(unreadable)?;
        if !noted.are_noted(self.sequences.next, limits) {
            self.transact(|transaction| limits::note(transaction, self.sequences, limits))
                .map_err(unreadable)?;
        }
        // Goes to redb with what was found, by which older versions notice this one.
        let row = JournalRow::empty(self.should_hold(size));
        self.append(&row, &[]).map_err(unreadable)?;
        Ok(())
    }

    /// Opens a file whose last commit can't be read. If the commit was acknowledged, the file is
    /// damaged. Otherwise, the commit was incomplete when the system lost power or the disk failed.
    fn roll_back(data_dir: &Path) -> Result<Self, OpenError> {
        let file = Self::path(data_dir);
        let left = last_after_rollback(&file)
            .and_then(|left| journal_file::last_after(data_dir, left))
            .map_err(|fault| OpenError::of_file(&file, fault))?;
        if acknowledged::last(data_dir).is_some_and(|acknowledged| acknowledged > left) {
            return Err(OpenError::Unreadable { file, source: FileError::LastCommit });
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
        Ok(Self::of_redb(database, opened, sequences))
    }

    fn of_redb(database: Database, opened: OpenedFile, sequences: Sequences) -> Self {
        let acknowledged = Acknowledged::nowhere();
        Self { database, opened, sequences, journal: None, unmoved: Vec::new(), acknowledged }
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
