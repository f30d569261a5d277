//! Folds the journal into the anomalies' rows, in steps small enough to go between two batches, so
//! that the file does not grow for ever and a start has little to replay.

use std::{
    collections::BTreeSet,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use super::{error::FileError, file::StoreFile, row::AnomalyRows, state::SharedState};
use crate::domain::AnomalyKey;

/// When a checkpoint begins, and what one step of it does at the most.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointLimits {
    /// How many bytes the journal grows by before the next checkpoint.
    pub journal_bytes: usize,
    /// How many bytes of anomalies a step writes, unless a single one is larger.
    pub step_bytes: usize,
    /// How many rows of the journal a step removes.
    pub step_journal_rows: usize,
}

impl Default for CheckpointLimits {
    /// Replaying so much of a journal takes well under a second, and a step some milliseconds.
    fn default() -> Self {
        Self { journal_bytes: 8 << 20, step_bytes: 512 << 10, step_journal_rows: 500 }
    }
}

/// How long a step should take: a batch may wait for it.
const STEP_TIME: Duration = Duration::from_millis(10);
/// How many anomalies a step writes at the least and at the most.
const STEP_ROWS: RangeInclusive<usize> = 32..=8_192;

/// Which anomalies have changed since their row was written, and how far a checkpoint has come.
#[derive(Debug)]
pub(super) struct Checkpoint {
    limits: CheckpointLimits,
    changed: BTreeSet<AnomalyKey>,
    journal_bytes: usize,
    running: Option<Running>,
    /// How many anomalies the next step writes. Neighbours share a page, and others are each on one of
    /// their own, which is written anew: only the time tells.
    step_rows: usize,
}

#[derive(Debug)]
struct Running {
    to_write: BTreeSet<AnomalyKey>,
    /// The journal is not needed before this sequence once all of `to_write` is written.
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

    /// Notes a journal row.
    pub(super) fn journalled(&mut self, keys: impl Iterator<Item = AnomalyKey>, bytes: usize) {
        self.changed.extend(keys);
        self.journal_bytes += bytes;
    }

    /// Notes that anomalies are gone.
    pub(super) fn forgotten(&mut self, keys: &[AnomalyKey]) {
        for key in keys {
            self.changed.remove(key);
            if let Some(running) = &mut self.running {
                running.to_write.remove(key);
            }
        }
    }

    pub(super) fn has_work(&self) -> bool {
        self.running.is_some() || self.journal_bytes >= self.limits.journal_bytes
    }

    /// Does one step, in one commit.
    pub(super) fn step(&mut self, state: &SharedState, file: &StoreFile) -> Result<(), FileError> {
        let running = self.running.get_or_insert_with(|| {
            self.journal_bytes = 0;
            let to_write = std::mem::take(&mut self.changed);
            Running { to_write, first_kept: file.last_sequence() }
        });
        if running.to_write.is_empty() {
            if !file.trim_journal(running.first_kept, self.limits.step_journal_rows)? {
                self.running = None;
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
