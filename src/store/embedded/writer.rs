//! The only thread that changes anything: it applies a batch to the state, writes it to the journal
//! durably, and only then answers. After a fault of the file, it opens the file again and
//! reads the state from it, because it is not known what the failed commit has left. Until then,
//! and while the outcome of a slow commit is not known, the state is not read.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    checkpoint::{Checkpoint, CheckpointLimits},
    condition::Condition,
    error::{FileError, OpenError},
    file::StoreFile,
    journal::{Change, JournalRow},
    loading::Loading,
    state::{SharedState, State},
};
use crate::{
    domain::{AnomalyKey, AuditEntry, Moment},
    redb_file::{Absence, DiskThread, DiskWork, JobError, OpenedFile},
    store::{Cause, StoreError, StoreSize},
    telemetry::exit_with_log,
};

/// Maximum number of anomalies that one maintenance call checks.
const SWEEP_ANOMALIES: usize = 10_000;
/// Maximum number of anomalies that one maintenance call forgets, in one commit: each is on a page
/// of its own, and a batch waits meanwhile.
const SWEEP_FORGOTTEN: usize = 500;
/// Minimum time between two attempts to open a failed file.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

/// The state of the thread.
pub(super) struct Writer {
    data_dir: PathBuf,
    /// Absent after a fault, until the file is opened again.
    file: Option<StoreFile>,
    opened: OpenedFile,
    condition: Arc<Condition>,
    reopen_tried_at: Instant,
    /// The newest sequence before the fault, and the size of the store.
    last_sequence: u64,
    last_size: StoreSize,
    /// The damage of a file that only a new process can open again.
    damage: Option<String>,
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
        let file = StoreFile::open(data_dir)?;
        let mut writer = Self {
            data_dir: data_dir.to_owned(),
            file: None,
            opened: file.opened().clone(),
            condition: Arc::default(),
            reopen_tried_at: Instant::now(),
            last_sequence: 0,
            last_size: StoreSize::default(),
            damage: None,
            state,
            checkpoint: Checkpoint::new(limits),
            swept_to: None,
        };
        writer.load(file)?;
        Ok(writer)
    }

    /// Starts the thread. It ends when the handle is closed or dropped.
    pub(super) fn start(self, timeout: Duration) -> Handle {
        let (condition, opened) = (Arc::clone(&self.condition), self.opened.clone());
        Handle { disk: DiskThread::start(self, timeout), condition, opened, timeout }
    }

    /// Replaces the state with that of the file.
    fn load(&mut self, file: StoreFile) -> Result<(), OpenError> {
        let unreadable = |fault| StoreFile::unreadable(&self.data_dir, fault);
        if self.condition.fault().is_some() {
            // The old state is not read, and there may be no memory for two.
            let emptied = self.state.read().emptied();
            *self.state.write() = emptied;
        }
        let limits = file.read_limits().map_err(unreadable)?;
        let mut loading = Loading::into(self.state.read().emptied(), limits);
        let mut checkpoint = Checkpoint::new(self.checkpoint.limits());

        file.read_anomalies(|key, row| loading.anomaly(key, row)).map_err(unreadable)?;
        file.read_journal(|sequence, bytes, row| {
            loading.journal(sequence, &row);
            checkpoint.journalled(row.changes.iter().map(Change::key), bytes);
        })
        .map_err(unreadable)?;
        file.read_signatures(|key, json| loading.signature(key, json)).map_err(unreadable)?;

        let state = loading.finish();
        let mut file = file;
        file.begin_journal(&self.data_dir, state.size(), state.limits())?;
        *self.state.write() = state;
        self.checkpoint = checkpoint;
        self.file = Some(file);
        Ok(())
    }

    /// Returns the file at its path, and opens it again if it has failed.
    fn file(&mut self) -> Result<&mut StoreFile, StoreError> {
        if let Err(fault) = self.find_file() {
            self.condition.fail(fault.clone());
            return Err(fault);
        }
        self.condition.recover();
        self.file
            .as_mut()
            .ok_or_else(|| StoreError::transient(Cause::Disk, "the file does not exist"))
    }

    /// Checks that the files are at their paths.
    fn verify_paths(&self) -> Result<(), Absence> {
        self.opened.verify()?;
        self.file.as_ref().map_or(Ok(()), StoreFile::verify_journal)
    }

    fn find_file(&mut self) -> Result<(), StoreError> {
        self.verify_paths().map_err(|absence| StoreError::own_disk(absence.to_string()))?;
        if self.file.is_some() {
            return Ok(());
        }
        if self.reopen_tried_at.elapsed() < REOPEN_INTERVAL {
            return Err(self.failed("it will be reopened soon"));
        }
        if let Some(damage) = &self.damage {
            return Err(self.failed(damage));
        }
        let reopened = self.reopen();
        // Measured from the end of the attempt, because it may take long.
        self.reopen_tried_at = Instant::now();
        reopened.map_err(|fault| {
            let text = fault.to_string();
            if fault.is_corrupted() {
                tracing::error!(error = text, "{text}");
                self.damage = Some(text.clone());
            }
            self.failed(&text)
        })
    }

    /// Returns the fault of a file that can't be opened again.
    fn failed(&self, text: &str) -> StoreError {
        let shown = format!("{} has failed (the log says why)", self.opened.path().display());
        StoreError::transient(Cause::Disk, text).shown_as(&shown)
    }

    /// Opens the file again, and writes a row as a test: on a full disk, a successful read proves
    /// nothing.
    fn reopen(&mut self) -> Result<(), OpenError> {
        let mut file = StoreFile::reopen(&self.data_dir, self.last_sequence)?;
        let should_hold = file.should_hold(self.last_size);
        file.append(&JournalRow::empty(should_hold), &[])
            .map_err(|fault| StoreFile::unreadable(&self.data_dir, fault))?;
        self.load(file)
    }

    fn fail(&mut self, fault: &FileError) -> StoreError {
        let condition = self.failed(&fault.to_string());
        self.close_failed(&fault.to_string(), condition)
    }

    /// Notes that the file was deleted, moved or replaced during a commit: if it comes back, it may
    /// contain the commit.
    fn lose(&mut self, absence: &Absence) -> StoreError {
        let condition = StoreError::own_disk(absence.to_string());
        self.close_failed(&absence.to_string(), condition)
    }

    /// Closes the file after a fault. Returns the fault of the commit, and keeps `condition` as the
    /// fault of later calls.
    fn close_failed(&mut self, text: &str, condition: StoreError) -> StoreError {
        tracing::error!(
            error = text,
            data_dir = %self.data_dir.display(),
            "the embedded store's file has failed; it will be reopened"
        );
        let shown = condition.for_clients().unwrap_or_default().to_owned();
        self.condition.fail(condition);
        if let Some(file) = self.file.take() {
            self.last_sequence = file.last_sequence();
            self.last_size = self.state.read().size();
            file.discard();
        }
        self.checkpoint = Checkpoint::new(self.checkpoint.limits());
        StoreError::indeterminate(Cause::Disk, text).shown_as(&shown)
    }

    /// Makes a change durable, and returns its result.
    fn commit<R>(
        &mut self,
        moment: Moment,
        change: impl FnOnce(&mut State) -> R,
    ) -> Result<R, StoreError> {
        // Checked before anything changes, so that a missing file is not a fault of the commit.
        self.file()?;
        let (result, (changes, audit), size) = {
            let mut state = self.state.write();
            let result = change(&mut state);
            (result, state.take_changes(), state.size())
        };
        if changes.is_empty() {
            return Ok(result);
        }
        let Some(file) = &mut self.file else { return Err(StoreError::no_result()) };
        let row = JournalRow::new(moment, changes, file.should_hold(size));
        let bytes = file.append(&row, &audit).map_err(|fault| self.fail(&fault))?;
        self.verify_paths().map_err(|absence| self.lose(&absence))?;
        self.checkpoint.journalled(row.changes.iter().map(Change::key), bytes);
        Ok(result)
    }

    fn audit(&mut self, key: AnomalyKey) -> Result<Vec<AuditEntry>, StoreError> {
        self.file()?.audit(key).map_err(|fault| self.fail(&fault))
    }

    fn signature_json(&mut self, key: AnomalyKey) -> Result<Option<String>, StoreError> {
        self.file()?.signature_json(key).map_err(|fault| self.fail(&fault))
    }

    /// Removes expired data, from memory as well as from the file.
    fn forget_expired(&mut self, moment: Moment) -> Result<(), StoreError> {
        let swept_to = self.swept_to;
        self.swept_to = self.commit(moment, |state| {
            state.forget_expired(moment, swept_to, SWEEP_ANOMALIES, SWEEP_FORGOTTEN)
        })?;
        Ok(())
    }
}

impl Drop for Writer {
    /// Leaves one file with everything in it. Where that can't be done, nothing is lost either.
    fn drop(&mut self) {
        let is_there = self.verify_paths().is_ok();
        if let Some(file) = self.file.take()
            && is_there
            && let Err(error) = file.close()
        {
            tracing::warn!(%error, "the embedded store's journal stays in a file of its own");
        }
    }
}

impl DiskWork for Writer {
    fn has_spare_work(&self) -> bool {
        self.file.is_some() && self.checkpoint.has_work()
    }

    /// Performs a step of the checkpoint.
    fn do_spare_work(&mut self) {
        if let Some(file) = &mut self.file
            && let Err(fault) = self.checkpoint.step(&self.state, file)
        {
            self.fail(&fault);
        }
    }

    /// Closes the store for good: the state in memory is not reliable, and no write can succeed any
    /// more. A new process reads the file, which holds everything that was acknowledged.
    fn recover_from_panic(&mut self) {
        tracing::error!("the embedded store's writer panicked; the process exits");
        exit_with_log(1);
    }
}

/// Sends jobs to the writer thread.
#[derive(Debug)]
pub(super) struct Handle {
    disk: DiskThread<Writer>,
    condition: Arc<Condition>,
    opened: OpenedFile,
    timeout: Duration,
}

impl Handle {
    /// Checks that the state holds exactly the durable data. Does not wait.
    ///
    /// # Errors
    /// Fails while the file fails, and while the outcome of a commit is not known.
    pub(super) fn is_reliable(&self) -> Result<(), StoreError> {
        if self.disk.is_stalled() {
            return Err(self.stalled());
        }
        self.condition.fault().map_or(Ok(()), Err)
    }

    /// Applies `change` on the thread. Returns when it is durable.
    pub(super) async fn write<R: Send + 'static>(
        &self,
        moment: Moment,
        change: impl FnOnce(&mut State) -> R + Send + 'static,
    ) -> Result<R, StoreError> {
        self.disk.run(move |writer| writer.commit(moment, change)).await.unwrap_or_else(|error| {
            Err(match error {
                JobError::Withdrawn => self.stalled(),
                JobError::Unanswered(_) => {
                    let text = self.stalled().to_string();
                    StoreError::indeterminate(Cause::Disk, text.clone()).shown_as(&text)
                }
                JobError::Aborted => ended(),
            })
        })
    }

    /// Returns an anomaly's signature from the file.
    pub(super) async fn signature_json(
        &self,
        key: AnomalyKey,
    ) -> Result<Option<String>, StoreError> {
        self.read(move |writer| writer.signature_json(key)).await
    }

    /// Returns the audit of an anomaly.
    pub(super) async fn audit(&self, key: AnomalyKey) -> Result<Vec<AuditEntry>, StoreError> {
        self.read(move |writer| writer.audit(key)).await
    }

    /// Checks whether the file takes writes, as far as that is known, and requests a check of the
    /// file on the thread. Does not wait.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        // The result is noted in the condition.
        self.disk.request(|writer| drop(writer.file().map(|_| ())));
        self.is_reliable()
    }

    pub(super) async fn forget_expired(&self, moment: Moment) -> Result<(), StoreError> {
        // Nobody sees expired data, whether or not their removal is durable.
        self.read(move |writer| writer.forget_expired(moment)).await
    }

    /// Ends the thread after the queued jobs.
    pub(super) async fn close(&self) {
        if !self.disk.close().await {
            let file = self.opened.path().display();
            tracing::warn!(%file, "the disk does not respond; the store's file is not closed");
        }
    }

    /// Does a job that changes nothing that callers could see.
    async fn read<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Writer) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        self.disk.run(job).await.unwrap_or_else(|error| {
            Err(match error {
                JobError::Withdrawn | JobError::Unanswered(_) => self.stalled(),
                JobError::Aborted => ended(),
            })
        })
    }

    fn stalled(&self) -> StoreError {
        StoreError::own_disk(self.opened.unanswered(self.timeout))
    }
}

fn ended() -> StoreError {
    StoreError::transient(Cause::Disk, "the store's writer thread has ended")
}

#[cfg(test)]
mod tests {
    use std::{fs, num::NonZeroUsize};

    use tempfile::TempDir;

    use super::*;
    use crate::store::RecordingConfig;

    /// If redb could not close the file, another attempt would report that another process has it
    /// open.
    #[test]
    fn damage_that_is_known_is_not_looked_for_again() {
        let dir = TempDir::new().unwrap();
        let state = State::new(RecordingConfig::smallest(), NonZeroUsize::MIN);
        let state = Arc::new(SharedState::new(state));
        let mut writer = Writer::open(dir.path(), CheckpointLimits::default(), state).unwrap();
        writer.file.take().unwrap().discard();
        let path = StoreFile::path(dir.path());
        let whole = fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged.iter_mut().skip(4_096).step_by(512).for_each(|byte| *byte ^= 1);
        // Written in place, so that it is the same file.
        fs::write(&path, damaged).unwrap();
        let mut attempt = || {
            writer.reopen_tried_at = Instant::now() - REOPEN_INTERVAL;
            writer.find_file().unwrap_err().to_string()
        };
        let first = attempt();
        assert!(first.contains("Restore it from a backup"), "{first}");
        fs::write(&path, whole).unwrap();
        assert_eq!(attempt(), first);
        assert_eq!(attempt(), first);
    }
}
