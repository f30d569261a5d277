//! The times at which one anomaly happened, in order, each with the digest of its event id.
//! It keeps every event exactly; the embedded store keeps one for each anomaly.

use std::collections::{HashSet, VecDeque};

use serde::{Deserialize, Serialize, Serializer};

use super::{EventDigest, RETENTION, Timestamp, Window, WindowCounts};

/// An anomaly's events, oldest first.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "VecDeque<Event>")]
pub struct Timeline {
    events: VecDeque<Event>,
    /// The ids of `events`: a retry may carry another time, so the order does not find it.
    ids: HashSet<EventDigest>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Event {
    at: Timestamp,
    id: EventDigest,
}

/// What became of an event handed to [`Timeline::insert`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insertion {
    /// It is in the timeline, and was not before.
    Inserted,
    /// Its id was there already; the first one's time stands.
    Duplicate,
}

impl Timeline {
    /// Adds an event at its place in time, unless its id is known.
    pub fn insert(&mut self, at: Timestamp, id: EventDigest) -> Insertion {
        if !self.ids.insert(id) {
            return Insertion::Duplicate;
        }
        // Most events are the newest: then this is the end, and nothing moves.
        let place = self.events.partition_point(|event| event.at <= at);
        self.events.insert(place, Event { at, id });
        Insertion::Inserted
    }

    /// Takes an event out again.
    pub fn remove(&mut self, id: EventDigest) {
        if self.ids.remove(&id)
            // The oldest first: what was put in first is mostly what is taken out first.
            && let Some(place) = self.events.iter().position(|event| event.id == id)
        {
            self.events.remove(place);
        }
    }

    /// Forgets what has left the longest window, and says whether there was any.
    pub fn forget_expired(&mut self, now: Timestamp) -> bool {
        let expired = self.first_inside(RETENTION, now);
        for event in self.events.drain(..expired) {
            self.ids.remove(&event.id);
        }
        if self.events.len() < self.events.capacity() / 4 {
            self.events.shrink_to_fit();
            self.ids.shrink_to_fit();
        }
        expired > 0
    }

    /// How many events each window holds at `now`.
    pub fn counts(&self, now: Timestamp) -> WindowCounts {
        let count = |window| (self.events.len() - self.first_inside(window, now)) as u64;
        WindowCounts {
            hour: count(Window::Hour),
            day: count(Window::Day),
            week: count(Window::Week),
            month: count(Window::Month),
        }
    }

    /// The times of the oldest and the newest event inside the longest window at `now`.
    pub fn span(&self, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let oldest = self.events.get(self.first_inside(RETENTION, now))?;
        self.events.back().map(|newest| (oldest.at, newest.at))
    }

    /// Whether there are events older than 30 days to forget.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.first_inside(RETENTION, now) > 0
    }

    fn first_inside(&self, window: Window, now: Timestamp) -> usize {
        let start = window.start(now);
        self.events.partition_point(|event| event.at < start)
    }
}

impl From<VecDeque<Event>> for Timeline {
    fn from(events: VecDeque<Event>) -> Self {
        let ids = events.iter().map(|event| event.id).collect();
        Self { events, ids }
    }
}

impl Serialize for Timeline {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.events.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::EventId;

    fn id(name: &str) -> EventDigest {
        EventId::parse(name).unwrap().digest()
    }

    #[test]
    fn both_ends_of_a_window_are_inside() {
        let now = Timestamp::from_micros(1_774_799_738_123_456);
        let mut timeline = Timeline::default();
        for (window, name) in
            [(Window::Hour, "h"), (Window::Day, "d"), (Window::Week, "w"), (Window::Month, "m")]
        {
            timeline.insert(window.start(now), id(name));
        }
        let on_the_edge = timeline.counts(now);
        assert_eq!(on_the_edge, WindowCounts { hour: 1, day: 2, week: 3, month: 4 });

        let later = Timestamp::from_micros(now.as_micros() + 1);
        assert_eq!(timeline.counts(later), WindowCounts { hour: 0, day: 1, week: 2, month: 3 });
    }

    #[test]
    fn a_late_event_takes_its_place_in_time() {
        let now = Timestamp::from_micros(0).plus_seconds(1_774_799_738);
        let mut timeline = Timeline::default();
        timeline.insert(now, id("newest"));
        timeline.insert(now.minus_seconds(90_000), id("late"));
        assert_eq!(timeline.counts(now), WindowCounts { hour: 1, day: 1, week: 2, month: 2 });
        assert_eq!(timeline.span(now), Some((now.minus_seconds(90_000), now)));
    }

    #[test]
    fn what_has_left_is_forgotten_with_its_id() {
        let now = Timestamp::from_micros(0).plus_seconds(1_774_799_738);
        let mut timeline = Timeline::default();
        timeline.insert(now, id("a"));
        assert_eq!(timeline.insert(now.plus_seconds(5), id("a")), Insertion::Duplicate);
        let later = now.plus_seconds(RETENTION.length_seconds() + 1);
        assert!(timeline.forget_expired(later));
        assert_eq!(timeline.span(later), None);
        assert_eq!(timeline.insert(later, id("a")), Insertion::Inserted);
    }
}
