//! Counts how often an operation was refused alone while its server took others. An error that
//! comes and goes must not condemn it, so refusals count only with some time between them.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

/// Number of refusals from which an operation is at fault itself.
const ENOUGH: u32 = 3;
/// Minimum time between two refusals that count.
const INTERVAL: Duration = Duration::from_secs(1);

/// The operations that were refused alone, by sequence.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    by_sequence: HashMap<u64, (u32, Instant)>,
}

impl Refusals {
    /// Counts a refusal at `now`, and returns whether there were enough.
    pub(crate) fn are_enough(&mut self, now: Instant, sequence: u64) -> bool {
        let (count, last) = self.by_sequence.entry(sequence).or_insert((0, now));
        if *count == 0 || now - *last >= INTERVAL {
            *count += 1;
            *last = now;
        }
        *count >= ENOUGH
    }

    /// Forgets an operation that waits no longer.
    pub(crate) fn forget(&mut self, sequence: u64) {
        self.by_sequence.remove(&sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_refusals_with_a_second_between_them_are_enough() {
        let mut refusals = Refusals::default();
        let begin = Instant::now();
        for _ in 0..5 {
            assert!(!refusals.are_enough(begin, 7), "all at once");
        }
        assert!(!refusals.are_enough(begin + INTERVAL, 7));
        assert!(!refusals.are_enough(begin + INTERVAL, 8), "another one");
        assert!(refusals.are_enough(begin + INTERVAL * 2, 7));
    }
}
