//! Folds the journal into the anomalies' rows, in steps small enough to go between two batches, so
//! that the file does not grow for ever and a start has little to replay.

use std::collections::BTreeSet;

use super::{
    file::{AnomalyRow, FileError, StoreFile, encode},
    state::SharedState,
};
use crate::domain::AnomalyKey;

/// A checkpoint begins when the journal has grown by this much. Replaying as much takes well under
/// a second.
const JOURNAL_BYTES: usize = 8 << 20;
/// What one step writes at the most, unless a single anomaly is larger.
const STEP_BYTES: usize = 512 << 10;
const STEP_JOURNAL_ROWS: usize = 2_000;

/// Which anomalies have changed since their row was written, and how far a checkpoint has come.
#[derive(Debug, Default)]
pub(super) struct Checkpoint {
    changed: BTreeSet<AnomalyKey>,
    journal_bytes: usize,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    to_write: BTreeSet<AnomalyKey>,
    /// The journal is not needed before this sequence once all of `to_write` is written.
    first_kept: u64,
}

impl Checkpoint {
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
        self.running.is_some() || self.journal_bytes >= JOURNAL_BYTES
    }

    /// Does one step, in one commit.
    pub(super) fn step(&mut self, state: &SharedState, file: &StoreFile) -> Result<(), FileError> {
        let running = self.running.get_or_insert_with(|| {
            self.journal_bytes = 0;
            let to_write = std::mem::take(&mut self.changed);
            Running { to_write, first_kept: file.last_sequence() }
        });
        if running.to_write.is_empty() {
            if !file.trim_journal(running.first_kept, STEP_JOURNAL_ROWS)? {
                self.running = None;
            }
            return Ok(());
        }
        let mut rows = Vec::new();
        let mut bytes = 0;
        while bytes < STEP_BYTES
            && let Some(key) = running.to_write.pop_first()
        {
            if let Some(anomaly) = state.read().anomaly(key) {
                let row = encode(&AnomalyRow { as_of: file.last_sequence(), anomaly })?;
                bytes += row.len();
                rows.push((key, row));
            }
        }
        file.write_anomalies(&rows)
    }
}
