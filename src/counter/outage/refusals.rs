//! Decides which operations are at fault themselves: operations that were refused alone several
//! times while their server took others. An intermittent error must not condemn an operation, so
//! refusals count only with some time between them, and with a write in between that was taken.
//!
//! If only refused operations wait, an answered probe counts as such a write, but only for a few
//! anomalies. A proxy may pass the probe, which has one key, and refuse all calls with several
//! keys: it then refuses every anomaly, while data that break a call are rare. If more than
//! [`MAX_UNWITNESSED`] anomalies are refused and no other write is taken, the server is at fault:
//! its writes wait, and the state is Degraded.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    mem,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    domain::AnomalyKey,
    store::{Shard, StoreError},
};

/// Maximum number of anomalies that may be at fault themselves on a server that takes only probes.
pub(crate) const MAX_UNWITNESSED: usize = 32;

/// Number of operations that a shard may refuse alone before it is judged, although the pass has
/// not ended: all waiting operations must not be sent to a server that refuses everything.
const MAX_REFUSED: usize = 256;

/// Number of refusals after which an operation is at fault itself.
const ENOUGH: u32 = 3;
/// Minimum time between two refusals that count.
const INTERVAL: Duration = Duration::from_secs(1);

/// The operations that were refused alone, and the shards that refused some of them in this pass.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// The refused operations, by sequence.
    operations: HashMap<u64, Refused>,
    shards: BTreeMap<Shard, Refusing>,
}

/// An operation that was refused alone.
#[derive(Debug)]
struct Refused {
    count: u32,
    last_at: Instant,
    /// Number of writes that its shard had taken at that time.
    taken: u64,
}

/// A shard that has refused operations alone in this pass.
#[derive(Debug)]
pub(crate) struct Refusing {
    pub(crate) fault: StoreError,
    /// Number of refused operations.
    refused: usize,
    /// Anomalies that it refused, and anomalies that were not tried; at most one more than the
    /// maximum.
    anomalies: HashSet<AnomalyKey>,
}

impl Refusing {
    /// Returns true if so few anomalies were refused that a probe counts as a write of their shard.
    pub(crate) fn are_few(&self) -> bool {
        self.anomalies.len() <= MAX_UNWITNESSED
    }

    fn add(&mut self, key: AnomalyKey) {
        if self.are_few() {
            self.anomalies.insert(key);
        }
    }
}

impl Refusals {
    /// Counts a refusal at `now`, after the shard has taken `taken` writes. Returns true if there
    /// were enough refusals.
    pub(crate) fn are_enough(&mut self, now: Instant, sequence: u64, taken: u64) -> bool {
        let first = Refused { count: 1, last_at: now, taken };
        let refused = self.operations.entry(sequence).or_insert(first);
        if now - refused.last_at >= INTERVAL && taken > refused.taken {
            *refused = Refused { count: refused.count + 1, last_at: now, taken };
        }
        refused.count >= ENOUGH
    }

    /// Forgets an operation that no longer waits.
    pub(crate) fn forget(&mut self, sequence: u64) {
        self.operations.remove(&sequence);
    }

    /// Notes that a shard has refused an operation of an anomaly alone in this pass.
    pub(crate) fn note_refused(&mut self, shard: Shard, key: AnomalyKey, fault: &StoreError) {
        let new = || Refusing { fault: fault.clone(), refused: 0, anomalies: HashSet::new() };
        let refusing = self.shards.entry(shard).or_insert_with(new);
        refusing.refused += 1;
        refusing.add(key);
    }

    /// Notes that an operation was not tried in this pass, because its shard has refused others.
    pub(crate) fn note_untried(&mut self, shard: Shard, key: AnomalyKey) {
        if let Some(refusing) = self.shards.get_mut(&shard) {
            refusing.add(key);
        }
    }

    /// Returns true if shards must be judged before the pass ends.
    pub(crate) fn are_many(&self) -> bool {
        self.shards.values().any(|refusing| refusing.refused >= MAX_REFUSED)
    }

    /// Removes and returns the shards that refused operations in this pass, to be judged.
    pub(crate) fn take_shards(&mut self) -> BTreeMap<Shard, Refusing> {
        mem::take(&mut self.shards)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Cause;

    #[test]
    fn three_refusals_with_a_second_and_a_taken_write_between_them_are_enough() {
        let mut refusals = Refusals::default();
        let begin = Instant::now();
        for taken in 0..5 {
            assert!(!refusals.are_enough(begin, 7, taken), "all at once");
        }
        assert!(!refusals.are_enough(begin + INTERVAL, 7, 1));
        assert!(!refusals.are_enough(begin + INTERVAL * 9, 7, 1), "nothing was taken since");
        assert!(!refusals.are_enough(begin + INTERVAL * 9, 8, 2), "another one");
        assert!(refusals.are_enough(begin + INTERVAL * 9, 7, 2));
        refusals.forget(7);
        assert!(!refusals.are_enough(begin + INTERVAL * 20, 7, 20));
    }

    #[test]
    fn a_probe_speaks_for_a_shard_that_has_refused_few_anomalies() {
        let shard = Shard(1);
        let fault = StoreError::indeterminate(Cause::Refused, "ERR");
        let mut refusals = Refusals::default();
        refusals.note_untried(shard, AnomalyKey::from_bits(0));
        assert!(refusals.take_shards().is_empty(), "nothing was refused");
        for (anomalies, are_few) in [(MAX_UNWITNESSED, true), (MAX_UNWITNESSED + 1, false)] {
            refusals.note_refused(shard, AnomalyKey::from_bits(0), &fault);
            for _ in 0..3 {
                for key in 1..anomalies {
                    refusals.note_untried(shard, AnomalyKey::from_bits(key as u64));
                }
            }
            assert_eq!(refusals.take_shards()[&shard].are_few(), are_few, "{anomalies}");
        }
        for operation in 1..=MAX_REFUSED {
            refusals.note_refused(shard, AnomalyKey::from_bits(0), &fault);
            assert_eq!(refusals.are_many(), operation == MAX_REFUSED);
        }
    }
}
