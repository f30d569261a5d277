//! The owner of the spool's file, on the thread of its disk. It opens the file again after a fault,
//! and accepts writes only into a file that is at its path.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    condition::Condition, contents::FileState, error::SpoolError, file::SpoolFile,
    record::SpoolWrite,
};
use crate::{
    redb_file::{Absence, DiskWork, OpenedFile},
    telemetry::{self, LogSource, may_log},
};

/// Minimum time between two attempts to open a file that has failed.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

/// The file, and what was last known of it.
#[derive(Debug)]
pub(super) struct Worker {
    data_dir: PathBuf,
    /// Absent after a fault, until it could be opened again.
    file: Option<SpoolFile>,
    state: FileState,
    opened: OpenedFile,
    reopen_tried_at: Option<Instant>,
    /// The first sequence of an append that has not ended well, so that the file may have it. What
    /// waits from there on is known to nobody.
    unconfirmed: Option<u64>,
    /// The damage of a file that only a new process can repair.
    damaged: Option<SpoolError>,
    condition: Arc<Condition>,
}

impl Worker {
    pub(super) fn new(data_dir: PathBuf, file: SpoolFile, condition: Arc<Condition>) -> Self {
        let (state, opened) = (file.state(), file.opened().clone());
        condition.waiting_bytes.store(state.usage.waiting, Ordering::Relaxed);
        Self {
            data_dir,
            file: Some(file),
            state,
            opened,
            reopen_tried_at: None,
            unconfirmed: None,
            damaged: None,
            condition,
        }
    }

    /// Adds operations at the end. Either all of them wait in the file at its path, or none.
    pub(super) fn append(
        &mut self,
        writes: &[SpoolWrite],
        max_bytes: u64,
    ) -> Result<(), SpoolError> {
        self.verify()?;
        let file = self.take_file()?;
        let first = file.state().next_sequence;
        self.file = Some(file);
        // Before the work, which may panic.
        self.unconfirmed = Some(self.unconfirmed.map_or(first, |earlier| earlier.min(first)));
        let mut result = self.on_file(|file| file.append(writes, max_bytes));
        if result.is_ok()
            && let Err(absent) = self.verify()
        {
            // It was deleted or moved in the course of the commit.
            let is_taken_back = self.on_file(|file| file.remove_from(first)).is_ok();
            result = Err(if is_taken_back { absent } else { absent.unconfirmed() });
        }
        if self.file.is_some() {
            self.unconfirmed = None;
        }
        result?;
        self.condition.recover();
        Ok(())
    }

    /// Finds out whether the file takes writes, by a small one.
    pub(super) fn check(&mut self) {
        if self.verify().and_then(|()| self.on_file(SpoolFile::prove_writable)).is_ok() {
            self.condition.recover();
        }
    }

    /// Does `work` on the file, opened again if it has failed: also if it is not at its path, where
    /// nobody else would find what is in it.
    pub(super) fn on_file<R>(
        &mut self,
        work: impl FnOnce(&mut SpoolFile) -> Result<R, SpoolError>,
    ) -> Result<R, SpoolError> {
        let mut file = self.take_file()?;
        let before = file.state();
        let result = work(&mut file);
        self.state = file.state();
        self.condition.waiting_bytes.store(self.state.usage.waiting, Ordering::Relaxed);
        let dropped = self.state.usage.dropped_held - before.usage.dropped_held;
        self.condition.held_drops.fetch_add(dropped, Ordering::Release);
        report_dropped(before, self.state);
        match result {
            Err(SpoolError::Unconfirmed(cause)) => {
                self.condition.fail(&cause);
                let path = self.opened.path().display();
                Err(SpoolError::Unconfirmed(format!("{path} has failed (the log says why)")))
            }
            Err(error @ SpoolError::Failed(_)) => {
                self.fail(&error);
                Err(error)
            }
            result => {
                self.file = Some(file);
                result
            }
        }
    }

    /// Checks that the file is the one at its path.
    pub(super) fn verify(&self) -> Result<(), SpoolError> {
        let absent = |absence: Absence| SpoolError::Unusable(absence.to_string());
        self.opened.verify().map_err(absent).inspect_err(|error| self.fail(error))
    }

    /// Takes the file, opened again if it has failed: a redb file that has failed once fails until
    /// then.
    fn take_file(&mut self) -> Result<SpoolFile, SpoolError> {
        if let Some(open) = self.file.take() {
            return Ok(open);
        }
        if let Some(damaged) = &self.damaged {
            return Err(damaged.clone());
        }
        if self.reopen_tried_at.is_some_and(|at| at.elapsed() < REOPEN_INTERVAL) {
            let path = self.opened.path().display();
            let soon = format!("{path} has failed, and will be reopened soon");
            return Err(SpoolError::Unusable(soon));
        }
        let reopened = self.reopen().inspect_err(|error| self.fail(error));
        // From its end, because an attempt may take long.
        self.reopen_tried_at = Some(Instant::now());
        reopened
    }

    fn reopen(&mut self) -> Result<SpoolFile, SpoolError> {
        self.verify()?;
        let mut file = SpoolFile::reopen(&self.data_dir, self.state).map_err(|fault| {
            if fault.is_lasting {
                self.damaged = Some(fault.error.clone());
            }
            fault.error
        })?;
        if let Some(first) = self.unconfirmed {
            // No caller has an answer that it waits, and nothing in memory refers to it.
            file.remove_from(first)?;
            self.unconfirmed = None;
        }
        Ok(file)
    }

    fn fail(&self, error: &SpoolError) {
        self.condition.fail(&error.to_string());
    }
}

impl DiskWork for Worker {
    /// What the job has done to the file is not known: it is opened again.
    fn recover_from_panic(&mut self) {
        self.file = None;
        self.condition.fail("a job on the file panicked");
    }
}

/// Reports what had to go because `spool.max_bytes` has no room for it.
fn report_dropped(before: FileState, after: FileState) {
    let letters = after.usage.dropped_letters - before.usage.dropped_letters;
    if letters > 0 {
        telemetry::dead_letters_dropped(letters);
        // Once there is no room, each write that comes or dies drops another one.
        if may_log("dead letters were dropped", LogSource::Anyone, Instant::now()) {
            tracing::error!(
                letters,
                "{letters} dead letters were dropped, the oldest first: there are too many, or \
                 they exceed `spool.max_bytes`"
            );
        }
    }
    if after.usage.dropped_held > before.usage.dropped_held {
        tracing::warn!(
            "`spool.max_bytes` is too small for the writes that were acknowledged before the \
             outage: if this process ends before Redis is available, they are not sent again"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::{super::opening, *};
    use crate::domain::Timestamp;

    /// Where redb could not close it, another attempt would say that another process has it open.
    #[test]
    fn damage_that_is_known_is_not_looked_for_again() {
        let dir = TempDir::new().unwrap();
        let now = Timestamp::from_micros(1_774_799_738_000_000);
        let file = opening::open(dir.path(), now).unwrap();
        let mut worker = Worker::new(dir.path().to_owned(), file, Arc::default());
        let path = worker.opened.path().to_owned();
        worker.recover_from_panic();
        let whole = fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged.iter_mut().skip(4_096).step_by(512).for_each(|byte| *byte ^= 1);
        // In its place, so that it is the same file.
        fs::write(&path, damaged).unwrap();
        let mut attempt = || {
            worker.reopen_tried_at = None;
            worker.on_file(|_| Ok(())).unwrap_err()
        };
        let first = attempt();
        assert!(matches!(first, SpoolError::Failed(_)), "{first}");
        fs::write(&path, whole).unwrap();
        assert_eq!(attempt(), first);
        assert_eq!(attempt(), first);
    }
}
