//! Checkpoints: they write the anomalies that the journal has changed, and remove the journal's
//! rows, in steps that are small enough to run between two batches. So the file does not grow for
//! ever, and a start has little to replay.

use std::{
    collections::BTreeSet,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use super::{
    error::FileError, file::StoreFile, journal::JournalRow, row::AnomalyRows, state::SharedState,
};
use crate::domain::AnomalyKey;

/// The size of the journal at which a checkpoint begins, and the maximum work of one step.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointLimits {
    /// Bytes by which the journal grows before the next checkpoint.
    pub journal_bytes: usize,
    /// Maximum size of the anomalies that a step writes in bytes, unless a single one is larger.
    pub step_bytes: usize,
    /// Maximum number of journal rows that a step removes.
    pub step_journal_rows: usize,
}

impl Default for CheckpointLimits {
    /// With these limits, replaying a journal takes well under a second, and a step some
    /// milliseconds.
    fn default() -> Self {
        Self { journal_bytes: 8 << 20, step_bytes: 512 << 10, step_journal_rows: 500 }
    }
}

/// Target duration of a step, because a batch may wait for it.
const STEP_TIME: Duration = Duration::from_millis(10);
/// Minimum and maximum number of anomalies that a step writes.
const STEP_ROWS: RangeInclusive<usize> = 32..=8_192;

/// The anomalies that have changed since their row was written, and the checkpoint in progress.
#[derive(Debug)]
pub(super) struct Checkpoint {
    limits: CheckpointLimits,
    changed: BTreeSet<AnomalyKey>,
    journal_bytes: usize,
    running: Option<Running>,
    /// The number of anomalies that the next step writes. It adapts to the duration of steps:
    /// neighbouring rows share a page, and each other row has a page of its own to write.
    step_rows: usize,
}

#[derive(Debug)]
struct Running {
    to_write: BTreeSet<AnomalyKey>,
    /// After all of `to_write` is written, the journal is needed only from this sequence on.
    first_kept: u64,
}

impl Checkpoint {
    pub(super) fn new(limits: CheckpointLimits) -> Self {
        Self {
            limits,
            changed: BTreeSet::new(),
            journal_bytes: 0,
            running: None,
            step_rows: *STEP_ROWS.start(),
        }
    }

    pub(super) fn limits(&self) -> CheckpointLimits {
        self.limits
    }

    /// Notes a row of the journal.
    pub(super) fn journalled(&mut self, keys: impl Iterator<Item = AnomalyKey>, bytes: usize) {
        self.changed.extend(keys);
        self.journal_bytes += bytes;
    }

    pub(super) fn has_work(&self) -> bool {
        self.running.is_some() || self.journal_bytes >= self.limits.journal_bytes
    }

    /// Performs one step, in one commit.
    pub(super) fn step(
        &mut self,
        state: &SharedState,
        file: &mut StoreFile,
    ) -> Result<(), FileError> {
        let running = self.running.get_or_insert_with(|| {
            self.journal_bytes = 0;
            let to_write = std::mem::take(&mut self.changed);
            Running { to_write, first_kept: file.last_sequence() }
        });
        if running.to_write.is_empty() {
            if !file.trim_journal(running.first_kept, self.limits.step_journal_rows)? {
                self.running = None;
                // From now on, none of the rows before is missing.
                let should_hold = file.should_hold(state.read().size());
                file.append(&JournalRow::empty(should_hold), &[])?;
            }
            return Ok(());
        }
        let begun = Instant::now();
        let mut rows = AnomalyRows::default();
        while rows.bytes < self.limits.step_bytes
            && rows.len() < self.step_rows
            && let Some(key) = running.to_write.pop_first()
        {
            if let Some(anomaly) = state.read().anomaly(key) {
                rows.add(file.last_sequence(), key, anomaly)?;
            }
        }
        file.write_anomalies(&rows)?;
        let signed = rows.signatures.iter().map(|(key, _)| *key);
        state.write().signatures_are_written(signed);
        let fits = if begun.elapsed() > STEP_TIME { rows.len() / 2 } else { self.step_rows * 2 };
        self.step_rows = fits.clamp(*STEP_ROWS.start(), *STEP_ROWS.end());
        Ok(())
    }
}
