//! The only thread that changes anything: it applies a batch to the state, writes it to the journal
//! in one commit, and only then answers. After a fault of the file it opens it again and reads the
//! state from it, because it is not known what the failed commit has left behind.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    checkpoint::{Checkpoint, CheckpointLimits},
    error::{FileError, OpenError},
    file::StoreFile,
    journal::{Change, JournalRow},
    loading::Loading,
    state::{SharedState, State},
};
use crate::{
    domain::{AnomalyKey, AuditEntry, Timestamp},
    store::{Cause, StoreError},
};

/// Maximum number of anomalies that one call of house-keeping looks at.
const SWEEP_ANOMALIES: usize = 10_000;
/// Maximum number of them that it removes from the file: each is on a page of its own, and a batch
/// waits meanwhile.
const SWEEP_REMOVALS: usize = 500;
/// Minimum time between two attempts to open a file that has failed.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

type Job = Box<dyn FnOnce(&mut Writer) + Send>;

/// The state of the thread.
pub(super) struct Writer {
    data_dir: PathBuf,
    /// Absent after a fault, until it could be opened again.
    file: Option<StoreFile>,
    reopen_tried_at: Instant,
    /// The newest sequence before the fault.
    last_sequence: u64,
    state: Arc<SharedState>,
    checkpoint: Checkpoint,
    swept_to: Option<AnomalyKey>,
}

impl Writer {
    pub(super) fn open(
        data_dir: &Path,
        limits: CheckpointLimits,
        state: Arc<SharedState>,
    ) -> Result<Self, OpenError> {
        let mut writer = Self {
            data_dir: data_dir.to_owned(),
            file: None,
            reopen_tried_at: Instant::now(),
            last_sequence: 0,
            state,
            checkpoint: Checkpoint::new(limits),
            swept_to: None,
        };
        writer.load(StoreFile::open(data_dir)?)?;
        Ok(writer)
    }

    /// Starts the thread. It ends when the handle is closed or dropped.
    pub(super) fn start(mut self) -> Handle {
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = thread::spawn(move || {
            let ended = catch_unwind(AssertUnwindSafe(|| {
                while let Ok(job) = self.next_job(&queue) {
                    if let Some(job) = job {
                        job(&mut self);
                    }
                    self.step_checkpoint();
                }
            }));
            if ended.is_err() {
                // The state in memory is not reliable, and no write can succeed any more. A new
                // process reads the file, which holds everything that was acknowledged.
                tracing::error!("the embedded store's writer has panicked; the process ends");
                process::exit(1);
            }
        });
        Handle { jobs: Mutex::new(Some(jobs)), thread: Mutex::new(Some(thread)) }
    }

    /// Waits for a job, unless a checkpoint can use the time.
    fn next_job(&self, queue: &mpsc::Receiver<Job>) -> Result<Option<Job>, mpsc::RecvError> {
        if !self.checkpoint.has_work() {
            return queue.recv().map(Some);
        }
        match queue.try_recv() {
            Ok(job) => Ok(Some(job)),
            Err(mpsc::TryRecvError::Empty) => Ok(None),
            Err(mpsc::TryRecvError::Disconnected) => Err(mpsc::RecvError),
        }
    }

    /// Replaces the state by that of the file.
    fn load(&mut self, file: StoreFile) -> Result<(), OpenError> {
        let unreadable = |fault| StoreFile::unreadable(&self.data_dir, fault);
        let mut loading = Loading::into(self.state.read().emptied());
        let mut checkpoint = Checkpoint::new(self.checkpoint.limits());

        file.read_anomalies(|key, row| loading.anomaly(key, row)).map_err(unreadable)?;
        file.read_journal(|sequence, bytes, row| {
            loading.journal(sequence, &row);
            checkpoint.journalled(row.changes.iter().map(Change::key), bytes);
        })
        .map_err(unreadable)?;

        *self.state.write() = loading.finish();
        self.checkpoint = checkpoint;
        self.file = Some(file);
        Ok(())
    }

    /// Returns the file, opened again if it has failed.
    fn file(&mut self) -> Result<&mut StoreFile, StoreError> {
        if self.file.is_none() {
            if self.reopen_tried_at.elapsed() < REOPEN_INTERVAL {
                return Err(StoreError::transient(Cause::Disk, "the store's file has failed"));
            }
            self.reopen_tried_at = Instant::now();
            self.reopen().map_err(|fault| StoreError::transient(Cause::Disk, fault.to_string()))?;
        }
        self.file
            .as_mut()
            .ok_or_else(|| StoreError::transient(Cause::Disk, "the store has no file"))
    }

    /// Opens the file again, and writes a row as a test: on a full disk, reading proves nothing.
    fn reopen(&mut self) -> Result<(), OpenError> {
        let mut file = StoreFile::reopen(&self.data_dir, self.last_sequence)?;
        let should_hold = file.should_hold(self.state.read().size());
        file.append(&JournalRow::empty(should_hold), &[])
            .map_err(|fault| StoreFile::unreadable(&self.data_dir, fault))?;
        self.load(file)
    }

    fn fail(&mut self, fault: &FileError) -> StoreError {
        tracing::error!(
            error = %fault,
            data_dir = %self.data_dir.display(),
            "the embedded store's file has failed; it will be opened again"
        );
        if let Some(file) = self.file.take() {
            self.last_sequence = file.last_sequence();
            file.discard();
        }
        self.checkpoint = Checkpoint::new(self.checkpoint.limits());
        StoreError::indeterminate(Cause::Disk, fault.to_string())
    }

    /// Makes a change durable, and returns its result.
    fn commit<R>(
        &mut self,
        now: Timestamp,
        change: impl FnOnce(&mut State) -> R,
    ) -> Result<R, StoreError> {
        self.file()?;
        let (result, (changes, audit), size) = {
            let mut state = self.state.write();
            let result = change(&mut state);
            (result, state.take_changes(), state.size())
        };
        if changes.is_empty() {
            return Ok(result);
        }
        let file = self.file()?;
        let row = JournalRow { now, changes, should_hold: file.should_hold(size) };
        let bytes = file.append(&row, &audit).map_err(|fault| self.fail(&fault))?;
        self.checkpoint.journalled(row.changes.iter().map(Change::key), bytes);
        Ok(result)
    }

    fn audit(&mut self, key: AnomalyKey) -> Result<Vec<AuditEntry>, StoreError> {
        self.file()?.audit(key).map_err(|fault| self.fail(&fault))
    }

    fn signature_json(&mut self, key: AnomalyKey) -> Result<Option<String>, StoreError> {
        self.file()?.signature_json(key).map_err(|fault| self.fail(&fault))
    }

    fn forget_expired(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.file()?;
        let (expired, swept_to) =
            self.state.write().remove_expired(now, self.swept_to, SWEEP_ANOMALIES, SWEEP_REMOVALS);
        self.swept_to = swept_to;
        if expired.is_empty() {
            return Ok(());
        }
        self.checkpoint.removed(&expired);
        self.file()?.remove_anomalies(&expired).map_err(|fault| self.fail(&fault))
    }

    fn step_checkpoint(&mut self) {
        if let Some(file) = self.file.as_mut().filter(|_| self.checkpoint.has_work())
            && let Err(fault) = self.checkpoint.step(&self.state, file)
        {
            self.fail(&fault);
        }
    }
}

/// Sends jobs to the writer thread.
pub(super) struct Handle {
    /// Absent once closed.
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Handle {
    /// Applies `change` on the thread. Returns when it is durable.
    pub(super) async fn write<R: Send + 'static>(
        &self,
        now: Timestamp,
        change: impl FnOnce(&mut State) -> R + Send + 'static,
    ) -> Result<R, StoreError> {
        self.run(move |writer| writer.commit(now, change)).await
    }

    /// Returns an anomaly's signature from the file.
    pub(super) async fn signature_json(
        &self,
        key: AnomalyKey,
    ) -> Result<Option<String>, StoreError> {
        self.run(move |writer| writer.signature_json(key)).await
    }

    /// Returns the audit of an anomaly.
    pub(super) async fn audit(&self, key: AnomalyKey) -> Result<Vec<AuditEntry>, StoreError> {
        self.run(move |writer| writer.audit(key)).await
    }

    pub(super) async fn check(&self) -> Result<(), StoreError> {
        self.run(|writer| writer.file().map(|_| ())).await
    }

    pub(super) async fn forget_expired(&self, now: Timestamp) -> Result<(), StoreError> {
        self.run(move |writer| writer.forget_expired(now)).await
    }

    /// Ends the thread after the queued jobs.
    pub(super) async fn close(&self) {
        self.jobs.lock().take();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(|| thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the embedded store's writer thread has panicked");
            }
        }
    }

    async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let ended = || StoreError::transient(Cause::Disk, "the store's writer thread has ended");
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |writer| {
            // If the caller waits no longer, the work is done all the same.
            let _ = answer.send(work(writer));
        });
        self.jobs.lock().as_ref().ok_or_else(ended)?.send(job).map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}
