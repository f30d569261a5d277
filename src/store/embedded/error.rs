//! The faults of the embedded store's file.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::redb_file::{OpenFault, folder_text, in_use_text};

/// Why the store's file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder can't be created or used.
    #[error("{}", folder_text(dir, source))]
    DataDir {
        /// The configured folder.
        dir: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("{}", in_use_text(file))]
    InUse {
        /// The file.
        file: PathBuf,
    },
    /// It holds tables of a format that is not read any more, or not the store's at all.
    #[error(
        "{} is of a format that this version can't read (its tables: {}). If a version before \
         commit 8c08e13 wrote it, start that commit on it once, which converts it; or move it away \
         to start empty",
        file.display(),
        tables.join(", ")
    )]
    UnknownFormat {
        /// The file.
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
        /// The file.
        file: PathBuf,
        /// The version of the first such row.
        found: u8,
        /// The newest version that is read.
        known: u8,
    },
    /// It is damaged, or the disk fails.
    #[error(
        "{}: {source}. Restore it from a backup, or move it away to start empty",
        file.display()
    )]
    Unreadable {
        /// The file.
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
            source => Self::Unreadable { file, source },
        }
    }

    pub(super) fn of_opening(data_dir: &Path, file: &Path, fault: OpenFault) -> Self {
        match fault {
            OpenFault::InUse => Self::InUse { file: file.to_owned() },
            OpenFault::Disk(source) => Self::DataDir { dir: data_dir.to_owned(), source },
            OpenFault::Damaged(source) => Self::of_file(file, source.into()),
        }
    }
}

/// A fault of the open file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// redb reports it.
    #[error(transparent)]
    Database(#[from] redb::Error),
    /// A row can't be decoded.
    #[error("a row can't be read: {0}")]
    Row(#[from] postcard::Error),
    /// A row has no version, or one that no version of this program has written.
    #[error("a row can't be read: it does not begin with a version")]
    NoVersion,
    /// A row is of a version that this program does not know.
    #[error("a row is of version {found}, written by a newer version of this program")]
    NewerVersion {
        /// The row's version.
        found: u8,
        /// The newest version that is read.
        known: u8,
    },
    /// The tables are not those of this format, nor of one that can be converted.
    #[error("the file's format is unknown; its tables: {}", tables.join(", "))]
    UnknownFormat {
        /// The names of the tables.
        tables: Vec<String>,
    },
    /// It lacks what this process has written.
    #[error("the file is not the one that was open before, or an older copy of it")]
    Older,
}
