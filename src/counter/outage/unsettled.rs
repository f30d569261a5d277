//! Operations that the store has applied, but that may not have left the spool's file: its disk has
//! not answered in time, or has failed during the commit. They stay in memory until that is known,
//! so that no other write of their anomalies overtakes them.

use std::mem;

use crate::spool::{LateResult, Settlement, SpoolError, Spooled};

/// The operations of a page that no longer wait.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    pub(crate) settlement: Settlement,
    pub(crate) all: Vec<Spooled>,
}

/// The operations that may not have left the spool.
#[derive(Debug, Default)]
pub(crate) struct Unsettled {
    late: Option<(LateResult<u64>, Settled)>,
    doubtful: Vec<Spooled>,
}

/// A settlement whose result is known, or still missing.
pub(crate) enum Ended {
    No,
    Yes(Settled, Result<u64, SpoolError>),
}

impl Unsettled {
    /// Keeps a settlement until its result is known.
    pub(crate) fn wait_for(&mut self, late: LateResult<u64>, settled: Settled) {
        self.late = Some((late, settled));
    }

    /// Returns the late settlement with its result; `None` if there is none.
    pub(crate) fn take_late(&mut self) -> Option<Ended> {
        let (mut late, settled) = self.late.take()?;
        match late.try_result() {
            Some(result) => Some(Ended::Yes(settled, result)),
            None => {
                self.late = Some((late, settled));
                Some(Ended::No)
            }
        }
    }

    /// Notes operations whose settlement may be durable although it failed.
    pub(crate) fn doubt(&mut self, settled: Vec<Spooled>) {
        self.doubtful.extend(settled);
    }

    /// Returns the operations that have left the spool: those missing from `page`, which begins at
    /// the sequence `first`.
    pub(crate) fn take_gone(&mut self, first: u64, page: &[Spooled]) -> Vec<Spooled> {
        if self.doubtful.is_empty() {
            return Vec::new();
        }
        let last = page.last().map_or(u64::MAX, |spooled| spooled.sequence);
        let (covered, others): (Vec<_>, Vec<_>) = mem::take(&mut self.doubtful)
            .into_iter()
            .partition(|spooled| (first..=last).contains(&spooled.sequence));
        self.doubtful = others;
        // Operations that are still in the spool are settled once more.
        let is_there = |sequence| page.iter().any(|spooled| spooled.sequence == sequence);
        covered.into_iter().filter(|spooled| !is_there(spooled.sequence)).collect()
    }
}
