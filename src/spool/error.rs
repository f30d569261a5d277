//! The faults of the spool: of an open one, and those that keep it from being opened.

use std::{io, path::PathBuf};

use super::record::{RecordError, VERSION};
use crate::redb_file::{folder_text, in_use_text};

/// Why the spool could not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpoolError {
    /// The waiting operations take as many bytes as they may. Nothing was accepted.
    #[error("the spool is full")]
    Full,
    /// The file is not at its path, or its disk does not answer. Nothing was accepted. Clients see
    /// the text.
    #[error("{0}")]
    Unusable(String),
    /// The disk has failed or not answered in the course of a commit, which may be durable. Clients
    /// see the text.
    #[error("{0}")]
    Unconfirmed(String),
    /// The disk is full, or the file has failed. Nothing was accepted.
    #[error("the spool's file has failed: {0}")]
    Failed(String),
}

impl SpoolError {
    /// The same error of a commit that may be durable all the same.
    pub(super) fn unconfirmed(self) -> Self {
        Self::Unconfirmed(self.to_string())
    }
}

/// Why the file can't be opened again.
#[derive(Debug)]
pub(super) struct ReopenFault {
    pub(super) error: SpoolError,
    /// True if another attempt by this process is of no use.
    pub(super) is_lasting: bool,
}

impl From<SpoolError> for ReopenFault {
    fn from(error: SpoolError) -> Self {
        Self { error, is_lasting: false }
    }
}

/// Why the spool could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SpoolOpenError {
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
    /// It holds records that this version can't read, although they are intact.
    #[error(
        "{} was written by a newer version: it holds records of version {found}, and this one \
         reads up to version {VERSION}. Run that version, or move the file away to start without \
         the writes in it",
        file.display()
    )]
    NewerVersion {
        /// The file.
        file: PathBuf,
        /// The version of the first such record.
        found: u8,
    },
    /// What can be read of a damaged file can't be written to a new one.
    #[error(
        "{} is damaged, and its readable records can't be copied to a new file beside it: \
         {reason}. Nothing is lost: the file is unchanged. Free about {} MB on its disk and start \
         again; or move the file away to start without the writes in it",
        file.display(),
        bytes.div_ceil(1_000_000)
    )]
    Salvage {
        /// The damaged file.
        file: PathBuf,
        /// Why it fails.
        reason: String,
        /// The size of the damaged file.
        bytes: u64,
    },
    /// A new file can't be used either.
    #[error("{}: {source}. Is the disk full?", file.display())]
    Fault {
        /// The file.
        file: PathBuf,
        /// The file's error.
        source: SpoolError,
    },
}

/// Faults of the file, whichever part of redb reports them.
macro_rules! failed {
    ($($fault:ty),+ $(,)?) => {
        $(impl From<$fault> for SpoolError {
            fn from(fault: $fault) -> Self {
                Self::Failed(fault.to_string())
            }
        })+
    };
}

failed!(
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    postcard::Error,
    RecordError,
);
