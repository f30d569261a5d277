//! Latencies and refusals by the faults that were active at the time.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
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
    /// The time at which the last fault of each name ended.
    ended: BTreeMap<&'static str, Instant>,
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
        figures.ended.insert(fault.name(), Instant::now());
    }

    /// Records an answer to a request that was sent at `begun`. Returns the faults that were active
    /// at any time since then.
    pub(crate) fn answered(&self, begun: Instant, is_refused: bool) -> Vec<&'static str> {
        let took = begun.elapsed();
        let mut figures = self.figures();
        let phases = figures.phases_since(begun);
        if is_refused && !may_refuse(&phases) {
            figures.refused_without_reason += 1;
        }
        let calm: &[&str] = if phases.is_empty() { &[CALM] } else { &[] };
        for phase in phases.iter().chain(calm).chain(&[ALL]) {
            let row = figures.rows.entry(phase).or_default();
            row.took.push(took);
            row.refused += u64::from(is_refused);
        }
        phases
    }

    /// Records a write that was not accepted as part of an array, while the faults `phases` were
    /// active.
    pub(crate) fn refused_in_part(&self, phases: &[&'static str]) {
        if !may_refuse(phases) {
            self.figures().refused_without_reason += 1;
        }
    }

    /// Records a write that was sent at `begun` and not answered.
    pub(crate) fn unanswered(&self, begun: Instant) {
        let mut figures = self.figures();
        let phases = figures.phases_since(begun);
        let ends = [Fault::ServiceKilled(0), Fault::ServiceStopped(0)].map(Fault::name);
        if !may_refuse(&phases) && !ends.iter().any(|end| phases.contains(end)) {
            figures.refused_without_reason += 1;
        }
    }

    /// Returns the number of refusals while nothing was wrong with the disk.
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

impl Figures {
    /// Returns the names of the faults that were active at any time since `begun`. One that has
    /// begun or ended since is to blame too: on a busy machine an answer is read long after it was
    /// given.
    fn phases_since(&self, begun: Instant) -> Vec<&'static str> {
        let ended = self.ended.iter().filter(|(_, ended)| **ended >= begun);
        let mut phases: Vec<_> =
            self.active.keys().chain(ended.map(|(name, _)| name)).copied().collect();
        phases.sort_unstable();
        phases.dedup();
        phases
    }
}

/// Returns whether writes may be refused while these faults are active.
fn may_refuse(phases: &[&'static str]) -> bool {
    REASONS_TO_REFUSE.iter().any(|reason| phases.contains(reason))
}
