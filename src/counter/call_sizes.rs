//! The size of a call to the store, in bytes. A call that is too large for the link to the server
//! never completes in time, however often it is repeated. So calls start with a maximum size; a
//! call that times out halves it, and calls that complete quickly let it grow again.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;

use crate::store::{Cause, FaultClass, Shard, StoreError};

/// Maximum size of a call, unless a single element is larger.
pub(super) const MAX_CALL_BYTES: usize = 1 << 20;
/// A call up to this size is small. A timeout of such a call says nothing about its size.
const SMALL_CALL_BYTES: usize = 16 << 10;
/// Growth of the maximum size after a call that completed quickly, in bytes.
const GROWTH_BYTES: usize = 16 << 10;
/// A call completed quickly if it took at most this fraction of the time of one that timed out.
const GOOD_SHARE: u32 = 3;

/// The current maximum size of calls, by shard.
#[derive(Debug, Default)]
pub(super) struct CallSizes {
    /// Only shards whose maximum is smaller than [`MAX_CALL_BYTES`].
    reduced: Mutex<BTreeMap<Shard, Reduced>>,
}

#[derive(Clone, Copy, Debug)]
struct Reduced {
    max_bytes: usize,
    /// The duration of the last call that timed out.
    timeout: Duration,
}

impl CallSizes {
    /// Returns the maximum size of a call.
    pub(super) fn max_bytes(&self, shard: Shard) -> usize {
        self.reduced.lock().get(&shard).map_or(MAX_CALL_BYTES, |reduced| reduced.max_bytes)
    }

    /// Notes how a call has ended. Returns true if its size may be the reason for its timeout.
    pub(super) fn note(
        &self,
        shard: Shard,
        bytes: usize,
        took: Duration,
        fault: Option<&StoreError>,
    ) -> bool {
        let mut all_reduced = self.reduced.lock();
        match fault {
            Some(fault) if is_timeout(fault) && bytes > SMALL_CALL_BYTES => {
                let halved = (bytes / 2).max(SMALL_CALL_BYTES);
                let reduced = all_reduced
                    .entry(shard)
                    .or_insert(Reduced { max_bytes: MAX_CALL_BYTES, timeout: took });
                // Several calls that time out together halve it only once.
                reduced.max_bytes = reduced.max_bytes.min(halved);
                reduced.timeout = took;
                true
            }
            Some(_) => false,
            None => {
                if let Some(reduced) = all_reduced.get_mut(&shard)
                    && bytes >= reduced.max_bytes / 2
                    && took * GOOD_SHARE <= reduced.timeout
                {
                    reduced.max_bytes += GROWTH_BYTES;
                    if reduced.max_bytes >= MAX_CALL_BYTES {
                        all_reduced.remove(&shard);
                    }
                }
                false
            }
        }
    }
}

/// Returns how many of the next elements fit into a call: at least one, if there is any.
pub(super) fn fitting(
    sizes: impl Iterator<Item = usize>,
    max_elements: usize,
    max_bytes: usize,
) -> usize {
    let mut bytes = 0;
    let mut fits = |(index, size)| {
        bytes += size;
        index == 0 || bytes <= max_bytes
    };
    sizes.take(max_elements).enumerate().take_while(|next| fits(*next)).count()
}

fn is_timeout(fault: &StoreError) -> bool {
    fault.class() == FaultClass::Indeterminate && fault.cause() == Cause::Timeout
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: Shard = Shard(1);

    fn timeout() -> StoreError {
        StoreError::indeterminate(Cause::Timeout, "late")
    }

    #[test]
    fn a_call_that_times_out_is_halved_and_grows_again() {
        let sizes = CallSizes::default();
        let took = Duration::from_millis(500);
        assert_eq!(sizes.max_bytes(SHARD), MAX_CALL_BYTES);
        for _ in 0..4 {
            assert!(sizes.note(SHARD, 1 << 20, took, Some(&timeout())), "together");
        }
        assert_eq!(sizes.max_bytes(SHARD), 1 << 19);
        assert_eq!(sizes.max_bytes(Shard(2)), MAX_CALL_BYTES, "another shard");
        sizes.note(SHARD, 1 << 19, Duration::from_millis(400), None);
        assert_eq!(sizes.max_bytes(SHARD), 1 << 19, "it got through just in time");
        sizes.note(SHARD, 1_000, Duration::ZERO, None);
        assert_eq!(sizes.max_bytes(SHARD), 1 << 19, "a small one says nothing");
        for _ in 0..32 {
            assert!(sizes.max_bytes(SHARD) < MAX_CALL_BYTES);
            sizes.note(SHARD, 1 << 20, Duration::from_millis(100), None);
        }
        assert_eq!(sizes.max_bytes(SHARD), MAX_CALL_BYTES);
    }

    #[test]
    fn elements_that_fit_make_a_call_and_one_that_is_too_large_goes_alone() {
        let of = |sizes: &[usize]| fitting(sizes.iter().copied(), 3, 10);
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[11, 1]), 1);
        assert_eq!(of(&[4, 6, 1]), 2);
        assert_eq!(of(&[1, 1, 1, 1]), 3);
    }

    #[test]
    fn a_small_call_and_another_fault_say_nothing_about_the_size() {
        let sizes = CallSizes::default();
        let took = Duration::from_millis(500);
        assert!(!sizes.note(SHARD, SMALL_CALL_BYTES, took, Some(&timeout())));
        let unreachable = StoreError::transient(Cause::Unreachable, "refused");
        assert!(!sizes.note(SHARD, 1 << 20, took, Some(&unreachable)));
        assert_eq!(sizes.max_bytes(SHARD), MAX_CALL_BYTES);
        (0..20).for_each(|_| {
            let bytes = sizes.max_bytes(SHARD).max(SMALL_CALL_BYTES + 1);
            sizes.note(SHARD, bytes, took, Some(&timeout()));
        });
        assert_eq!(sizes.max_bytes(SHARD), SMALL_CALL_BYTES);
    }
}
