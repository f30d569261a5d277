//! Latencies and refusals by the faults that were active at the time.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::faults::{Fault, REASONS_TO_REFUSE};

const CALM: &str = "calm";
const ALL: &str = "all";

#[derive(Debug, Default)]
pub(crate) struct Report(Mutex<Figures>);

#[derive(Debug, Default)]
struct Figures {
    /// The number of active faults by name.
    active: BTreeMap<&'static str, usize>,
    rows: BTreeMap<&'static str, Row>,
    refused_without_reason: u64,
}

#[derive(Debug, Default)]
struct Row {
    took: Vec<Duration>,
    refused: u64,
}

impl Report {
    pub(crate) fn begin(&self, fault: Fault) {
        *self.figures().active.entry(fault.name()).or_default() += 1;
    }

    pub(crate) fn end(&self, fault: Fault) {
        let mut figures = self.figures();
        if let Some(count) = figures.active.get_mut(fault.name()) {
            *count -= 1;
        }
        figures.active.retain(|_, count| *count > 0);
    }

    /// The names of the active faults.
    pub(crate) fn phases(&self) -> Vec<&'static str> {
        self.figures().active.keys().copied().collect()
    }

    /// Records an answer to a request that was sent while the faults `before` were active.
    pub(crate) fn answered(&self, before: &[&'static str], took: Duration, is_refused: bool) {
        let mut figures = self.figures();
        // A fault that has begun meanwhile is to blame too.
        let mut phases: Vec<&'static str> = figures.active.keys().copied().collect();
        phases.extend(before);
        phases.sort_unstable();
        phases.dedup();
        if is_refused && !REASONS_TO_REFUSE.iter().any(|reason| phases.contains(reason)) {
            figures.refused_without_reason += 1;
        }
        if phases.is_empty() {
            phases.push(CALM);
        }
        phases.push(ALL);
        for phase in phases {
            let row = figures.rows.entry(phase).or_default();
            row.took.push(took);
            row.refused += u64::from(is_refused);
        }
    }

    /// Records a write that was not answered, or not accepted as part of an array.
    pub(crate) fn unanswered(&self, before: &[&'static str]) {
        let mut figures = self.figures();
        let ends = [Fault::ServiceKilled(0), Fault::ServiceStopped(0)].map(Fault::name);
        let is_excused = |phase: &&str| ends.contains(phase) || REASONS_TO_REFUSE.contains(phase);
        if !before.iter().any(is_excused) && !figures.active.keys().any(is_excused) {
            figures.refused_without_reason += 1;
        }
    }

    /// The number of refusals while nothing was wrong with the disk.
    pub(crate) fn refusals_without_reason(&self) -> u64 {
        self.figures().refused_without_reason
    }

    pub(crate) fn progress(&self) -> String {
        let figures = self.figures();
        let (answers, refused) =
            figures.rows.get(ALL).map_or((0, 0), |row| (row.took.len(), row.refused));
        let active: Vec<&str> = figures.active.keys().copied().collect();
        let now = if active.is_empty() { CALM.to_owned() } else { active.join(", ") };
        format!("{answers} writes answered, {refused} refused; now: {now}")
    }

    pub(crate) fn print(&self) {
        let mut figures = self.figures();
        println!(
            "\n{:<24} {:>9} {:>8} {:>9} {:>9} {:>9}",
            "while", "writes", "refused", "p50 ms", "p99 ms", "worst ms"
        );
        for (name, row) in &mut figures.rows {
            row.took.sort_unstable();
            let at = |share: f64| {
                let index = ((row.took.len() - 1) as f64 * share).round() as usize;
                row.took[index].as_secs_f64() * 1_000.0
            };
            println!(
                "{name:<24} {:>9} {:>8} {:>9.1} {:>9.1} {:>9.1}",
                row.took.len(),
                row.refused,
                at(0.5),
                at(0.99),
                at(1.0)
            );
        }
    }

    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
