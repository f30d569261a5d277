//! Opens the redb files of the spool and the embedded store, verifies them, and sets a damaged one
//! aside. Tells apart what callers treat differently: a file that another process has open, a
//! fault of the disk or its permissions, and damage. What to do about it is the caller's decision.

use std::{
    fs::{self, File},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use redb::{Database, Error, TableHandle as _, WriteTransaction};

/// The treatment of a file that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Create,
    /// For a file that was open before: a disk that is gone is no reason to begin empty.
    Fail,
}

/// A redb file by its path, with the settings that it is opened with.
#[derive(Clone, Debug)]
pub(crate) struct RedbFile {
    path: PathBuf,
    page_cache_bytes: usize,
    checks_integrity: bool,
}

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenFault {
    #[error("another process has the file open")]
    InUse,
    /// The disk fails, is full, or does not permit it.
    #[error(transparent)]
    Disk(io::Error),
    /// The file holds what redb or the caller can't read.
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
    /// The file `name` in `data_dir`. Its integrity is not checked unless that is asked for.
    pub(crate) fn new(data_dir: &Path, name: &str, page_cache_bytes: usize) -> Self {
        Self { path: data_dir.join(name), page_cache_bytes, checks_integrity: false }
    }

    /// The same, with the checksums of all pages verified when it is opened.
    pub(crate) fn with_integrity_check(self) -> Self {
        Self { checks_integrity: true, ..self }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file and applies `prepare` to it. redb may panic on a file that was altered
    /// outside of it; in either step that is damage.
    pub(crate) fn open<T>(
        &self,
        missing: Missing,
        prepare: impl FnOnce(&Database) -> Result<T, Error>,
    ) -> Result<(Database, T), OpenFault> {
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let mut builder = Database::builder();
            builder.set_cache_size(self.page_cache_bytes);
            builder.set_check_integrity_on_open(self.checks_integrity);
            let database = match missing {
                Missing::Create => builder.create(&self.path),
                Missing::Fail => builder.open(&self.path),
            }?;
            // redb syncs the file, but not the folder's entry for it.
            sync_folder(&self.path)?;
            let prepared = prepare(&database)?;
            Ok((database, prepared))
        }));
        let panicked = |_| Err(Error::Corrupted("redb panicked".to_owned()));
        opened.unwrap_or_else(panicked).map_err(OpenFault::from)
    }

    /// Renames the file to one with `suffix` in place of its extension. Returns the new path.
    pub(crate) fn set_aside(&self, suffix: &str) -> io::Result<PathBuf> {
        let aside = self.path.with_extension(suffix);
        fs::rename(&self.path, &aside)?;
        sync_folder(&self.path)?;
        Ok(aside)
    }
}

/// The names of all tables, sorted.
pub(crate) fn table_names(transaction: &WriteTransaction) -> Result<Vec<String>, Error> {
    let mut names: Vec<_> =
        transaction.list_tables()?.map(|table| table.name().to_owned()).collect();
    names.sort_unstable();
    Ok(names)
}

fn sync_folder(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Returns true if the file's content is at fault, and not the disk or its permissions.
fn is_damage(fault: &io::Error) -> bool {
    matches!(fault.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
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
    fn a_panic_while_the_file_is_read_is_damage() {
        let dir = TempDir::new().unwrap();
        let opened = file_in(&dir).open(Missing::Create, |_| -> Result<(), Error> { panic!() });
        assert!(matches!(opened, Err(OpenFault::Damaged(Error::Corrupted(_)))));
    }
}
