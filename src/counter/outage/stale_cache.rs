//! The last known state of anomalies, for answers while the store gives none. Bounded in number and
//! bytes. A count that is lower than an earlier reply said shows here: the store has lost events.

use std::num::NonZeroUsize;

use lru::LruCache;

use crate::{
    domain::{AnomalyKey, AnomalyStats, RETENTION, RecentAttempt, RepairHistory, Timestamp},
    store::AnomalyDetails,
};

/// Lead of an entry over a new reply from which the clock was set back in between, in seconds.
const SET_BACK_SECONDS: i64 = 60;

/// Maximum difference of the clocks of instances, in seconds: events that have left for one of
/// them are gone for all.
const SKEW_SECONDS: i64 = 60;

/// The last known state of anomalies. The least recently used is evicted first.
#[derive(Debug)]
pub(crate) struct StaleCache {
    entries: LruCache<AnomalyKey, StaleEntry>,
    /// Approximate size of `entries`.
    bytes: usize,
    limit: NonZeroUsize,
    max_bytes: usize,
}

/// Approximate size of an entry without details, with what the cache itself needs for it.
const ENTRY_BYTES: usize = size_of::<StaleEntry>() + 96;

/// The last known state of an anomaly.
#[derive(Clone, Debug)]
pub(crate) struct StaleEntry {
    /// When the stats were current.
    pub(crate) as_of: Timestamp,
    pub(crate) stats: AnomalyStats,
    /// The details, where they have been read.
    pub(crate) details: Option<Box<AnomalyDetails>>,
    /// Absent where the last reply does not bound later ones.
    floor: Option<Floor>,
}

/// A bound for the replies to later calls: they have no lower count for as long as all of these
/// events are inside 30 days.
#[derive(Clone, Copy, Debug)]
struct Floor {
    count: u64,
    first_seen: Timestamp,
    /// Only calls that began later are bound.
    arrived_at: Timestamp,
}

/// A count of 30 days that fell, although none of its events had left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fall {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// The beginning of a call to the store, and the arrival of its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallTimes {
    pub(crate) began_at: Timestamp,
    pub(crate) arrived_at: Timestamp,
}

impl Floor {
    fn of(arrived_at: Timestamp, stats: &AnomalyStats) -> Option<Self> {
        let first_seen = stats.first_seen.filter(|_| !stats.is_approximate)?;
        Some(Self { count: stats.counts.month, first_seen, arrived_at })
    }
}

impl StaleEntry {
    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.details.as_deref().map_or(0, details_bytes)
    }

    /// Compares the count of a reply with the earlier ones, and remembers it for later ones.
    fn compare(&mut self, times: CallTimes, stats: &AnomalyStats) -> Option<Fall> {
        let CallTimes { began_at, arrived_at } = times;
        let Some(floor) = self.floor else {
            self.floor = Floor::of(arrived_at, stats);
            return None;
        };
        // A reply to a call that overlapped the earlier one says nothing, and must not push the
        // floor's time ahead: under load one call would always overlap the next.
        if began_at <= floor.arrived_at {
            return None;
        }
        self.floor = Floor::of(arrived_at, stats);
        // Calls are executed in batches, with the time of the latest of them.
        let may_have_left = RETENTION.start(arrived_at).plus_seconds(SKEW_SECONDS);
        let are_inside = floor.first_seen >= may_have_left;
        let (from, to) = (floor.count, stats.counts.month);
        (are_inside && !stats.is_approximate && to < from).then_some(Fall { from, to })
    }
}

impl StaleCache {
    pub(crate) fn new(limit: NonZeroUsize, max_bytes: usize) -> Self {
        // A cache with a capacity would allocate all of its memory at once.
        Self { entries: LruCache::unbounded(), bytes: 0, limit, max_bytes }
    }

    pub(crate) fn get(&mut self, key: AnomalyKey) -> Option<&StaleEntry> {
        self.entries.get(&key)
    }

    /// Updates the stats of an anomaly. Returns the fall of its count, if it fell.
    pub(crate) fn update_stats(
        &mut self,
        key: AnomalyKey,
        times: CallTimes,
        stats: &AnomalyStats,
    ) -> Option<Fall> {
        let as_of = times.began_at;
        let Some(entry) = self.entries.get_mut(&key) else {
            let (stats, floor) = (stats.clone(), Floor::of(times.arrived_at, stats));
            self.insert(key, StaleEntry { as_of, stats, details: None, floor });
            return None;
        };
        if entry.as_of > times.arrived_at.plus_seconds(SET_BACK_SECONDS) {
            (entry.as_of, entry.floor) = (Timestamp::MIN, None);
        }
        // Batches may come back in another order than they were sent.
        if entry.as_of <= as_of {
            entry.as_of = as_of;
            entry.stats = stats.clone();
        }
        entry.compare(times, stats)
    }

    /// Updates the stats and the details of an anomaly. Returns the fall of its count, if it fell.
    pub(crate) fn update_details(
        &mut self,
        key: AnomalyKey,
        times: CallTimes,
        details: &AnomalyDetails,
    ) -> Option<Fall> {
        let fall = self.update_stats(key, times, &details.stats);
        if let Some(entry) = self.entries.get_mut(&key) {
            self.bytes -= entry.bytes();
            (entry.as_of, entry.stats) = (times.began_at, details.stats.clone());
            // One must not evict all others.
            let fits = details_bytes(details) <= self.max_bytes / 4;
            entry.details = fits.then(|| Box::new(details.clone()));
            self.bytes += entry.bytes();
            self.evict();
        }
        fall
    }

    /// Notes that the store does not know an anomaly. Returns the fall of its count, if it fell.
    pub(crate) fn note_unknown(&mut self, key: AnomalyKey, times: CallTimes) -> Option<Fall> {
        self.entries.get_mut(&key)?.compare(times, &AnomalyStats::default())
    }

    /// Updates the repairs of an anomaly that has an entry.
    pub(crate) fn update_repairs(&mut self, key: AnomalyKey, history: &RepairHistory) {
        if let Some(entry) = self.entries.get_mut(&key) {
            self.bytes -= entry.bytes();
            entry.stats.repair_attempts = history.total;
            if let Some(details) = &mut entry.details {
                details.repairs = history.clone();
            }
            self.bytes += entry.bytes();
            self.evict();
        }
    }

    /// Removes an anomaly, whose next count may be lower.
    pub(crate) fn remove(&mut self, key: AnomalyKey) {
        if let Some(entry) = self.entries.pop(&key) {
            self.bytes -= entry.bytes();
        }
    }

    fn insert(&mut self, key: AnomalyKey, entry: StaleEntry) {
        self.bytes += entry.bytes();
        self.entries.put(key, entry);
        self.evict();
    }

    fn evict(&mut self) {
        while (self.bytes > self.max_bytes || self.entries.len() > self.limit.get())
            && let Some((_, evicted)) = self.entries.pop_lru()
        {
            self.bytes -= evicted.bytes();
        }
    }
}

/// Returns the approximate size of details in memory.
fn details_bytes(details: &AnomalyDetails) -> usize {
    let AnomalyDetails { signature_json, fix, repairs, .. } = details;
    let fix = fix.as_ref().map_or(0, |fix| {
        [&fix.description, &fix.fixed_by].into_iter().flatten().map(String::len).sum()
    });
    let repairs = repairs.recent.iter().map(|a| size_of::<RecentAttempt>() + a.action.len());
    let signature = signature_json.as_ref().map_or(0, String::len);
    size_of::<AnomalyDetails>() + signature + fix + repairs.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::domain::WindowCounts;

    const KEY: AnomalyKey = AnomalyKey::from_bits(7);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(1_774_799_738_000_000).plus_seconds(second)
    }

    fn times(began: i64, arrived: i64) -> CallTimes {
        CallTimes { began_at: at(began), arrived_at: at(arrived) }
    }

    fn stats(month: u64, first_seen: Timestamp) -> AnomalyStats {
        let counts = WindowCounts { hour: 0, day: 0, week: 0, month };
        AnomalyStats { counts, first_seen: Some(first_seen), ..AnomalyStats::default() }
    }

    fn cache() -> StaleCache {
        StaleCache::new(NonZeroUsize::new(10).unwrap(), 64 << 10)
    }

    #[test]
    fn a_count_that_is_lower_than_an_earlier_reply_fell() {
        let mut cache = cache();
        assert_eq!(cache.update_stats(KEY, times(0, 1), &stats(7, at(0))), None);
        assert_eq!(cache.update_stats(KEY, times(2, 3), &stats(8, at(0))), None);
        let fall = Some(Fall { from: 8, to: 1 });
        assert_eq!(cache.update_stats(KEY, times(4, 5), &stats(1, at(0))), fall);
        assert_eq!(cache.update_stats(KEY, times(6, 7), &stats(2, at(0))), None, "once");
        let fall = Some(Fall { from: 2, to: 0 });
        assert_eq!(cache.note_unknown(KEY, times(8, 9)), fall, "unknown all at once");
    }

    #[test]
    fn a_reply_says_nothing_about_a_call_that_overlaps_it() {
        let mut cache = cache();
        cache.update_stats(KEY, times(0, 2), &stats(7, at(0)));
        assert_eq!(cache.update_stats(KEY, times(1, 3), &stats(6, at(0))), None);
        // The one that was not overlapped still bounds the next.
        let fall = Some(Fall { from: 7, to: 6 });
        assert_eq!(cache.update_stats(KEY, times(3, 4), &stats(6, at(0))), fall);
    }

    #[test]
    fn what_is_ahead_because_the_clock_was_set_back_gives_way() {
        let mut cache = cache();
        let day = 86_400;
        cache.update_stats(KEY, times(40 * day, 40 * day + 1), &stats(7, at(40 * day)));
        assert_eq!(cache.update_stats(KEY, times(2, 3), &stats(6, at(0))), None, "it says nothing");
        let entry = cache.get(KEY).unwrap();
        assert_eq!(entry.as_of, at(2));
        assert_eq!(entry.stats.counts.month, 6);
        let fall = Some(Fall { from: 6, to: 5 });
        assert_eq!(cache.update_stats(KEY, times(4, 5), &stats(5, at(0))), fall);
    }

    #[test]
    fn events_that_may_have_left_and_approximate_counts_are_no_fall() {
        let mut cache = cache();
        let month = 30 * 86_400;
        cache.update_stats(KEY, times(0, 1), &stats(7, at(65 - month)));
        assert_eq!(cache.update_stats(KEY, times(2, 6), &stats(6, at(0))), None, "one has left");
        let approximate = |count| AnomalyStats { is_approximate: true, ..stats(count, at(0)) };
        assert_eq!(cache.update_stats(KEY, times(8, 9), &approximate(5)), None);
        assert_eq!(cache.update_stats(KEY, times(10, 11), &stats(4, at(0))), None);
    }

    proptest! {
        /// Two instances share a store, from which the one whose clock is ahead removes what has
        /// expired for it. Calls are executed with any time up to the reply.
        #[test]
        fn events_that_expire_for_an_instance_whose_clock_is_ahead_are_no_fall(
            ages in vec(0..90_i64, 1..30),
            calls in vec((0..20_i64, 0..10_i64, 0..10_i64, 0..=SKEW_SECONDS, 0..4), 1..20),
        ) {
            let expiry = |age: i64| RETENTION.start(at(age));
            let mut events: Vec<Timestamp> = ages.into_iter().map(expiry).collect();
            let (mut cache, mut now, mut lost) = (cache(), 0, 0);
            for (pause, executed, arrived, ahead, kind) in calls {
                let (began, executed) = (now + pause, now + pause + executed);
                now = executed + arrived;
                events.retain(|event| *event >= expiry(executed + ahead));
                if kind == 0 && events.pop().is_some() {
                    lost += 1;
                }
                let inside = events.iter().filter(|event| **event >= expiry(executed));
                let first_seen = inside.clone().min().copied();
                let month = inside.count() as u64;
                let counts = WindowCounts { month, ..WindowCounts::default() };
                let stats = AnomalyStats { counts, first_seen, ..AnomalyStats::default() };
                let fall = cache.update_stats(KEY, times(began, now), &stats);
                prop_assert!(lost > 0 || fall.is_none(), "{fall:?}");
            }
        }
    }

    #[test]
    fn the_least_recently_used_details_are_evicted_for_their_bytes() {
        let mut cache = cache();
        let text = Some("x".repeat(15 << 10));
        let details = AnomalyDetails { signature_json: text, ..AnomalyDetails::default() };
        let key = AnomalyKey::from_bits;
        for number in 0..5 {
            cache.update_details(key(number), times(0, 1), &details);
            assert!(cache.bytes <= cache.max_bytes, "{}", cache.bytes);
            assert!(cache.get(key(number)).is_some(), "the newest stays");
        }
        assert!(cache.get(key(1)).is_some() && cache.get(key(0)).is_none());
        let text = Some("x".repeat(100 << 10));
        let too_large = AnomalyDetails { signature_json: text, ..AnomalyDetails::default() };
        cache.update_details(key(9), times(0, 1), &too_large);
        assert!(cache.get(key(9)).is_some_and(|entry| entry.details.is_none()));
        for number in 50..100 {
            cache.update_stats(key(number), times(0, 1), &AnomalyStats::default());
        }
        assert_eq!((cache.entries.len(), cache.bytes), (10, 10 * ENTRY_BYTES));
    }
}
