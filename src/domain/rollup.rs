//! The older events of a busy anomaly, kept as numbers: how many there were up to the end of each bucket
//! of time. Any window is then two look-ups, whatever the volume, and wrong by at most the events of
//! the one bucket that its start cuts.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{EventDigest, RETENTION, Timestamp, Window};

/// How wide a bucket is, in seconds, for events of the last day and for older ones.
pub const FINE_BUCKET_SECONDS: i64 = 120;
/// As above.
pub const COARSE_BUCKET_SECONDS: i64 = 3_600;

/// Events that are kept as numbers. It holds one at least.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Rollup {
    /// The oldest event that was ever folded.
    first: Timestamp,
    /// Oldest first; the times and the totals rise strictly.
    buckets: VecDeque<Bucket>,
    /// Before this time buckets are coarse.
    coarse_before: Timestamp,
    remembered: Remembered,
}

/// The end of a bucket.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Bucket {
    /// The newest event in it.
    newest: Timestamp,
    /// Events in it and in all before it.
    total: u64,
}

impl Rollup {
    /// Folds an anomaly's first event.
    pub(super) fn new(at: Timestamp, id: EventDigest, limit: usize) -> Self {
        let mut remembered = Remembered::default();
        remembered.note(at, id, limit);
        Self {
            first: at,
            buckets: VecDeque::from([Bucket { newest: at, total: 1 }]),
            coarse_before: Timestamp::MIN,
            remembered,
        }
    }

    /// The newest of the folded events: what is later is kept exactly.
    pub(super) fn edge(&self) -> Timestamp {
        self.buckets.back().map_or(Timestamp::MIN, |bucket| bucket.newest)
    }

    /// Whether the id of an event that is inside 30 days is remembered.
    pub(super) fn remembers(&self, now: Timestamp, id: EventDigest) -> bool {
        self.remembered.times.get(&id).is_some_and(|at| *at >= RETENTION.start(now))
    }

    /// Adds an event, and remembers its id as one of the last `limit`.
    pub(super) fn add(&mut self, now: Timestamp, at: Timestamp, id: EventDigest, limit: usize) {
        self.remembered.note(at, id, limit);
        self.first = self.first.min(at);
        // The bucket that takes it is the first that ends no earlier, or a later end of the last.
        let place = self.buckets.partition_point(|bucket| bucket.newest < at);
        let total_before = self.total_before(place);
        let width = bucket_seconds(now, at);
        let starts_by = |bucket: &Bucket| bucket_start(bucket.newest, width) <= at;
        if place == self.buckets.len() {
            let last = self.buckets.back_mut();
            match last.filter(|last| bucket_start(at, width) <= last.newest) {
                Some(last) => *last = Bucket { newest: at, total: total_before + 1 },
                None => self.buckets.push_back(Bucket { newest: at, total: total_before + 1 }),
            }
            return;
        }
        if !starts_by(&self.buckets[place]) {
            self.buckets.insert(place, Bucket { newest: at, total: total_before });
        }
        for bucket in self.buckets.range_mut(place..) {
            bucket.total += 1;
        }
    }

    /// Events at `start` or later, counting all of a bucket that `start` cuts.
    pub(super) fn count_since(&self, start: Timestamp) -> u64 {
        let place = self.buckets.partition_point(|bucket| bucket.newest < start);
        self.total_before(self.buckets.len()) - self.total_before(place)
    }

    /// Whether a window that begins at `start` may cut a bucket.
    pub(super) fn is_cut_by(&self, start: Timestamp) -> bool {
        self.first < start && start <= self.edge()
    }

    /// The oldest event at `start` or later: exactly while `start` cuts nothing, else to its bucket.
    pub(super) fn oldest_since(&self, start: Timestamp) -> Option<Timestamp> {
        let place = self.buckets.partition_point(|bucket| bucket.newest < start);
        let bucket = self.buckets.get(place)?;
        if start <= self.first {
            return Some(self.first);
        }
        Some(bucket_start(bucket.newest, COARSE_BUCKET_SECONDS).max(start))
    }

    /// Makes the buckets of more than a day ago coarse, and forgets those that have left.
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
        // The newest of those that have left says how many had been before the others.
        let start = RETENTION.start(now);
        let expired = self.buckets.partition_point(|bucket| bucket.newest < start);
        self.buckets.drain(..expired.saturating_sub(1));
    }

    fn total_before(&self, place: usize) -> u64 {
        place.checked_sub(1).map_or(0, |last| self.buckets[last].total)
    }
}

/// How wide the bucket of an event is that is folded at `now`.
fn bucket_seconds(now: Timestamp, at: Timestamp) -> i64 {
    if at < Window::Day.start(now) { COARSE_BUCKET_SECONDS } else { FINE_BUCKET_SECONDS }
}

fn bucket_start(at: Timestamp, seconds: i64) -> Timestamp {
    let width = seconds * 1_000_000;
    Timestamp::from_micros(at.as_micros().div_euclid(width) * width)
}

/// The ids of the last events that were folded, by which a late copy of one is known.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "VecDeque<(Timestamp, EventDigest)>", into = "VecDeque<(Timestamp, EventDigest)>")]
struct Remembered {
    order: VecDeque<(Timestamp, EventDigest)>,
    times: HashMap<EventDigest, Timestamp>,
}

impl Remembered {
    fn note(&mut self, at: Timestamp, id: EventDigest, limit: usize) {
        self.order.push_back((at, id));
        self.times.insert(id, at);
        while self.order.len() > limit
            && let Some((at, id)) = self.order.pop_front()
        {
            // The same id may have come again after its first copy had left.
            if self.times.get(&id) == Some(&at) {
                self.times.remove(&id);
            }
        }
    }
}

impl From<VecDeque<(Timestamp, EventDigest)>> for Remembered {
    fn from(order: VecDeque<(Timestamp, EventDigest)>) -> Self {
        let times = order.iter().map(|(at, id)| (*id, *at)).collect();
        Self { order, times }
    }
}

impl From<Remembered> for VecDeque<(Timestamp, EventDigest)> {
    fn from(remembered: Remembered) -> Self {
        remembered.order
    }
}
