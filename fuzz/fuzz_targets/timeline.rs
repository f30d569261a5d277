//! Compares a timeline that rolls up early with two plain lists: after each of any operations, its
//! counts, its span and the ids that it knows are right, within the limits that "Bounded timelines"
//! of ARCHITECTURE.md allows.
#![no_main]

use anomaly_counter::domain::{
    COARSE_BUCKET_SECONDS, EventDigest, EventId, FINE_BUCKET_SECONDS, Insertion, RETENTION,
    Timeline, TimelineConfig, Timestamp, Window,
};
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

const WINDOWS: [Window; 4] = [Window::Hour, Window::Day, Window::Week, Window::Month];
/// Number of events from which several are rolled up at once.
const MANY: u32 = 200;
const MAX_STEPS: usize = 100;

#[derive(Arbitrary, Debug)]
struct Run {
    exact_events: ExactEvents,
    start: u32,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum ExactEvents {
    Few(u8),
    Many,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// An event whose id may have come before.
    Insert {
        id: u8,
        age: Age,
    },
    /// Events with ids of their own, some seconds apart.
    Burst {
        events: u8,
        seconds: u8,
        age: Age,
    },
    Forget,
    /// Moves the clock forward, or back.
    WaitSeconds(i16),
    WaitHours(i8),
    WaitDays(u8),
    /// Serializes the timeline and reads it again.
    Reread,
}

/// The age of an event.
#[derive(Arbitrary, Debug)]
enum Age {
    Now,
    Ahead(u8),
    Seconds(u16),
    Hours(u8),
    Days(u8),
    /// At the start of a window, or some microseconds after it.
    Edge(u8, i8),
}

impl Age {
    fn before(&self, now: Timestamp) -> Timestamp {
        match *self {
            Self::Now => now,
            Self::Ahead(seconds) => now.plus_seconds(i64::from(seconds % 61)),
            Self::Seconds(seconds) => now.minus_seconds(seconds.into()),
            Self::Hours(hours) => now.minus_seconds(i64::from(hours) * 3_600),
            Self::Days(days) => now.minus_seconds(i64::from(days % 32) * 86_400),
            Self::Edge(window, micros) => {
                let edge = WINDOWS[usize::from(window) % 4].start(now);
                Timestamp::from_micros(edge.as_micros() + i64::from(micros))
            }
        }
    }
}

type Event = (Timestamp, EventDigest);

/// The naive model: the newest events, and all older ones in the order in which they were rolled
/// up.
#[derive(Default)]
struct Naive {
    exact: Vec<Event>,
    rolled_up: Vec<Event>,
}

impl Naive {
    fn forget_expired(&mut self, now: Timestamp) {
        let start = RETENTION.start(now);
        // Rolled-up events expire together; until then they may count in any window.
        if self.rolled_up.iter().all(|(at, _)| *at < start) {
            self.rolled_up.clear();
        }
        self.exact.retain(|(at, _)| *at >= start);
    }

    fn insert(&mut self, now: Timestamp, event: Event, config: TimelineConfig) -> Insertion {
        let id = event.1;
        let recent = self.rolled_up.iter().rev().take(config.exact_events() / 2);
        let mut inside = recent.filter(|(at, _)| *at >= RETENTION.start(now));
        if inside.any(|known| known.1 == id) || self.exact.iter().any(|known| known.1 == id) {
            return Insertion::Duplicate;
        }
        self.exact.push(event);
        self.exact.sort_by_key(|(at, _)| *at);
        if self.exact.len() > config.exact_events() + config.exact_events() / 100 {
            let surplus = self.exact.len() - config.exact_events();
            self.rolled_up.extend(self.exact.drain(..surplus));
        }
        Insertion::Inserted
    }

    fn times(&self) -> impl Iterator<Item = Timestamp> {
        self.rolled_up.iter().chain(&self.exact).map(|(at, _)| *at)
    }
}

fn since(events: &[Event], from: Timestamp) -> u64 {
    events.iter().filter(|(at, _)| *at >= from).count() as u64
}

fn bucket_start(at: Timestamp, seconds: i64) -> Timestamp {
    let width = seconds * 1_000_000;
    Timestamp::from_micros(at.as_micros().div_euclid(width) * width)
}

/// Returns the earliest event that a window from `from` on may count, if the clock was at `latest`.
fn earliest_counted(from: Timestamp, latest: Timestamp) -> Timestamp {
    if from < RETENTION.start(latest) {
        // With a clock that goes back, events that expired with their bucket may come back.
        return Timestamp::MIN;
    }
    let coarse = bucket_start(from, COARSE_BUCKET_SECONDS);
    if coarse <= Window::Day.start(latest) {
        coarse
    } else {
        bucket_start(from, FINE_BUCKET_SECONDS)
    }
}

fn check(timeline: &Timeline, naive: &Naive, now: Timestamp, latest: Timestamp) {
    let is_approximate = timeline.is_approximate(now);
    assert!(!is_approximate || !naive.rolled_up.is_empty(), "nothing has been rolled up");
    let counts = timeline.counts(now);
    for (window, count) in
        WINDOWS.into_iter().zip([counts.hour, counts.day, counts.week, counts.month])
    {
        let from = window.start(now);
        let exact = since(&naive.exact, from);
        let least = exact + since(&naive.rolled_up, from);
        let most = if is_approximate {
            exact + since(&naive.rolled_up, earliest_counted(from, latest))
        } else {
            least
        };
        assert!((least..=most).contains(&count), "{window:?}: {least} <= {count} <= {most}");
    }

    let start = RETENTION.start(now);
    let oldest = naive.times().filter(|at| *at >= start).min();
    assert_eq!(timeline.span(now).is_some(), oldest.is_some());
    if let (Some((first, newest)), Some(oldest)) = (timeline.span(now), oldest) {
        assert_eq!(Some(newest), naive.times().max());
        if !is_approximate {
            assert_eq!(first, oldest);
        } else if start >= RETENTION.start(latest) {
            let earliest = bucket_start(oldest, COARSE_BUCKET_SECONDS).max(start);
            assert!((earliest..=oldest).contains(&first), "{earliest} <= {first} <= {oldest}");
        }
    }
}

/// The timeline and its model, used as the stores use them.
struct Both {
    timeline: Timeline,
    naive: Naive,
    config: TimelineConfig,
}

impl Both {
    fn insert(&mut self, now: Timestamp, at: Timestamp, id: &str) {
        // The stores refuse older events.
        if at < RETENTION.start(now) {
            return;
        }
        let id = EventId::parse(id).expect("an id").digest();
        self.forget_expired(now);
        let expected = self.naive.insert(now, (at, id), self.config);
        assert_eq!(self.timeline.insert(now, at, id, self.config), expected);
    }

    fn forget_expired(&mut self, now: Timestamp) {
        let expected = self.naive.exact.iter().any(|(at, _)| *at < RETENTION.start(now));
        assert_eq!(self.timeline.has_expired(now), expected);
        assert_eq!(self.timeline.forget_expired(now), expected);
        self.naive.forget_expired(now);
    }

    fn reread(&mut self) {
        let stored = postcard::to_stdvec(&self.timeline).expect("it can be serialized");
        self.timeline = postcard::from_bytes(&stored).expect("it can be read");
    }
}

fuzz_target!(|run: Run| {
    let exact_events = match run.exact_events {
        ExactEvents::Few(number) => u32::from(number % 50) + 1,
        ExactEvents::Many => MANY,
    };
    let exact_events = exact_events.try_into().expect("not zero");
    let config = TimelineConfig { exact_events, operation_ids: exact_events };
    let mut both = Both { timeline: Timeline::default(), naive: Naive::default(), config };
    // A random microsecond within an hour.
    let mut now =
        Timestamp::from_micros(1_774_796_400_000_000 + i64::from(run.start) % 3_600_000_000);
    let mut latest = now;
    for (number, step) in run.steps.iter().take(MAX_STEPS).enumerate() {
        match step {
            Step::Insert { id, age } => both.insert(now, age.before(now), &id.to_string()),
            Step::Burst { events, seconds, age } => {
                for event in 0..i64::from(*events) % 64 {
                    let at = age.before(now).minus_seconds(event * i64::from(*seconds));
                    both.insert(now, at, &format!("{number}-{event}"));
                }
            }
            Step::Forget => both.forget_expired(now),
            Step::WaitSeconds(seconds) => now = now.plus_seconds((*seconds).into()),
            Step::WaitHours(hours) => now = now.plus_seconds(i64::from(*hours) * 3_600),
            Step::WaitDays(days) => now = now.plus_seconds(i64::from(*days % 35) * 86_400),
            Step::Reread => both.reread(),
        }
        latest = latest.max(now);
        check(&both.timeline, &both.naive, now, latest);
    }
});
