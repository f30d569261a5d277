//! The times at which one anomaly happened, in order: the newest events exactly, each with the
//! digest of its id, and older ones rolled up (`rollup.rs`). The embedded store keeps a timeline
//! for each anomaly.

use std::collections::{HashSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::{CountSince, EventDigest, RETENTION, Timestamp, Window, WindowCounts, rollup::Rollup};

/// Maximum number of events that are searched linearly for an id. Most anomalies never have more,
/// and an index takes more memory than the events.
const MAX_SEARCHED: usize = 32;

/// Maximum number of events that one insertion rolls up. More than one, so that a timeline that is
/// too long becomes shorter.
const ROLLED_UP_AT_ONCE: usize = 500;

/// The events of one anomaly.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    /// Oldest first. Late events are older than the newest rolled-up event, until they are rolled
    /// up too.
    events: VecDeque<Event>,
    /// The ids of `events` if there are many: a retry may carry another time, so the order does not
    /// find it. Boxed, because most anomalies have no index.
    #[expect(clippy::box_collection, reason = "an empty box takes a sixth of an empty set")]
    index: Option<Box<HashSet<EventDigest>>>,
    rollup: Option<Box<Rollup>>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Event {
    at: Timestamp,
    id: EventDigest,
}

/// The outcome of [`Timeline::insert`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insertion {
    /// The event is new, and was added.
    Inserted,
    /// Its id is already known. The time of the first copy stays.
    Duplicate,
}

/// The section `timeline` of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimelineConfig {
    /// Number of an anomaly's newest events that are kept exactly; older ones are rolled up.
    pub exact_events: std::num::NonZeroU32,
    /// Number of an anomaly's newest repairs, marks and removals whose ids are remembered.
    pub operation_ids: std::num::NonZeroU32,
}

impl TimelineConfig {
    /// Returns the number of events above the exact ones at which they are rolled up: many at once
    /// cost little more than one.
    pub fn rollup_batch(self) -> usize {
        self.exact_events() / 100
    }

    /// Returns the number of ids of rolled-up events that are remembered.
    pub fn recent_ids(self) -> usize {
        self.exact_events() / 2
    }

    /// Returns the number of an anomaly's newest events that are kept exactly.
    pub fn exact_events(self) -> usize {
        self.exact_events.get() as usize
    }

    /// Returns the number of ids of repairs, marks and removals that are remembered.
    pub fn operation_ids(self) -> usize {
        self.operation_ids.get() as usize
    }
}

impl Timeline {
    /// Adds an event in the order of time, unless its id is known. If there are too many events,
    /// rolls up some of the oldest: those of more than a day before the horizon go into coarse
    /// buckets.
    pub fn insert(
        &mut self,
        horizon: Timestamp,
        at: Timestamp,
        id: EventDigest,
        config: TimelineConfig,
    ) -> Insertion {
        let is_recent =
            self.rollup.as_ref().is_some_and(|rollup| rollup.has_recent_id(horizon, id));
        if is_recent || self.contains(id) {
            return Insertion::Duplicate;
        }
        self.insert_exactly(at, id);
        self.roll_up(horizon, config);
        Insertion::Inserted
    }

    /// Removes the events that have left the longest window. Returns true if one of them was kept
    /// exactly.
    pub fn forget_expired(&mut self, horizon: Timestamp) -> bool {
        let start = RETENTION.start(horizon);
        if self.rollup.as_ref().is_some_and(|rollup| rollup.edge() < start) {
            self.rollup = None;
        }
        if let Some(rollup) = &mut self.rollup {
            rollup.tidy(horizon);
        }
        let expired = self.first_inside(RETENTION, horizon);
        for _ in 0..expired {
            if let Some(event) = self.events.pop_front() {
                self.unindex(event.id);
            }
        }
        if self.events.len() < self.events.capacity() / 4 {
            self.events.shrink_to_fit();
        }
        expired > 0
    }

    /// Returns the number of events in each window at `now`. The numbers are exact, unless
    /// [`Timeline::is_approximate`].
    pub fn counts(&self, now: Timestamp) -> WindowCounts {
        let count = |window: Window| self.count_since(window.start(now));
        WindowCounts {
            hour: count(Window::Hour),
            day: count(Window::Day),
            week: count(Window::Week),
            month: count(Window::Month),
        }
    }

    /// Returns the number of events at `start` or later: too high by the events of the bucket that
    /// `start` cuts, if it [cuts one](Timeline::cuts_bucket).
    pub fn count_since(&self, start: Timestamp) -> u64 {
        let exact = (self.events.len() - self.first_since(start)) as u64;
        exact + self.rollup.as_ref().map_or(0, |rollup| rollup.count_since(start))
    }

    /// Returns true if `start` may cut a bucket.
    pub fn cuts_bucket(&self, start: Timestamp) -> bool {
        self.rollup.as_ref().is_some_and(|rollup| rollup.is_cut_by(start))
    }

    /// Returns the time of the oldest event that is kept exactly.
    pub fn oldest_exact(&self) -> Option<Timestamp> {
        self.events.front().map(|event| event.at)
    }

    /// Returns the times of the newest events that are kept exactly, at most `count`.
    pub fn newest(&self, count: usize) -> Vec<Timestamp> {
        self.events.iter().rev().take(count).map(|event| event.at).collect()
    }

    /// Returns the number of events at each of `times` or later, as they are known at `now`.
    pub fn counts_since(&self, now: Timestamp, times: &[Timestamp]) -> Vec<CountSince> {
        let totals = self.rollup.as_ref().map(|rollup| rollup.running_totals());
        let since = |time: &Timestamp| {
            let older = self.events.partition_point(|event| event.at < *time);
            let rolled_up = totals.as_ref().map(|totals| totals.since(now, *time));
            rolled_up.unwrap_or_default().plus((self.events.len() - older) as u64)
        };
        times.iter().map(since).collect()
    }

    /// Returns true if a count may be too high by the events of the bucket that its window's start
    /// cuts.
    pub fn is_approximate(&self, now: Timestamp) -> bool {
        let windows = [Window::Hour, Window::Day, Window::Week, Window::Month];
        windows.into_iter().any(|window| self.cuts_bucket(window.start(now)))
    }

    /// Returns the times of the oldest and the newest event inside the longest window at `now`.
    pub fn span(&self, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let rollup = self.rollup.as_ref();
        let rolled_up = rollup.and_then(|rollup| rollup.oldest_since(RETENTION.start(now)));
        let exact = self.events.get(self.first_inside(RETENTION, now)).map(|event| event.at);
        let oldest = rolled_up.into_iter().chain(exact).min()?;
        let edge = rollup.map(|rollup| rollup.edge());
        let newest = self.events.back().map(|event| event.at).into_iter().chain(edge).max()?;
        Some((oldest, newest))
    }

    /// Returns true if exact events are older than 30 days and must be removed.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.first_inside(RETENTION, now) > 0
    }

    /// Returns true if there are events, and all of them are older than 30 days.
    pub fn has_only_expired(&self, horizon: Timestamp) -> bool {
        let edge = self.rollup.as_ref().map(|rollup| rollup.edge());
        let newest = self.events.back().map(|event| event.at).max(edge);
        newest.is_some_and(|newest| newest < RETENTION.start(horizon))
    }

    fn contains(&self, id: EventDigest) -> bool {
        match &self.index {
            Some(index) => index.contains(&id),
            None => self.events.iter().any(|event| event.id == id),
        }
    }

    fn insert_exactly(&mut self, at: Timestamp, id: EventDigest) {
        if self.events.len() == self.events.capacity() && self.events.len() < 4 {
            // A million anomalies have one event each: doubling the capacity from four would take
            // most of their memory.
            self.events.reserve_exact(1);
        }
        match self.events.back() {
            Some(newest) if newest.at > at => {
                let index = self.events.partition_point(|event| event.at <= at);
                self.events.insert(index, Event { at, id });
            }
            _ => self.events.push_back(Event { at, id }),
        }
        match &mut self.index {
            Some(index) => {
                index.insert(id);
            }
            None => self.index_where_many(),
        }
    }

    fn index_where_many(&mut self) {
        if self.events.len() > MAX_SEARCHED {
            self.index = Some(Box::new(self.events.iter().map(|event| event.id).collect()));
        }
    }

    fn unindex(&mut self, id: EventDigest) {
        if let Some(index) = &mut self.index {
            index.remove(&id);
            if index.len() <= MAX_SEARCHED / 2 {
                self.index = None;
            }
        }
    }

    /// Rolls up the oldest events if there are too many, up to a limit per call.
    fn roll_up(&mut self, horizon: Timestamp, config: TimelineConfig) {
        let surplus = self.events.len().saturating_sub(config.exact_events());
        if surplus <= config.rollup_batch() {
            return;
        }
        for _ in 0..surplus.min(ROLLED_UP_AT_ONCE) {
            let Some(Event { at, id }) = self.events.pop_front() else { break };
            self.unindex(id);
            let recent_ids = config.recent_ids();
            match &mut self.rollup {
                Some(rollup) => rollup.add(horizon, at, id, recent_ids),
                None => self.rollup = Some(Box::new(Rollup::new(at, id, recent_ids))),
            }
        }
        if let Some(rollup) = &mut self.rollup {
            rollup.tidy(horizon);
        }
    }

    fn first_inside(&self, window: Window, now: Timestamp) -> usize {
        self.first_since(window.start(now))
    }

    fn first_since(&self, start: Timestamp) -> usize {
        match self.events.front() {
            // For most anomalies, all events are inside.
            Some(oldest) if oldest.at < start => {
                self.events.partition_point(|event| event.at < start)
            }
            _ => 0,
        }
    }
}

/// The form in which a timeline is stored. The order of the fields is part of the file format.
#[derive(Serialize, Deserialize)]
struct Stored<E, R> {
    events: E,
    rollup: R,
}

impl Serialize for Timeline {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Stored { events: &self.events, rollup: &self.rollup }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Timeline {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Stored { events, rollup } =
            Stored::<VecDeque<Event>, Option<Box<Rollup>>>::deserialize(deserializer)?;
        let mut timeline = Self { events, index: None, rollup };
        timeline.index_where_many();
        Ok(timeline)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{COARSE_BUCKET_SECONDS, EventId, FINE_BUCKET_SECONDS};

    const DAY: i64 = 86_400;

    fn id(name: &str) -> EventDigest {
        EventId::parse(name).unwrap().digest()
    }

    fn config(exact_events: u32) -> TimelineConfig {
        let operation_ids = 10.try_into().unwrap();
        TimelineConfig { exact_events: exact_events.try_into().unwrap(), operation_ids }
    }

    fn start() -> Timestamp {
        Timestamp::from_micros(1_774_799_738_123_456)
    }

    #[test]
    fn both_ends_of_a_window_are_inside() {
        let now = start();
        let mut timeline = Timeline::default();
        for (window, name) in
            [(Window::Hour, "h"), (Window::Day, "d"), (Window::Week, "w"), (Window::Month, "m")]
        {
            timeline.insert(now, window.start(now), id(name), config(10));
        }
        let on_the_edge = timeline.counts(now);
        assert_eq!(on_the_edge, WindowCounts { hour: 1, day: 2, week: 3, month: 4 });

        let later = Timestamp::from_micros(now.as_micros() + 1);
        assert_eq!(timeline.counts(later), WindowCounts { hour: 0, day: 1, week: 2, month: 3 });
    }

    #[test]
    fn a_late_event_is_inserted_in_the_order_of_time() {
        let now = start();
        let mut timeline = Timeline::default();
        timeline.insert(now, now, id("newest"), config(10));
        timeline.insert(now, now.minus_seconds(90_000), id("late"), config(10));
        assert_eq!(timeline.counts(now), WindowCounts { hour: 1, day: 1, week: 2, month: 2 });
        assert_eq!(timeline.span(now), Some((now.minus_seconds(90_000), now)));
    }

    #[test]
    fn an_expired_event_is_forgotten_with_its_id() {
        let now = start();
        for exact_events in [2, 100] {
            let config = config(exact_events);
            let mut timeline = Timeline::default();
            for name in ["a", "b", "c"] {
                timeline.insert(now, now, id(name), config);
            }
            let again = timeline.insert(now, now.plus_seconds(5), id("c"), config);
            assert_eq!(again, Insertion::Duplicate);
            let later = now.plus_seconds(RETENTION.length_seconds() + 1);
            assert!(timeline.forget_expired(later));
            assert_eq!(timeline.span(later), None);
            assert_eq!(timeline.counts(later), WindowCounts::default());
            for name in ["a", "b", "c"] {
                let again = timeline.insert(later, later, id(name), config);
                assert_eq!(again, Insertion::Inserted);
            }
        }
    }

    #[test]
    fn ids_are_known_among_the_exact_events_and_the_last_that_were_rolled_up() {
        let now = start();
        let mut timeline = Timeline::default();
        for n in 0..20 {
            timeline.insert(now, now.plus_seconds(n), id(&n.to_string()), config(10));
        }
        let mut again = |n: i64| timeline.insert(now, now, id(&n.to_string()), config(10));
        for n in 5..20 {
            assert_eq!(again(n), Insertion::Duplicate, "{n}");
        }
        assert_eq!(again(4), Insertion::Inserted, "its id is no longer remembered");
    }

    #[test]
    fn buckets_are_fine_for_as_long_as_the_horizon_is_no_day_after_them() {
        let now = start();
        let counts = |horizon: Timestamp| {
            let mut timeline = Timeline::default();
            for n in 0..100 {
                let at = now.minus_seconds(7_000 - n * 70);
                timeline.forget_expired(horizon);
                timeline.insert(horizon, at, id(&n.to_string()), config(10));
            }
            timeline.counts(now)
        };
        let fine = counts(now);
        assert!((51..=53).contains(&fine.hour), "{fine:?}");
        assert_eq!(counts(Timestamp::MIN), fine);
        let coarse = counts(now.plus_seconds(2 * DAY));
        assert!(coarse.hour > fine.hour && coarse.month == fine.month, "{coarse:?}");
    }

    #[test]
    fn a_key_takes_no_more_for_a_hundred_thousand_events() {
        let mut timeline = Timeline::default();
        let mut now = start();
        for n in 0..100_000_i64 {
            now = now.plus_seconds(30);
            timeline.forget_expired(now);
            timeline.insert(now, now, id(&n.to_string()), config(1_000));
        }
        assert!(timeline.events.len() <= 1_010);
        let stored = postcard::to_stdvec(&timeline).unwrap();
        assert!(stored.len() < 100_000, "{} bytes", stored.len());
        // 30 days with an event every 30 s; the oldest bucket may be cut.
        let month = timeline.counts(now).month;
        assert!((86_401..=86_401 + 120).contains(&month), "{month}");
        assert!(timeline.is_approximate(now));
    }

    #[test]
    fn late_events_take_no_more_whatever_their_order() {
        let now = start();
        for step in [1, -1] {
            let mut timeline = Timeline::default();
            timeline.insert(now, now.minus_seconds(80_000), id("old"), config(10));
            for n in 0..20 {
                timeline.insert(now, now.minus_seconds(20 - n), id(&format!("{n}")), config(10));
            }
            for n in 0..10_000 {
                let at = Timestamp::from_micros(now.minus_seconds(40_000).as_micros() + step * n);
                timeline.insert(now, at, id(&format!("late-{n}")), config(10));
            }
            assert_eq!(timeline.counts(now).day, 10_021);
            let stored = postcard::to_stdvec(&timeline).unwrap();
            assert!(stored.len() < 1_000, "{} bytes", stored.len());
        }
    }

    #[test]
    fn a_timeline_that_is_too_long_is_rolled_up_in_pieces() {
        let now = start();
        let mut timeline = Timeline::default();
        for n in 0..3_000 {
            timeline.insert(now, now.minus_seconds(3_000 - n), id(&n.to_string()), config(5_000));
        }
        for n in 3_000..3_010 {
            let before = timeline.events.len();
            timeline.insert(now, now, id(&n.to_string()), config(10));
            assert!(before + 1 - timeline.events.len() <= ROLLED_UP_AT_ONCE);
            assert_eq!(timeline.counts(now).day, n as u64 + 1);
        }
        assert_eq!(timeline.events.len(), 10);
    }

    proptest! {
        /// Totals are exact, and a window is wrong by at most the bucket that contains its start.
        #[test]
        fn a_rollup_errs_by_one_bucket_at_most(
            ages in prop::collection::vec(0..29 * DAY, 1..200),
            look in 0..DAY,
            exact_events in 1..50_u32,
        ) {
            let now = start();
            let mut timeline = Timeline::default();
            for (n, age) in ages.iter().enumerate() {
                let at = now.minus_seconds(*age);
                timeline.insert(now, at, id(&n.to_string()), config(exact_events));
            }
            let later = now.plus_seconds(look);
            timeline.forget_expired(later);
            let since = |from: Timestamp| {
                ages.iter().filter(|age| now.minus_seconds(**age) >= from).count() as u64
            };
            let bucket_of = |from: Timestamp, seconds: i64| {
                let width = seconds * 1_000_000;
                Timestamp::from_micros(from.as_micros().div_euclid(width) * width)
            };
            let counts = timeline.counts(later);
            for (window, count) in [
                (Window::Hour, counts.hour),
                (Window::Day, counts.day),
                (Window::Week, counts.week),
                (Window::Month, counts.month),
            ] {
                let from = window.start(later);
                let seconds = match window {
                    Window::Hour => FINE_BUCKET_SECONDS,
                    _ => COARSE_BUCKET_SECONDS,
                };
                let most = since(bucket_of(from, seconds));
                prop_assert!((since(from)..=most).contains(&count), "{window:?} {count}");
                if !timeline.is_approximate(later) {
                    prop_assert_eq!(count, since(from));
                }
            }
            let all = timeline.counts(now.minus_seconds(DAY));
            prop_assert_eq!(all.month, ages.len() as u64);
        }
    }
}
