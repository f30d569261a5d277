//! The older events of a busy anomaly, rolled up into running totals: the number of events up to
//! the end of each bucket of time. Any window then takes two look-ups, whatever the volume, and is
//! wrong by at most the events of the one bucket that contains its start. `rollup.lua` does the
//! same on Redis.
#![cfg_attr(doc, doc = include_str!("../../docs/design/roll-up.md"))]

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{CountSince, EventDigest, RETENTION, RecentIds, Timestamp, Window};

/// The width of a bucket for events of the last day, in seconds.
pub const FINE_BUCKET_SECONDS: i64 = 120;
/// The width of a bucket for older events, in seconds. With both widths, 30 days have at most some
/// 1,400 buckets.
pub const COARSE_BUCKET_SECONDS: i64 = 3_600;

/// Events that are kept as totals. There is at least one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Rollup {
    /// The oldest event that was ever rolled up.
    first: Timestamp,
    /// Oldest first; the times and the totals rise strictly.
    buckets: VecDeque<Bucket>,
    /// The time before which buckets have the coarse width.
    coarse_before: Timestamp,
    /// The ids of the events that were rolled up last, for recognising a late copy.
    recent_ids: RecentIds,
}

/// A bucket, described by its end.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Bucket {
    /// The time of the newest event in it.
    newest: Timestamp,
    /// The number of events in it and in all buckets before it.
    total: u64,
}

impl Rollup {
    /// Creates a roll-up of one event.
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

    /// Returns true if the id of an event inside 30 days is remembered.
    pub(super) fn has_recent_id(&self, now: Timestamp, id: EventDigest) -> bool {
        self.recent_ids.time_of(id).is_some_and(|at| at >= RETENTION.start(now))
    }

    /// Adds an event, and remembers its id as one of the last `limit`.
    pub(super) fn add(&mut self, now: Timestamp, at: Timestamp, id: EventDigest, limit: usize) {
        self.recent_ids.add(at, id, limit);
        let index = self.bucket_of(now, at);
        self.first = self.first.min(at);
        for bucket in self.buckets.range_mut(index..) {
            bucket.total += 1;
        }
    }

    /// Returns true if this bucket is the base: the first one, after earlier buckets were removed.
    /// Its total includes their events, so it must not end later: all of them would count again for
    /// a window that begins before its new end.
    fn is_base(&self, index: usize) -> bool {
        let begins = |bucket: &Bucket| bucket_start(bucket.newest, COARSE_BUCKET_SECONDS);
        index == 0 && self.buckets.front().is_some_and(|bucket| self.first < begins(bucket))
    }

    /// Returns the index of the bucket that takes an event of the time `at`: the first bucket that
    /// ends no earlier; or the one before it, which then ends later, if its last event is in the
    /// same interval; otherwise, a new bucket. So there are no more buckets than intervals, except
    /// for the base, which takes all events before its end and no later one.
    fn bucket_of(&mut self, now: Timestamp, at: Timestamp) -> usize {
        let width = bucket_seconds(now, at);
        let next = self.buckets.partition_point(|bucket| bucket.newest < at);
        if self.is_base(next)
            || self.buckets.get(next).is_some_and(|next| bucket_start(next.newest, width) <= at)
        {
            return next;
        }
        if let Some(previous) = next.checked_sub(1)
            && !self.is_base(previous)
            && bucket_start(at, width) <= self.buckets[previous].newest
        {
            self.buckets[previous].newest = at;
            return previous;
        }
        let bucket = Bucket { newest: at, total: self.total_before(next) };
        self.buckets.insert(next, bucket);
        next
    }

    /// Returns the number of events at `start` or later, including all events of a bucket that
    /// `start` cuts.
    pub(super) fn count_since(&self, start: Timestamp) -> u64 {
        let index = self.buckets.partition_point(|bucket| bucket.newest < start);
        self.total_before(self.buckets.len()) - self.total_before(index)
    }

    /// Returns true if a window that begins at `start` may cut a bucket.
    pub(super) fn is_cut_by(&self, start: Timestamp) -> bool {
        self.first < start && start <= self.edge()
    }

    /// Returns the running totals of all its buckets.
    pub(super) fn running_totals(&self) -> RunningTotals {
        RunningTotals {
            first: self.first,
            edge: self.edge(),
            total: self.total_before(self.buckets.len()),
            before: 0,
            buckets: self.buckets.iter().map(|bucket| (bucket.newest, bucket.total)).collect(),
        }
    }

    /// Returns the time of the oldest event at `start` or later: exact if `start` cuts no bucket;
    /// otherwise, the beginning of its bucket.
    pub(super) fn oldest_since(&self, start: Timestamp) -> Option<Timestamp> {
        let index = self.buckets.partition_point(|bucket| bucket.newest < start);
        let bucket = self.buckets.get(index)?;
        if start <= self.first {
            return Some(self.first);
        }
        Some(bucket_start(bucket.newest, COARSE_BUCKET_SECONDS).max(start))
    }

    /// Makes the buckets of more than a day ago coarse, and removes the expired ones except the
    /// newest, which becomes the base. (If the base and the next bucket are in the same hour and
    /// become one, both have expired: hours expire as a whole, and so does a base when it is made.)
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
        let start = RETENTION.start(now);
        let expired = self.buckets.partition_point(|bucket| bucket.newest < start);
        self.buckets.drain(..expired.saturating_sub(1));
    }

    fn total_before(&self, index: usize) -> u64 {
        index.checked_sub(1).map_or(0, |last| self.buckets[last].total)
    }
}

/// The running totals of a roll-up: all of them, or those since some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningTotals {
    /// The oldest event that was ever rolled up.
    pub first: Timestamp,
    /// The newest rolled-up event.
    pub edge: Timestamp,
    /// The number of rolled-up events.
    pub total: u64,
    /// The number of rolled-up events in the buckets before `buckets`.
    pub before: u64,
    /// The time of each bucket's newest event, and the number of events in the bucket and all
    /// before it. Oldest first.
    pub buckets: Vec<(Timestamp, u64)>,
}

impl RunningTotals {
    /// Returns the number of rolled-up events at a time or later, including all events of a bucket
    /// that the time cuts. The time is not before the first of `buckets`.
    pub fn since(&self, now: Timestamp, time: Timestamp) -> CountSince {
        if time <= self.first || time > self.edge {
            let count = if time <= self.first { self.total } else { 0 };
            return CountSince { count, is_approximate: false };
        }
        let index = self.buckets.partition_point(|(newest, _)| *newest < time);
        let before = index.checked_sub(1).map_or(self.before, |last| self.buckets[last].1);
        let is_approximate = self.buckets.get(index).is_some_and(|(newest, _)| {
            // The base also includes the events of removed buckets.
            let is_base = index == 0
                && self.before == 0
                && self.first < bucket_start(*newest, COARSE_BUCKET_SECONDS);
            is_base || bucket_start(*newest, bucket_seconds(now, *newest)) < time
        });
        CountSince { count: self.total.saturating_sub(before), is_approximate }
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
