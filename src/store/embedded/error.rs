//! The errors of the embedded store's file.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::redb_file::{OpenFault, folder_text, in_use_text};

/// The reason why the store's file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder can't be created or used.
    #[error("{}", folder_text(dir, source))]
    DataDir {
        /// The configured folder.
        dir: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("{}", in_use_text(file))]
    InUse {
        /// The path of the file.
        file: PathBuf,
    },
    /// It holds tables of a format that is no longer read, or tables of another program.
    #[error(
        "{} has a format that this version can't read (its tables: {}). If a version before commit \
         8c08e13 wrote it, start that commit on it once, which converts it; or move it away to \
         start empty",
        file.display(),
        tables.join(", ")
    )]
    UnknownFormat {
        /// The path of the file.
        file: PathBuf,
        /// The names of its tables.
        tables: Vec<String>,
    },
    /// It holds rows that this version can't read, although they are intact.
    #[error(
        "{} was written by a newer version: it holds rows of version {found}, and this one reads \
         up to version {known}. Run that version, or restore a backup from before it, or move \
         the file away to start empty",
        file.display()
    )]
    NewerVersion {
        /// The path of the file.
        file: PathBuf,
        /// The version of the first such row.
        found: u8,
        /// The newest version that is read.
        known: u8,
    },
    /// There is no file to recover.
    #[error(
        "the file {} does not exist, so there is nothing to recover. Check `data_dir`",
        file.display()
    )]
    Missing {
        /// The path of the file.
        file: PathBuf,
    },
    /// It is damaged, and no row with a checksum of its own is intact.
    #[error(
        "{} can't be recovered ({source}): nothing in it is readable. It is unchanged. Restore it \
         from a backup, or move it away to start empty",
        file.display()
    )]
    NothingFound {
        /// The path of the file.
        file: PathBuf,
        /// The error that shows the damage.
        source: FileError,
    },
    /// Its content is damaged.
    #[error(
        "{} can't be used: {source}. Restore it from a backup; or run `anomaly-counter recover`, \
         which renames it and copies every readable row to a new file; or move it away to start \
         empty",
        file.display()
    )]
    Unreadable {
        /// The path of the file.
        file: PathBuf,
        /// The error of redb or of the decoder.
        source: FileError,
    },
}

impl OpenError {
    pub(super) fn of_file(file: &Path, source: FileError) -> Self {
        let file = file.to_owned();
        match source {
            FileError::NewerVersion { found, known } => Self::NewerVersion { file, found, known },
            FileError::UnknownFormat { tables } => Self::UnknownFormat { file, tables },
            FileError::Database(fault) => match fault.into() {
                OpenFault::InUse => Self::InUse { file },
                OpenFault::Disk(source) => {
                    let dir = file.parent().unwrap_or(&file).to_owned();
                    Self::DataDir { dir, source }
                }
                OpenFault::Damaged(fault) => Self::Unreadable { file, source: fault.into() },
            },
            source => Self::Unreadable { file, source },
        }
    }

    /// Returns true if this process can't open the file again, because it has not closed it.
    pub(super) fn is_corrupted(&self) -> bool {
        matches!(
            self,
            Self::Unreadable { source: FileError::Database(redb::Error::Corrupted(_)), .. }
        )
    }

    pub(super) fn of_opening(data_dir: &Path, file: &Path, fault: OpenFault) -> Self {
        match fault {
            OpenFault::InUse => Self::InUse { file: file.to_owned() },
            OpenFault::Disk(source) => Self::DataDir { dir: data_dir.to_owned(), source },
            OpenFault::Damaged(source) => {
                Self::Unreadable { file: file.to_owned(), source: source.into() }
            }
        }
    }
}

/// The reason why a row can't be read.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// Its frame is incomplete.
    #[error("it is too short, or not a row")]
    Torn,
    /// Its content has changed since it was written.
    #[error("its checksum does not match")]
    Checksum,
    /// It is intact, but belongs to another key or table.
    #[error("it belongs to another key")]
    Misplaced,
    /// Its value can't be decoded.
    #[error("it can't be decoded: {0}")]
    Content(#[from] postcard::Error),
    /// It is intact, but its version is not known to this program.
    #[error("it is of version {found}, written by a newer version of this program")]
    Newer {
        /// The row's version.
        found: u8,
        /// The newest version that is read.
        known: u8,
    },
}

/// Why the file with the newest rows of the journal can't be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalFault {
    /// It is not there, though redb's file was not closed.
    #[error("is missing")]
    Missing,
    /// It has another length, or no beginning.
    #[error("is cut short or overwritten")]
    Torn,
    /// It has another id than redb's file says.
    #[error("belongs to another file")]
    Foreign,
    /// It has later rows than this one, and not this one.
    #[error("lacks batch {missing}, and has later ones")]
    Gap {
        /// The first sequence that is not there.
        missing: u64,
    },
    /// Rows of anomalies are of a later sequence than its last one.
    #[error("lacks what was written last")]
    Behind,
}

/// A fault of the open file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// redb reports an error.
    #[error(transparent)]
    Database(#[from] redb::Error),
    /// redb has panicked, as it does on damaged pages.
    #[error("redb failed on it, which means that it is damaged")]
    Panicked,
    /// Its last commit can't be read, although it was acknowledged.
    #[error("its last commit is damaged")]
    LastCommit,
    /// It has no content, which never happens to a file of this program.
    #[error("it is empty")]
    Empty,
    /// A row can't be read.
    #[error("a row is damaged: {0}")]
    Row(RowError),
    /// The version of a row is not known to this program.
    #[error("a row is of version {found}, written by a newer version of this program")]
    NewerVersion {
        /// The row's version.
        found: u8,
        /// The newest version that is read.
        known: u8,
    },
    /// The tables belong neither to this format nor to one that can be converted.
    #[error("the file's format is unknown; its tables: {}", tables.join(", "))]
    UnknownFormat {
        /// The names of the tables.
        tables: Vec<String>,
    },
    /// The file with the newest rows of its journal can't be used.
    #[error("its journal, anomalies.journal beside it, {0}")]
    Journal(#[from] JournalFault),
    /// It lacks data that this process has written.
    #[error("the file is not the one that was open before, or is an older copy of it")]
    Older,
}

impl From<RowError> for FileError {
    fn from(fault: RowError) -> Self {
        match fault {
            RowError::Newer { found, known } => Self::NewerVersion { found, known },
            fault => Self::Row(fault),
        }
    }
}
