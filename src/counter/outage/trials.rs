//! Shards on trial: they have answered a probe, but it is not known yet whether they take the
//! waiting writes.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::Shard;

/// The shards on trial.
#[derive(Debug, Default)]
pub(crate) struct Trials {
    by_shard: BTreeMap<Shard, Trial>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Trial {
    /// True if the current pass through the spool began after the trial.
    is_covered: bool,
    /// True if a write was refused alone.
    has_refused: bool,
}

impl Trials {
    pub(crate) fn begin(&mut self, shard: Shard) {
        self.by_shard.entry(shard).or_default();
    }

    /// Returns true if operations of any of these shards may be applied. Otherwise, reading
    /// millions of operations would be useless.
    pub(crate) fn allow_any(&self, shards: &[Shard], unavailable: &BTreeSet<Shard>) -> bool {
        shards.iter().any(|shard| !unavailable.contains(shard) || self.contains(*shard))
    }

    pub(crate) fn contains(&self, shard: Shard) -> bool {
        self.by_shard.contains_key(&shard)
    }

    /// Ends a trial. A shard whose trial failed is on trial again after the next answered probe.
    pub(crate) fn end(&mut self, shard: Shard) {
        self.by_shard.remove(&shard);
    }

    pub(crate) fn note_refusal(&mut self, shard: Shard) {
        if let Some(trial) = self.by_shard.get_mut(&shard) {
            trial.has_refused = true;
        }
    }

    pub(crate) fn begin_pass(&mut self) {
        self.by_shard.values_mut().for_each(|trial| trial.is_covered = true);
    }

    /// Ends the trials of shards for which a whole pass has applied nothing. Returns the shards
    /// that have passed: no waiting operation is theirs. A shard that has refused a write passes
    /// only when nothing waits at all.
    pub(crate) fn end_pass(&mut self, nothing_waits: bool) -> Vec<Shard> {
        let mut passed = Vec::new();
        self.by_shard.retain(|shard, trial| {
            if nothing_waits || trial.is_covered && !trial.has_refused {
                passed.push(*shard);
            }
            !nothing_waits && !trial.is_covered
        });
        passed
    }

    /// Returns true if another pass is needed for a decision.
    pub(crate) fn must_repeat(&self) -> bool {
        !self.by_shard.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: Shard = Shard(1);

    #[test]
    fn a_shard_passes_if_a_whole_pass_finds_nothing_for_it() {
        let mut trials = Trials::default();
        trials.begin(SHARD);
        assert_eq!(trials.end_pass(false), [], "the pass had begun before");
        assert!(trials.must_repeat());
        trials.begin_pass();
        assert_eq!(trials.end_pass(false), [SHARD]);
        assert!(!trials.contains(SHARD));
    }

    #[test]
    fn a_shard_that_has_refused_the_only_write_does_not_pass() {
        let mut trials = Trials::default();
        trials.begin(SHARD);
        trials.begin_pass();
        trials.note_refusal(SHARD);
        assert_eq!(trials.end_pass(false), []);
        assert!(!trials.contains(SHARD), "until the next probe");
        trials.begin(SHARD);
        assert_eq!(trials.end_pass(true), [SHARD], "nothing waits any more");
    }
}
