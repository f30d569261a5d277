//! The durable queue of writes that wait for a store which does not answer. An append is on disk
//! before it is acknowledged. When to spool and when to replay is not decided here.

mod error;
mod file;
#[cfg(fuzzing)]
pub mod fuzzing;
mod record;
mod record_v1;

use std::{
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

pub use error::{SpoolError, SpoolOpenError};
pub use file::{DeadLetter, Spooled};

/// How many operations are read at once when the spool is opened.
const PAGE_OPERATIONS: usize = 1_000;

/// The section `spool` of the configuration.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpoolConfig {
    /// Maximum size of all waiting operations. The file on disk is up to about twice as large.
    pub max_bytes: u64,
}

/// The open spool. Its calls run one after the other, on a thread that may block.
#[derive(Clone, Debug)]
pub struct Spool {
    data_dir: PathBuf,
    max_bytes: u64,
    /// Absent after a fault, until it could be opened again.
    file: Arc<Mutex<Option<SpoolFile>>>,
    /// Size of all waiting operations.
    bytes: Arc<AtomicU64>,
}

impl Spool {
    /// Returns the maximum size of all waiting operations.
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Opens the spool in `data_dir`, which is created if it is missing, and passes each waiting
    /// operation to `take`, oldest first. Blocks. A damaged file is set aside, and what can be read
    /// of it is kept.
    ///
    /// # Errors
    /// When the folder can't be written, another process has the file, or a newer version of this
    /// program wrote it.
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

    /// Returns the size of all waiting operations, in bytes.
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

    /// Returns up to `limit` waiting operations from the sequence `first` on, oldest first.
    ///
    /// # Errors
    /// When the file fails.
    pub async fn waiting(&self, first: u64, limit: usize) -> Result<Vec<Spooled>, SpoolError> {
        self.with_file(move |file| file.waiting(first, limit)).await
    }

    /// Removes the operations that were applied, and makes the rejected ones, with their reasons,
    /// dead letters.
    ///
    /// # Errors
    /// When the file fails; all of them still wait.
    pub async fn settle(
        &self,
        applied: Vec<u64>,
        rejected: Vec<(u64, String)>,
    ) -> Result<(), SpoolError> {
        let bytes = Arc::clone(&self.bytes);
        self.with_file(move |file| {
            let removed = file.settle(&applied, &rejected)?;
            bytes.fetch_sub(removed, Ordering::Relaxed);
            Ok(())
        })
        .await
    }

    /// Returns all dead letters, oldest first.
    ///
    /// # Errors
    /// When the file fails.
    pub async fn dead_letters(&self) -> Result<Vec<DeadLetter>, SpoolError> {
        self.with_file(|file| file.dead_letters()).await
    }

    /// Puts a dead letter back at the end of the queue. Returns false if there is none of this
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

    /// Drops a dead letter. Returns false if there is none of this sequence.
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
            let mut file = file.lock();
            let open = match file.take() {
                Some(open) => open,
                // A redb file that has failed once fails until it is opened again.
                None => SpoolFile::reopen(&data_dir)?,
            };
            let open = file.insert(open);
            let result = work(open);
            if matches!(result, Err(SpoolError::Failed(_))) {
                *file = None;
            }
            result
        });
        worked.await.unwrap_or_else(|error| Err(SpoolError::Failed(error.to_string())))
    }
}
