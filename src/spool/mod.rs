//! The durable queue of writes that wait for a store which does not answer. An append is on disk
//! before it is answered. Relies on `domain` for what is kept; decides nothing about when to spool or
//! to replay.

mod file;
#[cfg(fuzzing)]
pub mod fuzzing;
mod record;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use serde::Deserialize;

use crate::domain::{Operation, Timestamp};

use self::file::SpoolFile;

/// What is read at once when the spool is opened.
const PAGE_OPERATIONS: usize = 1_000;

/// The section `spool` of the configuration.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpoolConfig {
    /// How many bytes of operations may wait. The file on disk is up to about twice as large.
    pub max_bytes: u64,
}

/// The open spool. Its calls work on a thread where blocking is fine, one after the other.
#[derive(Clone, Debug)]
pub struct Spool {
    data_dir: PathBuf,
    max_bytes: u64,
    /// Absent after a fault, until it could be opened anew.
    file: Arc<Mutex<Option<SpoolFile>>>,
    /// How many bytes wait.
    bytes: Arc<AtomicU64>,
}

impl Spool {
    /// How many bytes may wait.
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Opens the spool in `data_dir`, which is made when it is missing, and hands over what waits
    /// in it, oldest first. Blocks. A damaged file is set aside, and what can be read of it kept.
    ///
    /// # Errors
    /// When the folder can't be written, or another process has the file.
    pub fn open(
        data_dir: &Path,
        config: SpoolConfig,
        now: Timestamp,
        mut take: impl FnMut(&Spooled),
    ) -> Result<Self, SpoolOpenError> {
        let file = SpoolFile::open(data_dir, now)?;
        let mut bytes = 0;
        let mut next = 0;
        loop {
            let page = file
                .waiting(next, PAGE_OPERATIONS)
                .map_err(|source| SpoolOpenError::Fault { file: data_dir.to_owned(), source })?;
            let Some(last) = page.last() else { break };
            next = last.sequence + 1;
            for spooled in &page {
                bytes += spooled.bytes as u64;
                take(spooled);
            }
        }
        Ok(Self {
            data_dir: data_dir.to_owned(),
            max_bytes: config.max_bytes,
            file: Arc::new(Mutex::new(Some(file))),
            bytes: Arc::new(AtomicU64::new(bytes)),
        })
    }

    /// How many bytes wait.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Adds operations at the end, in one commit. They are durable when this returns.
    ///
    /// # Errors
    /// When they do not fit, or the disk fails; none of them is accepted then.
    pub async fn append(&self, operations: Vec<Operation>) -> Result<(), SpoolError> {
        let (max_bytes, bytes) = (self.max_bytes, Arc::clone(&self.bytes));
        self.with_file(move |file| {
            let room = max_bytes.saturating_sub(bytes.load(Ordering::Relaxed));
            bytes.fetch_add(file.append(&operations, room)?, Ordering::Relaxed);
            Ok(())
        })
        .await
    }

    /// Up to `limit` waiting operations from the sequence `first` on, oldest first.
    ///
    /// # Errors
    /// When the file fails.
    pub async fn waiting(&self, first: u64, limit: usize) -> Result<Vec<Spooled>, SpoolError> {
        self.with_file(move |file| file.waiting(first, limit)).await
    }

    /// Removes what has been carried out, and makes what was refused, with its reason, dead letters.
    ///
    /// # Errors
    /// When the file fails; all of them wait still.
    pub async fn settle(
        &self,
        done: Vec<u64>,
        refused: Vec<(u64, String)>,
    ) -> Result<(), SpoolError> {
        let bytes = Arc::clone(&self.bytes);
        self.with_file(move |file| {
            let removed = file.settle(&done, &refused)?;
            bytes.fetch_sub(removed, Ordering::Relaxed);
            Ok(())
        })
        .await
    }

    /// All dead letters, oldest first.
    ///
    /// # Errors
    /// When the file fails.
    pub async fn dead_letters(&self) -> Result<Vec<DeadLetter>, SpoolError> {
        self.with_file(|file| file.dead_letters()).await
    }

    /// Puts a dead letter back at the end of what waits, and says whether there was one of this
    /// sequence.
    ///
    /// # Errors
    /// When its record is damaged, or the file fails.
    pub async fn revive_dead(&self, sequence: u64) -> Result<bool, SpoolError> {
        let bytes = Arc::clone(&self.bytes);
        self.with_file(move |file| {
            let revived = file.revive_dead(sequence)?;
            bytes.fetch_add(revived.unwrap_or_default(), Ordering::Relaxed);
            Ok(revived.is_some())
        })
        .await
    }

    /// Drops a dead letter, and says whether there was one of this sequence.
    ///
    /// # Errors
    /// When the file fails.
    pub async fn drop_dead(&self, sequence: u64) -> Result<bool, SpoolError> {
        self.with_file(move |file| file.drop_dead(sequence)).await
    }

    async fn with_file<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SpoolFile) -> Result<R, SpoolError> + Send + 'static,
    ) -> Result<R, SpoolError> {
        let (file, data_dir) = (Arc::clone(&self.file), self.data_dir.clone());
        let worked = tokio::task::spawn_blocking(move || {
            let mut place = file.lock();
            let open = match place.take() {
                Some(open) => open,
                // A redb file that has failed once fails until it is opened anew.
                None => SpoolFile::reopen(&data_dir)?,
            };
            let open = place.insert(open);
            let result = work(open);
            if matches!(result, Err(SpoolError::Failed(_))) {
                *place = None;
            }
            result
        });
        worked.await.unwrap_or_else(|cut_off| Err(SpoolError::Failed(cut_off.to_string())))
    }
}

/// An operation that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spooled {
    /// Its place in the order; later ones are larger.
    pub sequence: u64,
    /// How large its record is.
    pub bytes: usize,
    /// What waits.
    pub operation: Operation,
}

/// An operation that the store has refused for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The place that it had in the order.
    pub sequence: u64,
    /// Why it was refused.
    pub reason: String,
    /// What it was; absent where its record is damaged.
    pub operation: Option<Operation>,
}

/// Why the spool could not do as asked. Nothing was accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpoolError {
    /// As much waits as may.
    #[error("the spool is full")]
    Full,
    /// The disk is full, or the file has failed.
    #[error("the spool's file has failed: {0}")]
    Failed(String),
}

/// Why the spool could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SpoolOpenError {
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
    /// A damaged file can't be set aside.
    #[error("{} is damaged and can't be set aside: {source}. Move it away by hand", file.display())]
    SetAside {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A new file can't be used either.
    #[error("{}: {source}. Is the disk full?", file.display())]
    Fault {
        /// The file.
        file: PathBuf,
        /// What went wrong.
        source: SpoolError,
    },
}

/// Faults of the file, whichever part of redb tells of them.
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
    redb::DatabaseError,
    postcard::Error,
    record::Damage,
);
