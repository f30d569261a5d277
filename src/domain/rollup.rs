//! The older events of a busy anomaly, rolled up: their number up to the end of each bucket of
//! time. Any window then takes two look-ups, whatever the volume, and is wrong by at most the
//! events of the one bucket that its start cuts. `rollup.lua` does the same on Redis.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{EventDigest, RETENTION, Timestamp, Window};

/// The width of a bucket for events of the last day.
pub const FINE_BUCKET_SECONDS: i64 = 120;
/// The width of a bucket for older events.
pub const COARSE_BUCKET_SECONDS: i64 = 3_600;

/// Events that are kept as numbers. There is at least one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Rollup {
    /// The oldest event that was ever rolled up.
    first: Timestamp,
    /// Oldest first; the times and the totals rise strictly.
    buckets: VecDeque<Bucket>,
    /// The time before which buckets are coarse.
    coarse_before: Timestamp,
    recent_ids: RecentIds,
}

/// The end of a bucket.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Bucket {
    /// The time of the newest event in it.
    newest: Timestamp,
    /// Events in it and in all before it.
    total: u64,
}

impl Rollup {
    /// A roll-up of one event.
    pub(super) fn new(at: Timestamp, id: EventDigest, limit: usize) -> Self {
        let mut recent_ids = RecentIds::default();
        recent_ids.add(at, id, limit);
        Self {
            first: at,
            buckets: VecDeque::from([Bucket { newest: at, total: 1 }]),
            coarse_before: Timestamp::MIN,
            recent_ids,
        }
    }

    /// Returns the time of the newest rolled-up event. Later events are kept exactly.
    pub(super) fn edge(&self) -> Timestamp {
        self.buckets.back().map_or(Timestamp::MIN, |bucket| bucket.newest)
    }

    /// Returns true if the id is remembered, of an event that is inside 30 days.
    pub(super) fn has_recent_id(&self, now: Timestamp, id: EventDigest) -> bool {
        self.recent_ids.times.get(&id).is_some_and(|at| *at >= RETENTION.start(now))
    }

    /// Adds an event, and remembers its id as one of the last `limit`.
    pub(super) fn add(&mut self, now: Timestamp, at: Timestamp, id: EventDigest, limit: usize) {
        self.recent_ids.add(at, id, limit);
        self.first = self.first.min(at);
        // The first bucket that ends no earlier takes it, or the last one, which then ends later.
        let index = self.buckets.partition_point(|bucket| bucket.newest < at);
        let total_before = self.total_before(index);
        let width = bucket_seconds(now, at);
        let starts_by = |bucket: &Bucket| bucket_start(bucket.newest, width) <= at;
        if index == self.buckets.len() {
            let last = self.buckets.back_mut();
            match last.filter(|last| bucket_start(at, width) <= last.newest) {
                Some(last) => *last = Bucket { newest: at, total: total_before + 1 },
                None => self.buckets.push_back(Bucket { newest: at, total: total_before + 1 }),
            }
            return;
        }
        if !starts_by(&self.buckets[index]) {
            self.buckets.insert(index, Bucket { newest: at, total: total_before });
        }
        for bucket in self.buckets.range_mut(index..) {
            bucket.total += 1;
        }
    }

    /// Returns the number of events at `start` or later, with all of a bucket that `start` cuts.
    pub(super) fn count_since(&self, start: Timestamp) -> u64 {
        let index = self.buckets.partition_point(|bucket| bucket.newest < start);
        self.total_before(self.buckets.len()) - self.total_before(index)
    }

    /// Returns true if a window that begins at `start` may cut a bucket.
    pub(super) fn is_cut_by(&self, start: Timestamp) -> bool {
        self.first < start && start <= self.edge()
    }

    /// Returns the time of the oldest event at `start` or later: exact if `start` cuts no bucket,
    /// else the beginning of its bucket.
    pub(super) fn oldest_since(&self, start: Timestamp) -> Option<Timestamp> {
        let index = self.buckets.partition_point(|bucket| bucket.newest < start);
        let bucket = self.buckets.get(index)?;
        if start <= self.first {
            return Some(self.first);
        }
        Some(bucket_start(bucket.newest, COARSE_BUCKET_SECONDS).max(start))
    }

    /// Makes the buckets of more than a day ago coarse, and removes the expired ones.
    pub(super) fn tidy(&mut self, now: Timestamp) {
        let coarse_before = bucket_start(Window::Day.start(now), COARSE_BUCKET_SECONDS);
        if coarse_before > self.coarse_before {
            self.coarse_before = coarse_before;
            let hour = |bucket: &Bucket| bucket_start(bucket.newest, COARSE_BUCKET_SECONDS);
            let next: Vec<_> = self.buckets.iter().skip(1).map(hour).collect();
            let mut next = next.into_iter();
            self.buckets.retain(|bucket| {
                bucket.newest >= coarse_before || next.next() != Some(hour(bucket))
            });
        }
        // The newest of the expired ones holds the number of events before the others.
        let start = RETENTION.start(now);
        let expired = self.buckets.partition_point(|bucket| bucket.newest < start);
        self.buckets.drain(..expired.saturating_sub(1));
    }

    fn total_before(&self, index: usize) -> u64 {
        index.checked_sub(1).map_or(0, |last| self.buckets[last].total)
    }
}

/// Returns the width of the bucket of an event that is rolled up at `now`.
fn bucket_seconds(now: Timestamp, at: Timestamp) -> i64 {
    if at < Window::Day.start(now) { COARSE_BUCKET_SECONDS } else { FINE_BUCKET_SECONDS }
}

fn bucket_start(at: Timestamp, seconds: i64) -> Timestamp {
    let width = seconds * 1_000_000;
    Timestamp::from_micros(at.as_micros().div_euclid(width) * width)
}

/// The ids of the last events that were rolled up, by which a late copy of one is recognised.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "VecDeque<(Timestamp, EventDigest)>", into = "VecDeque<(Timestamp, EventDigest)>")]
struct RecentIds {
    order: VecDeque<(Timestamp, EventDigest)>,
    times: HashMap<EventDigest, Timestamp>,
}

impl RecentIds {
    fn add(&mut self, at: Timestamp, id: EventDigest, limit: usize) {
        self.order.push_back((at, id));
        self.times.insert(id, at);
        while self.order.len() > limit
            && let Some((at, id)) = self.order.pop_front()
        {
            // The same id may have come again after its first copy had expired.
            if self.times.get(&id) == Some(&at) {
                self.times.remove(&id);
            }
        }
    }
}

impl From<VecDeque<(Timestamp, EventDigest)>> for RecentIds {
    fn from(order: VecDeque<(Timestamp, EventDigest)>) -> Self {
        let times = order.iter().map(|(at, id)| (*id, *at)).collect();
        Self { order, times }
    }
}

impl From<RecentIds> for VecDeque<(Timestamp, EventDigest)> {
    fn from(ids: RecentIds) -> Self {
        ids.order
    }
}
