//! The durable queue of writes that wait for a store which does not answer. An append is on disk
//! before it is acknowledged. When to spool and when to replay is not decided here. The same file
//! has the writes that were rejected for good (`dead.rs`), and those that were acknowledged before
//! an outage (`held.rs`). One thread works on it (`worker.rs`), for which nobody waits when the
//! disk hangs; `condition.rs` knows whether writes can wait.
//!
//! Order of imports: record_v3 → record_v1, usage, condition, settlement → record → error → settled
//! → salvage, dead, held → contents → file → opening, worker → mod.

mod condition;
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
mod record_v3;
mod salvage;
mod settled;
mod settlement;
mod usage;
mod worker;

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::Deserialize;

use crate::{
    domain::Timestamp,
    redb_file::{DiskThread, JobError, Late, OpenedFile},
};

use self::{condition::Condition, file::SpoolFile, opening::Progress, worker::Worker};

pub use dead::DeadLetter;
pub use error::{SpoolError, SpoolOpenError};
pub use file::FILE_NAME as SPOOL_FILE_NAME;
pub use held::{AcknowledgedWrite, HeldOnDisk};
pub use record::SpoolWrite;
pub use settlement::{Rejection, Settlement, Spooled};

/// Maximum number of operations that are read at once, and their size together.
const PAGE_OPERATIONS: usize = 1_000;
const PAGE_BYTES: usize = 1 << 20;

/// Interval of finding out whether a spool that nothing is written to could be.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The section `spool` of the configuration.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpoolConfig {
    /// Maximum size of all waiting operations, dead letters and held writes. The file on disk is up
    /// to about twice as large.
    pub max_bytes: u64,
}

/// The open spool. Its calls run one after the other, on a thread of its own. Each of them waits
/// for the disk up to the write timeout.
#[derive(Clone, Debug)]
pub struct Spool {
    max_bytes: u64,
    write_timeout: Duration,
    disk: Arc<DiskThread<Worker>>,
    opened: OpenedFile,
    condition: Arc<Condition>,
    checked_at: Arc<Mutex<Instant>>,
}

/// Why a call has no result, or none yet.
#[derive(Debug)]
pub enum CallError<R> {
    /// It has failed.
    Failed(SpoolError),
    /// The disk has not answered in time.
    Late(LateResult<R>),
}

/// The result of a call whose disk has not answered in time.
#[derive(Debug)]
pub struct LateResult<R> {
    result: Late<Result<R, SpoolError>>,
    /// Why it is late.
    text: String,
}

impl<R> LateResult<R> {
    /// Waits for the result, as long as it takes.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn result(self) -> Result<R, SpoolError> {
        self.result.result().await.unwrap_or_else(|| Err(aborted()))
    }

    /// Returns the result if it is there.
    pub fn try_result(&mut self) -> Option<Result<R, SpoolError>> {
        self.result.try_result().map(|result| result.unwrap_or_else(|| Err(aborted())))
    }

    /// Returns the error of a call whose result is not there.
    pub fn error(&self) -> SpoolError {
        SpoolError::Unconfirmed(self.text.clone())
    }
}

/// The error where the result does not matter once it is late.
impl<R> From<CallError<R>> for SpoolError {
    fn from(error: CallError<R>) -> Self {
        match error {
            CallError::Failed(error) => error,
            CallError::Late(late) => late.error(),
        }
    }
}

fn aborted() -> SpoolError {
    SpoolError::Unconfirmed("a job on the spool's file was aborted".to_owned())
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
        write_timeout: Duration,
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
        let opened = file.opened().clone();
        let condition = Arc::<Condition>::default();
        let worker = Worker::new(data_dir.to_owned(), file, Arc::clone(&condition));
        Ok(Self {
            max_bytes: config.max_bytes,
            write_timeout,
            disk: Arc::new(DiskThread::start(worker, write_timeout)),
            opened,
            condition,
            checked_at: Arc::new(Mutex::new(Instant::now())),
        })
    }

    /// Returns whether writes can wait in it, as far as that is known. Waits for nothing.
    pub fn is_usable(&self) -> bool {
        self.condition.is_usable() && !self.disk.is_stalled()
    }

    /// Finds out now and then whether writes could wait in it. To be called about once a second.
    pub fn maintain(&self) {
        if self.disk.is_stalled() {
            self.note_stall();
            return;
        }
        let mut checked_at = self.checked_at.lock();
        if !self.condition.is_usable() || checked_at.elapsed() >= CHECK_INTERVAL {
            *checked_at = Instant::now();
            self.disk.request(Worker::check);
        }
    }

    /// Closes the file after the calls that wait, unless its disk does not answer.
    pub async fn close(&self) {
        if !self.disk.close().await {
            let file = self.opened.path().display();
            tracing::warn!(%file, "the disk does not respond; the spool's file is not closed");
        }
    }

    /// Returns the size of all waiting operations, in bytes.
    pub fn bytes(&self) -> u64 {
        self.condition.waiting_bytes.load(Ordering::Relaxed)
    }

    /// Returns how often all held writes were dropped, because others needed their room.
    pub fn held_drops(&self) -> u64 {
        self.condition.held_drops.load(Ordering::Acquire)
    }

    /// Adds operations at the end, in one commit. They are durable when this returns.
    ///
    /// # Errors
    /// When they do not fit, or the disk fails.
    pub async fn append(&self, writes: Vec<SpoolWrite>) -> Result<(), CallError<()>> {
        let max_bytes = self.max_bytes;
        self.call(move |worker| worker.append(&writes, max_bytes)).await
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
    /// When the file fails; all of them still wait, unless it is not confirmed.
    pub async fn settle(
        &self,
        settlement: Settlement,
        now: Timestamp,
    ) -> Result<u64, CallError<u64>> {
        let max_bytes = self.max_bytes;
        self.call(move |worker| worker.on_file(|file| file.settle(&settlement, now, max_bytes)))
            .await
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
    pub async fn revive_dead(&self, sequences: Vec<u64>) -> Result<Vec<u64>, CallError<Vec<u64>>> {
        let max_bytes = self.max_bytes;
        self.call(move |worker| {
            worker.verify()?;
            worker.on_file(|file| file.revive_dead(&sequences, max_bytes))
        })
        .await
    }

    /// Returns which of these sequences are dead letters: those that were not put back where that
    /// was not confirmed.
    ///
    /// # Errors
    /// When the file fails.
    pub async fn still_dead(&self, sequences: Vec<u64>) -> Result<Vec<u64>, SpoolError> {
        self.with_file(move |file| file.still_dead(&sequences)).await
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

    /// Does `work` on the file, wherever it is.
    async fn with_file<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SpoolFile) -> Result<R, SpoolError> + Send + 'static,
    ) -> Result<R, SpoolError> {
        Ok(self.call(move |worker| worker.on_file(work)).await?)
    }

    async fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Worker) -> Result<R, SpoolError> + Send + 'static,
    ) -> Result<R, CallError<R>> {
        match self.disk.run(job).await {
            Ok(result) => result.map_err(CallError::Failed),
            Err(JobError::Withdrawn) => {
                self.note_stall();
                Err(CallError::Failed(SpoolError::Unusable(self.unanswered())))
            }
            Err(JobError::Unanswered(result)) => {
                self.note_stall();
                Err(CallError::Late(LateResult { result, text: self.unanswered() }))
            }
            Err(JobError::Aborted) => Err(CallError::Failed(aborted())),
        }
    }

    fn note_stall(&self) {
        self.condition.fail(&self.unanswered());
    }

    fn unanswered(&self) -> String {
        self.opened.unanswered(self.write_timeout)
    }
}
