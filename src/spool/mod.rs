//! The durable queue of writes that wait for a store which does not answer. An append is on disk
//! before it is acknowledged. When to spool and when to replay is not decided here. The same file
//! has the writes that were rejected for good (`dead.rs`), and those that were acknowledged before
//! an outage (`held.rs`).
//!
//! Order of imports: record_v1, usage → record → error → settled → salvage, dead, held → contents →
//! file → opening → mod.

mod contents;
mod dead;
mod error;
mod file;
#[cfg(fuzzing)]
pub mod fuzzing;
mod held;
mod opening;
mod record;
mod record_v1;
mod salvage;
mod settled;
mod usage;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use serde::Deserialize;

use crate::{domain::Timestamp, telemetry};

use self::{contents::FileState, file::SpoolFile, opening::Progress};

pub use dead::DeadLetter;
pub use error::{SpoolError, SpoolOpenError};
pub use file::{Rejection, Settlement, Spooled};
pub use held::{AcknowledgedWrite, HeldOnDisk};
pub use record::SpoolWrite;

/// How many operations are read at once, and how large they are together.
const PAGE_OPERATIONS: usize = 1_000;
const PAGE_BYTES: usize = 1 << 20;

/// The section `spool` of the configuration.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpoolConfig {
    /// Maximum size of all waiting operations, dead letters and held writes. The file on disk is up
    /// to about twice as large.
    pub max_bytes: u64,
}

/// The open spool. Its calls run one after the other, on a thread that may block.
#[derive(Clone, Debug)]
pub struct Spool {
    data_dir: PathBuf,
    max_bytes: u64,
    file: Arc<Mutex<Slot>>,
    /// Size of all waiting operations.
    bytes: Arc<AtomicU64>,
    /// How often the held writes were dropped.
    held_drops: Arc<AtomicU64>,
}

/// The file, and what was last known of it.
#[derive(Debug)]
struct Slot {
    /// Absent after a fault, until it could be opened again.
    file: Option<SpoolFile>,
    state: FileState,
}

impl Spool {
    /// Returns the maximum size of all that the spool holds.
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
        let file = opening::open(data_dir, now)?;
        let mut next = 0;
        let mut progress = Progress::begin();
        loop {
            let page = file
                .waiting(next, PAGE_OPERATIONS, PAGE_BYTES)
                .map_err(|source| SpoolOpenError::Fault { file: data_dir.to_owned(), source })?;
            let Some(last) = page.last() else { break };
            next = last.sequence + 1;
            page.iter().for_each(&mut take);
            progress.add(page.len(), "reading the spool's file");
        }
        let state = file.state();
        Ok(Self {
            data_dir: data_dir.to_owned(),
            max_bytes: config.max_bytes,
            file: Arc::new(Mutex::new(Slot { file: Some(file), state })),
            bytes: Arc::new(AtomicU64::new(state.usage.waiting)),
            held_drops: Arc::default(),
        })
    }

    /// Returns the size of all waiting operations, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns how often all held writes were dropped, because others needed their room.
    pub fn held_drops(&self) -> u64 {
        self.held_drops.load(Ordering::Acquire)
    }

    /// Adds operations at the end, in one commit. They are durable when this returns.
    ///
    /// # Errors
    /// When they do not fit, or the disk fails; none of them is accepted then.
    pub async fn append(&self, writes: Vec<SpoolWrite>) -> Result<(), SpoolError> {
        let max_bytes = self.max_bytes;
        self.with_file(move |file| file.append(&writes, max_bytes)).await
    }

    /// Returns up to `limit` waiting operations from the sequence `first` on, oldest first. Their
    /// records have up to `max_bytes` together, but there is always one if any waits.
    ///
    /// # Errors
    /// When the file fails.
    pub async fn waiting(
        &self,
        first: u64,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<Spooled>, SpoolError> {
        self.with_file(move |file| file.waiting(first, limit, max_bytes)).await
    }

    /// Makes every operation up to `sequence` count as one that may have been sent, should this
    /// process end before it is settled.
    ///
    /// # Errors
    /// When the file fails.
    pub async fn mark_sent(&self, sequence: u64) -> Result<(), SpoolError> {
        self.with_file(move |file| file.mark_sent(sequence)).await
    }

    /// Removes the operations that were applied, and makes the rejected ones, with their reasons,
    /// dead letters. Returns the sequence up to which operations count as sent.
    ///
    /// # Errors
    /// When the file fails; all of them still wait.
    pub async fn settle(&self, settlement: Settlement, now: Timestamp) -> Result<u64, SpoolError> {
        let max_bytes = self.max_bytes;
        self.with_file(move |file| file.settle(&settlement, now, max_bytes)).await
    }

    /// Adds dead letters that have never waited, with their reasons.
    ///
    /// # Errors
    /// When the file fails.
    pub async fn bury(
        &self,
        rejected: Vec<(SpoolWrite, String)>,
        now: Timestamp,
    ) -> Result<(), SpoolError> {
        let max_bytes = self.max_bytes;
        self.with_file(move |file| file.bury(&rejected, now, max_bytes)).await
    }

    /// Returns up to `limit` dead letters from the sequence `first` on, oldest first. Their records
    /// have up to `max_bytes` together, but there is always one if there is any.
    ///
    /// # Errors
    /// When the file fails.
    pub async fn dead_letters(
        &self,
        first: u64,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<DeadLetter>, SpoolError> {
        self.with_file(move |file| file.dead_letters(first, limit, max_bytes)).await
    }

    /// Returns what `summary` makes of each dead letter, oldest first.
    ///
    /// # Errors
    /// When the file fails.
    pub async fn all_dead_letters<T>(
        &self,
        mut summary: impl FnMut(DeadLetter) -> T,
    ) -> Result<Vec<T>, SpoolError> {
        let (mut all, mut next) = (Vec::new(), 0);
        loop {
            let page = self.dead_letters(next, PAGE_OPERATIONS, PAGE_BYTES).await?;
            let Some(last) = page.last() else { return Ok(all) };
            next = last.sequence + 1;
            all.extend(page.into_iter().map(&mut summary));
        }
    }

    /// Returns the sequence of the newest dead letter, if there is any.
    ///
    /// # Errors
    /// When the file fails.
    pub async fn last_dead_letter(&self) -> Result<Option<u64>, SpoolError> {
        self.with_file(|file| file.last_dead_letter()).await
    }

    /// Puts dead letters back at the end of the queue. Returns which of these sequences there were.
    ///
    /// # Errors
    /// When a record is damaged, they do not fit, or the file fails; all stay dead letters.
    pub async fn revive_dead(&self, sequences: Vec<u64>) -> Result<Vec<u64>, SpoolError> {
        let max_bytes = self.max_bytes;
        self.with_file(move |file| file.revive_dead(&sequences, max_bytes)).await
    }

    /// Drops a dead letter. Returns false if there is none of this sequence.
    ///
    /// # Errors
    /// When the file fails.
    pub async fn drop_dead(&self, sequence: u64) -> Result<bool, SpoolError> {
        self.with_file(move |file| file.drop_dead(sequence)).await
    }

    /// Drops the dead letters that are older than 35 days.
    ///
    /// # Errors
    /// When the file fails.
    pub async fn expire_letters(&self, now: Timestamp) -> Result<(), SpoolError> {
        self.with_file(move |file| file.expire_letters(now)).await
    }

    /// Keeps acknowledged writes of a shard, apart from what waits, for this or a later process.
    ///
    /// # Errors
    /// When there is no room for them, or the file fails.
    pub async fn hold(&self, held: HeldOnDisk) -> Result<(), SpoolError> {
        let max_bytes = self.max_bytes;
        self.with_file(move |file| file.hold(&held, max_bytes)).await
    }

    /// Removes the held writes of these shards.
    ///
    /// # Errors
    /// When the file fails.
    pub async fn release(&self, shards: Vec<u16>) -> Result<(), SpoolError> {
        self.with_file(move |file| file.release(&shards)).await
    }

    /// Returns the held writes of all shards.
    ///
    /// # Errors
    /// When the file fails.
    pub async fn held(&self) -> Result<Vec<HeldOnDisk>, SpoolError> {
        self.with_file(|file| file.held()).await
    }

    async fn with_file<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SpoolFile) -> Result<R, SpoolError> + Send + 'static,
    ) -> Result<R, SpoolError> {
        let (slot, data_dir) = (Arc::clone(&self.file), self.data_dir.clone());
        let (waiting_bytes, held_drops) = (Arc::clone(&self.bytes), Arc::clone(&self.held_drops));
        let worked = tokio::task::spawn_blocking(move || {
            let mut slot = slot.lock();
            let mut file = match slot.file.take() {
                Some(open) => open,
                // A redb file that has failed once fails until it is opened again.
                None => SpoolFile::reopen(&data_dir, slot.state)?,
            };
            let before = file.state();
            let result = work(&mut file);
            slot.state = file.state();
            waiting_bytes.store(slot.state.usage.waiting, Ordering::Relaxed);
            let dropped = slot.state.usage.dropped_held - before.usage.dropped_held;
            held_drops.fetch_add(dropped, Ordering::Release);
            report_dropped(before, slot.state);
            if !matches!(result, Err(SpoolError::Failed(_))) {
                slot.file = Some(file);
            }
            result
        });
        worked.await.unwrap_or_else(|error| Err(SpoolError::Failed(error.to_string())))
    }
}

/// Reports what had to go because `spool.max_bytes` has no room for it.
fn report_dropped(before: FileState, after: FileState) {
    let letters = after.usage.dropped_letters - before.usage.dropped_letters;
    if letters > 0 {
        telemetry::dead_letters_dropped(letters);
        tracing::error!(
            letters,
            "{letters} dead letters were dropped, the oldest first: there are too many of them, or \
             they need more than spool.max_bytes"
        );
    }
    if after.usage.dropped_held > before.usage.dropped_held {
        tracing::warn!(
            "spool.max_bytes has no room for the writes that were acknowledged before the outage: \
             if this process ends before Redis answers, they are not sent again"
        );
    }
}
