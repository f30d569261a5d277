//! Detects a store that hangs repeatedly for less than the command timeout. That is no outage: all
//! calls succeed, but every caller waits. One slow call is not reported, because a server may fork
//! or a network may lose a packet; several of them within a minute are.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::store::Shard;

/// Minimum duration of a slow call. The objective for requests is the same (`AnomalyCounterSlow` in
/// deploy/prometheus/rules.yaml).
pub(crate) const SLOW: Duration = Duration::from_millis(250);

/// Number of hangs within [`WINDOW`] that make a shard slow.
const HANGS: usize = 3;
const WINDOW: Duration = Duration::from_secs(60);
/// Slow calls that end within this time of the first one are one hang: they waited together.
const ONE_HANG: Duration = Duration::from_secs(1);
/// Time without a slow call after which a shard is no longer slow.
const QUIET: Duration = Duration::from_secs(60);

/// The shards that have answered slowly.
#[derive(Debug, Default)]
pub(crate) struct Slowness {
    by_shard: HashMap<Shard, Hangs>,
}

#[derive(Debug)]
struct Hangs {
    /// The start times of the last hangs, oldest first.
    began_at: VecDeque<Instant>,
    last_at: Instant,
    /// The time at which the shard was found to be slow.
    slow_since: Option<Instant>,
}

impl Slowness {
    /// Notes a slow call that has just ended. Returns true if its shard is slow from now on.
    pub(crate) fn note(&mut self, now: Instant, shard: Shard) -> bool {
        let new = || Hangs { began_at: VecDeque::new(), last_at: now, slow_since: None };
        let hangs = self.by_shard.entry(shard).or_insert_with(new);
        hangs.last_at = now;
        if hangs.began_at.back().is_none_or(|at| now.saturating_duration_since(*at) >= ONE_HANG) {
            hangs.began_at.push_back(now);
        }
        if hangs.began_at.len() > HANGS {
            hangs.began_at.pop_front();
        }
        let is_slow = hangs.began_at.len() == HANGS
            && hangs.began_at.front().is_some_and(|at| now.saturating_duration_since(*at) < WINDOW);
        let begins = is_slow && hangs.slow_since.is_none();
        if begins {
            hangs.slow_since = Some(now);
        }
        begins
    }

    /// Forgets shards without a recent slow call. Returns how long each shard that was found to be
    /// slow was slow.
    pub(crate) fn end(&mut self, now: Instant) -> Vec<Duration> {
        let is_quiet = |hangs: &mut Hangs| now.saturating_duration_since(hangs.last_at) >= QUIET;
        let ended = self.by_shard.extract_if(|_, hangs| is_quiet(hangs));
        ended
            .filter_map(|(_, hangs)| {
                Some(hangs.last_at.saturating_duration_since(hangs.slow_since?))
            })
            .collect()
    }

    /// Forgets a shard that does not answer at all.
    pub(crate) fn forget(&mut self, shard: Shard) {
        self.by_shard.remove(&shard);
    }

    /// Returns the number of slow shards.
    pub(crate) fn shards(&self) -> usize {
        self.by_shard.values().filter(|hangs| hangs.slow_since.is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: Shard = Shard(1);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_hang_is_nothing_however_many_calls_wait_for_it() {
        let (mut slowness, begin) = (Slowness::default(), Instant::now());
        for call in 0..100 {
            assert!(!slowness.note(begin + Duration::from_millis(call), SHARD));
        }
        assert_eq!(slowness.shards(), 0);
    }

    #[test]
    fn a_shard_that_hangs_three_times_in_a_minute_is_slow_until_it_is_quiet_for_a_minute() {
        let (mut slowness, begin) = (Slowness::default(), Instant::now());
        assert!(!slowness.note(begin, SHARD));
        assert!(!slowness.note(begin + seconds(20), SHARD));
        assert!(!slowness.note(begin + seconds(20), Shard(2)), "another shard");
        assert!(slowness.note(begin + seconds(59), SHARD));
        assert!(!slowness.note(begin + seconds(70), SHARD), "it is known");
        assert_eq!(slowness.shards(), 1);
        assert!(slowness.end(begin + seconds(129)).is_empty());
        assert_eq!(slowness.end(begin + seconds(130)), [seconds(11)]);
        assert_eq!(slowness.shards(), 0);
    }

    #[test]
    fn hangs_that_are_further_apart_are_no_slowness() {
        let (mut slowness, begin) = (Slowness::default(), Instant::now());
        for hang in 0..100 {
            assert!(!slowness.note(begin + seconds(hang * 31), SHARD), "{hang}");
        }
    }

    #[test]
    fn a_shard_that_does_not_answer_at_all_is_slow_no_longer() {
        let (mut slowness, begin) = (Slowness::default(), Instant::now());
        for hang in 0..3 {
            slowness.note(begin + seconds(hang), SHARD);
        }
        assert_eq!(slowness.shards(), 1);
        slowness.forget(SHARD);
        assert_eq!(slowness.shards(), 0);
    }
}
