//! The last known state of anomalies, for answers while the store does not answer: repairs and
//! marks, and the counts of recently requested anomalies. (The catalogue has the counts of all.)
//! Bounded in bytes. A count that is lower than in an earlier reply is detected here: the store has
//! lost events.

use lru::LruCache;

use super::stale_entry::{CallTimes, ENTRY_BYTES, Fall, StaleEntry};
use crate::{
    domain::{AnomalyKey, AnomalyStats, PermanentFix, RepairHistory},
    store::AnomalyDetails,
};

/// The last known state of anomalies. The least recently used is evicted first.
#[derive(Debug)]
pub(crate) struct StaleCache {
    entries: LruCache<AnomalyKey, StaleEntry>,
    /// Approximate size of `entries` in bytes.
    bytes: usize,
    max_bytes: usize,
}

impl StaleCache {
    pub(crate) fn new(max_bytes: usize) -> Self {
        // Not created with a capacity, which would allocate all of its memory at once.
        Self { entries: LruCache::unbounded(), bytes: 0, max_bytes }
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
        self.update_recorded(key, times, stats, 0)
    }

    /// Updates the stats of an anomaly, which this call has raised by `added`. Returns the fall of
    /// its count, if it fell.
    pub(crate) fn update_recorded(
        &mut self,
        key: AnomalyKey,
        times: CallTimes,
        stats: &AnomalyStats,
        added: u64,
    ) -> Option<Fall> {
        self.change(key, times, |entry| entry.update_stats(times, stats, added))
    }

    /// Compares stats that are not adopted yet with the known ones, as `update_recorded` does.
    pub(crate) fn compare(
        &mut self,
        key: AnomalyKey,
        times: CallTimes,
        stats: &AnomalyStats,
        added: u64,
    ) -> Option<Fall> {
        self.entries.peek_mut(&key)?.compare(times, stats, added)
    }

    /// Updates the stats and the details of an anomaly. Returns the fall of its count, if it fell.
    pub(crate) fn update_details(
        &mut self,
        key: AnomalyKey,
        times: CallTimes,
        details: &AnomalyDetails,
    ) -> Option<Fall> {
        self.change(key, times, |entry| entry.update_details(times, details))
    }

    /// Notes that the store does not know an anomaly. Returns the fall of its count, if it fell.
    pub(crate) fn note_unknown(&mut self, key: AnomalyKey, times: CallTimes) -> Option<Fall> {
        let (fall, is_later) = self.entries.get_mut(&key)?.note_unknown(times);
        if is_later {
            self.remove(key);
        }
        fall
    }

    /// Updates the repairs of an anomaly. `are_in_stats` says that none of them also waits.
    pub(crate) fn update_repairs(
        &mut self,
        key: AnomalyKey,
        times: CallTimes,
        history: &RepairHistory,
        are_in_stats: bool,
    ) {
        self.change(key, times, |entry| entry.update_repairs(times, history, are_in_stats));
    }

    /// Adds the repairs of an anomaly to its stats, after none of them waits any more.
    pub(crate) fn settle_repairs(&mut self, key: AnomalyKey) {
        if let Some(entry) = self.entries.peek_mut(&key) {
            entry.settle_repairs();
        }
    }

    /// Updates the mark of an anomaly, which was just set or removed.
    pub(crate) fn update_fix(
        &mut self,
        key: AnomalyKey,
        times: CallTimes,
        fix: Option<&PermanentFix>,
    ) {
        self.change(key, times, |entry| entry.update_fix(times, fix));
    }

    /// Removes an anomaly, whose next count may be lower.
    pub(crate) fn remove(&mut self, key: AnomalyKey) {
        if let Some(entry) = self.entries.pop(&key) {
            self.bytes -= entry.bytes();
        }
    }

    fn change<R>(
        &mut self,
        key: AnomalyKey,
        times: CallTimes,
        change: impl FnOnce(&mut StaleEntry) -> R,
    ) -> R {
        if !self.entries.contains(&key) {
            self.bytes += ENTRY_BYTES;
        }
        let entry = self.entries.get_or_insert_mut(key, || StaleEntry::new(times.arrived_at));
        let bytes_before = entry.bytes();
        let result = change(entry);
        // A single anomaly must not evict all others.
        entry.limit_details(self.max_bytes / 4);
        self.bytes = self.bytes - bytes_before + entry.bytes();
        self.evict();
        result
    }

    fn evict(&mut self) {
        while self.bytes > self.max_bytes
            && let Some((_, evicted)) = self.entries.pop_lru()
        {
            self.bytes -= evicted.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::{super::stale_entry::SKEW_SECONDS, *};
    use crate::domain::{KnownMark, RETENTION, RecentAttempt, Timestamp, WindowCounts};

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
        StaleCache::new(64 << 10)
    }

    fn fell(expected: u64, to: u64, seen: i64) -> Option<Fall> {
        Some(Fall { expected, to, seen_at: at(seen) })
    }

    #[test]
    fn a_count_that_is_lower_than_an_earlier_reply_fell() {
        let mut cache = cache();
        assert_eq!(cache.update_stats(KEY, times(0, 1), &stats(7, at(0))), None);
        assert_eq!(cache.update_stats(KEY, times(2, 3), &stats(8, at(0))), None);
        assert_eq!(cache.update_stats(KEY, times(4, 5), &stats(1, at(0))), fell(8, 1, 3));
        assert_eq!(cache.update_stats(KEY, times(6, 7), &stats(2, at(0))), None, "once");
        assert_eq!(cache.note_unknown(KEY, times(8, 9)), fell(2, 0, 7), "unknown all at once");
    }

    #[test]
    fn what_a_call_has_added_must_be_in_its_reply() {
        let mut cache = cache();
        assert_eq!(cache.update_recorded(KEY, times(0, 1), &stats(2, at(0)), 1), None);
        assert_eq!(cache.update_recorded(KEY, times(2, 3), &stats(3, at(0)), 1), None);
        assert_eq!(cache.update_recorded(KEY, times(4, 5), &stats(3, at(0)), 1), fell(4, 3, 3));
        assert_eq!(cache.compare(KEY, times(6, 7), &stats(1, at(0)), 1), fell(4, 1, 5));
        assert_eq!(cache.update_recorded(KEY, times(6, 7), &stats(4, at(0)), 1), None, "once");
    }

    #[test]
    fn a_reply_says_nothing_about_a_call_that_overlaps_it() {
        let mut cache = cache();
        cache.update_stats(KEY, times(0, 2), &stats(7, at(0)));
        assert_eq!(cache.update_stats(KEY, times(1, 3), &stats(6, at(0))), None);
        // The reply that did not overlap still bounds the next one.
        assert_eq!(cache.update_stats(KEY, times(3, 4), &stats(6, at(0))), fell(7, 6, 2));
    }

    #[test]
    fn what_is_ahead_because_the_clock_was_set_back_gives_way() {
        let mut cache = cache();
        let day = 86_400;
        cache.update_stats(KEY, times(40 * day, 40 * day + 1), &stats(7, at(40 * day)));
        assert_eq!(cache.update_stats(KEY, times(2, 3), &stats(6, at(0))), None, "it says nothing");
        let seen = cache.get(KEY).unwrap().stats(at(3));
        assert_eq!(seen.as_of, at(2));
        assert_eq!(seen.value.counts.month, 6);
        assert_eq!(cache.update_stats(KEY, times(4, 5), &stats(5, at(0))), fell(6, 5, 3));
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
        /// Two instances share a store, and the instance whose clock is ahead removes events that
        /// have expired by its clock. Calls are executed with any time up to the reply.
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
        assert!(cache.get(key(9)).is_some_and(|entry| entry.details().0.is_none()));
        for number in 50..1_000 {
            cache.update_stats(key(number), times(0, 1), &AnomalyStats::default());
        }
        let room = (64 << 10) / ENTRY_BYTES;
        assert_eq!((cache.entries.len(), cache.bytes), (room, room * ENTRY_BYTES));
    }

    fn history(attempts: u64) -> RepairHistory {
        let mut history = RepairHistory::default();
        for _ in 0..attempts {
            let (action, success) = ("restart".to_owned(), false);
            history.push(RecentAttempt { action, success, at: None });
        }
        history
    }

    #[test]
    fn repairs_and_marks_are_kept_without_stats_and_say_nothing_of_counts() {
        let mut cache = cache();
        cache.update_repairs(KEY, times(3, 4), &history(5), true);
        let seen = cache.get(KEY).unwrap().stats(at(5));
        assert_eq!((seen.as_of, seen.value.is_partial), (at(3), true));
        assert_eq!(seen.value.mark, KnownMark::Unknown);
        cache.update_fix(KEY, times(1, 2), None);
        let seen = cache.get(KEY).unwrap().stats(at(5));
        assert_eq!((seen.as_of, seen.value.mark), (at(2), KnownMark::Absent));
        assert_eq!(cache.get(KEY).unwrap().repairs().unwrap().value.total, 5);
    }

    #[test]
    fn what_was_written_wins_over_a_read_that_overlaps_it() {
        let mut cache = cache();
        let details = AnomalyDetails { stats: stats(1, at(0)), ..AnomalyDetails::default() };
        let fix = PermanentFix { description: None, fixed_by: None, marked_at: at(1) };
        cache.update_fix(KEY, times(1, 4), Some(&fix));
        cache.update_repairs(KEY, times(1, 4), &history(1), true);
        cache.update_details(KEY, times(3, 5), &details);
        let entry = cache.get(KEY).unwrap();
        assert_eq!(entry.stats(at(5)).value.mark, KnownMark::SetAt(at(1)));
        assert_eq!(entry.repairs().unwrap().value.total, 1);
        cache.update_details(KEY, times(6, 7), &details);
        let entry = cache.get(KEY).unwrap();
        assert_eq!(entry.stats(at(7)).value.mark, KnownMark::Absent);
        assert_eq!(entry.repairs().unwrap().value.total, 0, "it was forgotten, and began anew");
    }

    #[test]
    fn of_an_anomaly_that_the_store_does_not_know_nothing_is_known() {
        let mut cache = cache();
        cache.update_repairs(KEY, times(0, 2), &history(5), true);
        cache.note_unknown(KEY, times(1, 3));
        assert!(cache.get(KEY).is_some(), "the repair may have come later");
        cache.note_unknown(KEY, times(4, 5));
        assert!(cache.get(KEY).is_none());
        assert_eq!(cache.bytes, 0);
    }

    #[test]
    fn a_history_that_lacks_attempts_is_forgotten() {
        let mut cache = cache();
        cache.update_repairs(KEY, times(0, 1), &history(2), true);
        let of = |repair_attempts| AnomalyStats { repair_attempts, ..stats(1, at(0)) };
        cache.update_stats(KEY, times(2, 3), &of(2));
        assert!(cache.get(KEY).unwrap().repairs().is_some());
        cache.update_stats(KEY, times(4, 5), &of(3));
        assert!(cache.get(KEY).unwrap().repairs().is_none());
        assert_eq!(cache.get(KEY).unwrap().stats(at(6)).value.repair_attempts, Some(3));
    }
}
