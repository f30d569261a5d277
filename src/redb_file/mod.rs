//! Opens the redb files of the spool and the embedded store, verifies them, and renames damaged
//! ones. Distinguishes the cases that callers treat differently: a file that another process has
//! open, a fault of the disk or its permissions, and damage. The caller decides what follows.
//!
//! `disk_thread.rs` is the thread that owns an open file, so that nothing else waits for the disk;
//! `presence.rs` detects that an open file is no longer at its path; `overlay.rs` opens a file
//! without changing it; `readable.rs` reads a damaged file.

mod disk_thread;
mod overlay;
mod presence;
mod readable;

use std::{
    any::Any,
    cell::Cell,
    fs::{self, File},
    io, mem,
    ops::Range,
    panic::{self, AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Once,
};

use redb::{Builder, Database, DatabaseError, Error, TableHandle as _, WriteTransaction};

/// The progress of a repair at which redb asks whether it may go back to the commit before the last
/// one. An intact file is repaired without that step.
const IS_ROLLED_BACK: Range<f64> = 0.2..0.5;
pub(crate) use disk_thread::{DiskThread, DiskWork, JobError, Late};
pub(crate) use overlay::{Overlay, takes_other_slot};
pub(crate) use presence::{Absence, OpenedFile};
pub(crate) use readable::ReadableFile;

/// The treatment of a file that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Create,
    /// For a file that was open before: if its disk is gone, starting empty would be wrong.
    Fail,
}

/// A redb file, given by its path, with the settings for opening it.
#[derive(Clone, Debug)]
pub(crate) struct RedbFile {
    path: PathBuf,
    page_cache_bytes: usize,
    checks_integrity: bool,
    refuses_rollback: bool,
}

/// The reason why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenFault {
    #[error("another process has the file open")]
    InUse,
    /// The disk fails, is full, or denies access.
    #[error(transparent)]
    Disk(io::Error),
    /// redb or the caller can't read the content of the file.
    #[error(transparent)]
    Damaged(Error),
}

impl From<Error> for OpenFault {
    fn from(fault: Error) -> Self {
        match fault {
            Error::DatabaseAlreadyOpen => Self::InUse,
            Error::Io(source) if !is_damage(&source) => Self::Disk(source),
            other => Self::Damaged(other),
        }
    }
}

impl RedbFile {
    /// Creates the description of the file `name` in `data_dir`. Its integrity is not checked
    /// unless that is requested.
    pub(crate) fn new(data_dir: &Path, name: &str, page_cache_bytes: usize) -> Self {
        Self {
            path: data_dir.join(name),
            page_cache_bytes,
            checks_integrity: false,
            refuses_rollback: false,
        }
    }

    /// Returns the same file, with the checksums of all pages verified when it is opened.
    pub(crate) fn with_integrity_check(self) -> Self {
        Self { checks_integrity: true, ..self }
    }

    /// Returns the same file, without the repair by which redb goes back to the commit before the
    /// last one if pages of the last one are incomplete or damaged: that is
    /// [`Error::RepairAborted`].
    pub(crate) fn without_rollback(self) -> Self {
        Self { refuses_rollback: true, ..self }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file and applies `prepare` to it, which may return [`Error::Corrupted`]. redb may
    /// panic on a file that other programs have changed; in both steps, a panic counts as damage.
    /// So does a file that is empty or incomplete.
    pub(crate) fn open<T>(
        &self,
        missing: Missing,
        prepare: impl FnOnce(&Database) -> Result<T, Error>,
    ) -> Result<(Database, T), OpenFault> {
        let opened = without_panic(|| {
            let database = match missing {
                Missing::Create if !self.path.try_exists()? => self.create()?,
                Missing::Create | Missing::Fail => self.builder().open(&self.path)?,
            };
            // redb syncs the file, but not its entry in the folder.
            sync_folder(&self.path)?;
            match prepare(&database) {
                Ok(prepared) => Ok((database, prepared)),
                Err(damage @ Error::Corrupted(_)) => {
                    // Closing it would write to pages from which data may be salvaged.
                    mem::forget(database);
                    Err(damage)
                }
                Err(fault) => Err(fault),
            }
        });
        let panicked = |panic| Err(Error::Corrupted(panic));
        opened.unwrap_or_else(panicked).map_err(OpenFault::from)
    }

    /// Creates the file under another name first, so that it never exists incomplete under its own.
    fn create(&self) -> Result<Database, Error> {
        let unfinished = self.path.with_extension("unfinished");
        let database = match self.builder().create(&unfinished) {
            Err(DatabaseError::DatabaseAlreadyOpen) => return Err(Error::DatabaseAlreadyOpen),
            Err(_) if unfinished.try_exists()? => {
                // A process that ended too early has left it. Nothing was written to it.
                fs::remove_file(&unfinished)?;
                self.builder().create(&unfinished)?
            }
            created => created?,
        };
        if self.path.try_exists()? {
            // Another process has created it in the meantime. A third one may have found this one
            // too.
            drop(database);
            match fs::remove_file(&unfinished) {
                Err(fault) if fault.kind() != io::ErrorKind::NotFound => return Err(fault.into()),
                _ => {}
            }
            return Ok(self.builder().open(&self.path)?);
        }
        fs::rename(&unfinished, &self.path)?;
        Ok(database)
    }

    fn builder(&self) -> Builder {
        let mut builder = Database::builder();
        builder.set_cache_size(self.page_cache_bytes);
        builder.set_check_integrity_on_open(self.checks_integrity);
        if self.refuses_rollback {
            builder.set_repair_callback(|session| {
                if IS_ROLLED_BACK.contains(&session.progress()) {
                    session.abort();
                }
            });
        }
        builder
    }

    /// Returns a file of the same kind next to it, with `extension` in place of its own.
    pub(crate) fn beside(&self, extension: &str) -> Self {
        Self { path: self.path.with_extension(extension), ..self.clone() }
    }

    /// Renames the file, which no process has open, to the name of `other`, which must not exist.
    pub(crate) fn rename_to(&self, other: &Self) -> io::Result<()> {
        fs::rename(&self.path, &other.path)?;
        sync_folder(&other.path)
    }

    /// Renames the file to one with `suffix` in place of its extension. Returns the new path.
    pub(crate) fn set_aside(&self, suffix: &str) -> io::Result<PathBuf> {
        let aside = self.path.with_extension(suffix);
        fs::rename(&self.path, &aside)?;
        sync_folder(&self.path)?;
        Ok(aside)
    }
}

/// Returns the text of an error of `dir`, the folder of the files.
pub(crate) fn folder_text(dir: &Path, source: &io::Error) -> String {
    let advice = match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "Free space on its disk",
        // A file, or a link that leads nowhere, at its path or that of a folder above.
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            "What is there is not a folder: move it away"
        }
        io::ErrorKind::IsADirectory => "Move away the folder that has the name of a file",
        _ => "Make it writable",
    };
    format!("data_dir {}: {source}. {advice}, or set another `data_dir`", dir.display())
}

/// Returns the text of the error that another process has `file` open.
pub(crate) fn in_use_text(file: &Path) -> String {
    format!(
        "{} is in use by another process. Stop that process, or give this one its own `data_dir` \
         (ANOMALY_COUNTER__DATA_DIR)",
        file.display()
    )
}

thread_local! {
    /// True while this thread catches panics.
    static CATCHES: Cell<bool> = const { Cell::new(false) };
}

/// Prevents output of panics within [`without_panic`].
static QUIET: Once = Once::new();

/// Returns the result of `work`, or the text of its panic: redb panics on some kinds of damage.
pub(crate) fn without_panic<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    QUIET.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !CATCHES.get() {
                hook(panic);
            }
        }));
    });
    let caught_before = CATCHES.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CATCHES.set(caught_before);
    result.map_err(|panic| format!("redb has panicked: {}", panic_text(&*panic)))
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason")
}

/// Returns the names of all tables, sorted.
pub(crate) fn table_names(transaction: &WriteTransaction) -> Result<Vec<String>, Error> {
    let mut names: Vec<_> =
        transaction.list_tables()?.map(|table| table.name().to_owned()).collect();
    names.sort_unstable();
    Ok(names)
}

/// Makes a new or changed name of a file durable.
pub(crate) fn sync_folder(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// EIO, which has no `ErrorKind` of its own.
const CAN_NOT_BE_READ: i32 = 5;

/// Returns true if the disk has lost the requested data, as with a bad sector.
pub(crate) fn is_unreadable(fault: &io::Error) -> bool {
    fault.raw_os_error() == Some(CAN_NOT_BE_READ)
}

/// Returns true if the file's content is at fault, and not the disk or its permissions. This
/// includes data that the disk has lost.
fn is_damage(fault: &io::Error) -> bool {
    let of_content =
        matches!(fault.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof);
    of_content || is_unreadable(fault)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn file_in(dir: &TempDir) -> RedbFile {
        RedbFile::new(dir.path(), "test.redb", 1 << 20).with_integrity_check()
    }

    #[test]
    fn a_missing_file_is_created_only_if_asked_for() {
        let dir = TempDir::new().unwrap();
        let file = file_in(&dir);
        assert!(matches!(file.open(Missing::Fail, |_| Ok(())), Err(OpenFault::Disk(_))));
        assert!(!file.path().exists());
        assert!(file.open(Missing::Create, |_| Ok(())).is_ok());
        assert!(file.path().exists());
    }

    #[test]
    fn a_sector_that_can_not_be_read_is_damage_and_a_full_disk_is_not() {
        let fault = |number| OpenFault::from(Error::Io(io::Error::from_raw_os_error(number)));
        assert!(matches!(fault(5), OpenFault::Damaged(_)), "EIO");
        assert!(matches!(fault(28), OpenFault::Disk(_)), "ENOSPC");
        assert!(matches!(fault(30), OpenFault::Disk(_)), "EROFS");
    }

    #[test]
    fn the_advice_about_a_folder_fits_its_fault() {
        let dir = TempDir::new().unwrap();
        let text = |source: io::Error| folder_text(dir.path(), &source);
        let full = text(io::Error::from_raw_os_error(28));
        assert!(full.ends_with("Free space on its disk, or set another `data_dir`"), "{full}");
        let denied = text(io::ErrorKind::PermissionDenied.into());
        assert!(denied.ends_with("Make it writable, or set another `data_dir`"), "{denied}");
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let dangling = dir.path().join("dangling");
        std::os::unix::fs::symlink("nothing", &dangling).unwrap();
        for path in [file.clone(), dangling, file.join("below")] {
            let no_folder = text(fs::create_dir_all(path).unwrap_err());
            assert!(no_folder.contains("not a folder: move it away, or set"), "{no_folder}");
        }
    }

    #[test]
    fn a_file_that_is_open_is_in_use() {
        let dir = TempDir::new().unwrap();
        let file = file_in(&dir);
        let _open = file.open(Missing::Create, |_| Ok(())).unwrap();
        assert!(matches!(file.open(Missing::Fail, |_| Ok(())), Err(OpenFault::InUse)));
    }

    #[test]
    fn a_file_of_other_content_is_damaged_and_can_be_set_aside() {
        let dir = TempDir::new().unwrap();
        let file = file_in(&dir);
        fs::write(file.path(), "no database").unwrap();
        assert!(matches!(file.open(Missing::Create, |_| Ok(())), Err(OpenFault::Damaged(_))));
        let aside = file.set_aside("damaged-7").unwrap();
        assert_eq!(aside, dir.path().join("test.damaged-7"));
        assert_eq!(fs::read(aside).unwrap(), b"no database");
        assert!(file.open(Missing::Create, |_| Ok(())).is_ok());
    }

    #[test]
    fn a_panic_while_the_file_is_read_is_damage_with_its_text() {
        let dir = TempDir::new().unwrap();
        let opened =
            file_in(&dir).open(Missing::Create, |_| -> Result<(), Error> { panic!("odd") });
        let Err(OpenFault::Damaged(damage)) = opened else { panic!("it is no damage") };
        assert!(damage.to_string().contains("odd"), "{damage}");
    }

    #[test]
    fn a_file_cut_to_nothing_or_to_a_part_of_its_head_is_damaged() {
        let dir = TempDir::new().unwrap();
        let file = file_in(&dir);
        assert!(file.open(Missing::Create, |_| Ok(())).is_ok());
        let whole = fs::read(file.path()).unwrap();
        for length in [0, 1, 8, 9, 100, 319, 511, 4_096, whole.len() - 1] {
            fs::write(file.path(), &whole[..length]).unwrap();
            for missing in [Missing::Create, Missing::Fail] {
                let opened = file.open(missing, |_| Ok(()));
                assert!(matches!(opened, Err(OpenFault::Damaged(_))), "cut to {length}");
            }
            assert_eq!(fs::metadata(file.path()).unwrap().len(), length as u64, "it is untouched");
        }
    }

    /// Closing the file would write to pages from which data may be salvaged.
    #[test]
    fn a_file_that_is_found_damaged_stays_as_it_is() {
        let dir = TempDir::new().unwrap();
        let file = file_in(&dir);
        assert!(file.open(Missing::Create, |_| Ok(())).is_ok());
        let mut found = Vec::new();
        let opened = file.open(Missing::Fail, |_| -> Result<(), Error> {
            found = fs::read(file.path())?;
            Err(Error::Corrupted("a row".to_owned()))
        });
        assert!(matches!(opened, Err(OpenFault::Damaged(_))));
        assert!(fs::read(file.path()).unwrap() == found);
    }

    #[test]
    fn of_two_first_openings_one_has_the_file_and_the_others_are_told_so() {
        for round in 0..20 {
            let dir = TempDir::new().unwrap();
            let file = file_in(&dir);
            let start = std::sync::Barrier::new(4);
            let opening = || {
                start.wait();
                file.open(Missing::Create, |_| Ok(()))
            };
            let opened: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(opening)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            for fault in opened.iter().filter_map(|opened| opened.as_ref().err()) {
                assert!(matches!(fault, OpenFault::InUse), "round {round}: {fault}");
            }
            assert_eq!(opened.iter().filter(|opened| opened.is_ok()).count(), 1, "round {round}");
        }
    }

    #[test]
    fn a_creation_that_was_broken_off_is_begun_anew() {
        let dir = TempDir::new().unwrap();
        let file = file_in(&dir);
        let unfinished = file.beside("unfinished");
        assert!(file.open(Missing::Create, |_| Ok(())).is_ok());
        let whole = fs::read(file.path()).unwrap();
        fs::remove_file(file.path()).unwrap();
        for length in [0, 1, 100, 4_096, whole.len()] {
            fs::write(unfinished.path(), &whole[..length]).unwrap();
            assert!(file.open(Missing::Create, |_| Ok(())).is_ok(), "broken off at {length}");
            assert!(!unfinished.path().exists());
            fs::remove_file(file.path()).unwrap();
        }
    }
}
