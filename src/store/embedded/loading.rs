//! Builds the state from the rows of a file: the anomalies, each as of some sequence, and the
//! changes in the journal since then.

use std::collections::HashMap;

use super::{
    anomaly::Anomaly,
    journal::{Change, JournalRow},
    limits::Limits,
    row::AnomalyRow,
    state::State,
};
use crate::domain::{AnomalyKey, TimelineConfig};

/// A state under construction. The rows of anomalies come first, then those of the journal in
/// order, and then the signatures.
#[derive(Debug)]
pub(super) struct Loading {
    state: State,
    as_of: HashMap<AnomalyKey, u64>,
    limits: Limits,
    /// The limits in force, which are those of later changes.
    in_force: TimelineConfig,
}

impl Loading {
    /// Starts with a state that has no anomalies.
    pub(super) fn into(state: State, limits: Limits) -> Self {
        let in_force = state.limits();
        Self { state, as_of: HashMap::new(), limits, in_force }
    }

    pub(super) fn anomaly(&mut self, key: AnomalyKey, row: AnomalyRow<Anomaly>) {
        self.as_of.insert(key, row.as_of);
        self.state.restore(key, row.anomaly);
    }

    /// Applies the changes that the anomalies' rows do not include.
    pub(super) fn journal(&mut self, sequence: u64, row: &JournalRow) {
        self.state.set_limits(self.limits.of_row(sequence).unwrap_or(self.in_force));
        let is_missing =
            |change: &&Change| self.as_of.get(&change.key()).is_none_or(|as_of| *as_of < sequence);
        for change in row.changes.iter().filter(is_missing) {
            self.state.apply(row.moment(), change);
        }
    }

    /// Takes the identifying fields of an anomaly from its signature.
    pub(super) fn signature(&mut self, key: AnomalyKey, json: &str) {
        self.state.restore_fields(key, json);
    }

    pub(super) fn finish(mut self) -> State {
        self.state.set_limits(self.in_force);
        self.state
    }
}
