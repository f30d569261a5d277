//! The history of an anomaly: its occurrences in buckets of time, each with the count of the 24
//! hours that end with it, which the levels depend on. Stores count the events since given times,
//! and all else follows from these counts.

use std::{collections::BTreeSet, fmt, str::FromStr};

use super::{RETENTION, Timestamp, Window, parse_span};

/// Maximum number of buckets of a history.
pub const MAX_BUCKETS: usize = 1_000;

const DAY_SECONDS: i64 = Window::Day.length_seconds();

/// The number of an anomaly's events at some time or later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CountSince {
    /// The number of events.
    pub count: u64,
    /// True if it may be too high, by the rolled-up events of the bucket that contains the time.
    pub is_approximate: bool,
}

impl CountSince {
    /// Returns the count plus `exact` events.
    #[must_use]
    pub fn plus(self, exact: u64) -> Self {
        Self { count: self.count + exact, ..self }
    }
}

/// The width of a history's buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryStep {
    name: &'static str,
    seconds: i64,
}

/// The error for a text that is not a [`HistoryStep`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be one of 5m, 15m, 30m, 1h, 2h, 6h, 12h, 1d")]
pub struct InvalidHistoryStep;

impl HistoryStep {
    /// All steps, in rising order. Each divides a day.
    pub const ALL: [Self; 8] = [
        Self { name: "5m", seconds: 300 },
        Self { name: "15m", seconds: 900 },
        Self { name: "30m", seconds: 1_800 },
        Self { name: "1h", seconds: 3_600 },
        Self { name: "2h", seconds: 7_200 },
        Self { name: "6h", seconds: 21_600 },
        Self { name: "12h", seconds: 43_200 },
        Self { name: "1d", seconds: 86_400 },
    ];

    /// Returns the step in seconds.
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Returns the default step of a history with this length.
    fn fitting(length_seconds: i64) -> Self {
        let [_, quarter, _, hour, _, quarter_of_day, ..] = Self::ALL;
        if length_seconds <= DAY_SECONDS {
            quarter
        } else if length_seconds <= Window::Week.length_seconds() {
            hour
        } else {
            quarter_of_day
        }
    }

    /// Returns the last multiple of the step that is not later than `time`.
    fn floor(self, time: Timestamp) -> Timestamp {
        let micros = self.seconds * 1_000_000;
        Timestamp::from_micros(time.as_micros().div_euclid(micros) * micros)
    }
}

impl fmt::Display for HistoryStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl FromStr for HistoryStep {
    type Err = InvalidHistoryStep;

    fn from_str(text: &str) -> Result<Self, InvalidHistoryStep> {
        Self::ALL.into_iter().find(|step| step.name == text).ok_or(InvalidHistoryStep)
    }
}

/// The length of a history that ends now: 1 hour to 30 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryWindow {
    seconds: i64,
}

/// The error for a text that is not a [`HistoryWindow`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a whole number with m, h or d, from 1h to 30d, such as 7d")]
pub struct InvalidHistoryWindow;

impl Default for HistoryWindow {
    fn default() -> Self {
        Self { seconds: DAY_SECONDS }
    }
}

impl FromStr for HistoryWindow {
    type Err = InvalidHistoryWindow;

    fn from_str(text: &str) -> Result<Self, InvalidHistoryWindow> {
        let seconds = parse_span(text).ok().and_then(|seconds| i64::try_from(seconds).ok());
        let permitted = 3_600..=RETENTION.length_seconds();
        seconds
            .filter(|seconds| permitted.contains(seconds))
            .map(|seconds| Self { seconds })
            .ok_or(InvalidHistoryWindow)
    }
}

/// The requested period of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedPeriod {
    /// The given length until now.
    Window(HistoryWindow),
    /// Two points in time. Times before the last 30 days or after now are left out.
    Between(Timestamp, Timestamp),
}

/// The reason why there is no history of a period.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPeriod {
    /// No part of it lies within the last 30 days.
    #[error(
        "must be earlier than `to`, and a part of the time between them must be within the last 30 \
         days: older occurrences are not stored"
    )]
    Empty,
    /// It has too many buckets.
    #[error(
        "of {step} gives {buckets} buckets, and the limit is {MAX_BUCKETS}: {smallest} is the \
         smallest step that fits"
    )]
    TooManyBuckets {
        /// The requested step.
        step: HistoryStep,
        /// The number of buckets with that step.
        buckets: i64,
        /// The smallest step with a permitted number of buckets.
        smallest: HistoryStep,
    },
}

/// The buckets of a history. They begin at multiples of the step, and the last one ends with the
/// period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryPeriod {
    now: Timestamp,
    first: Timestamp,
    end: Timestamp,
    step: HistoryStep,
    buckets: usize,
}

/// A bucket of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryBucket {
    /// The beginning of the bucket.
    pub start: Timestamp,
    /// The number of occurrences in the bucket.
    pub count: u64,
    /// The number of occurrences in the 24 hours that end with it; `None` if some of them may have
    /// been older than 30 days.
    pub count_24h: Option<u64>,
    /// False if one of the two counts may be wrong, because of occurrences in a bucket of the
    /// roll-up or of occurrences older than 30 days.
    pub is_exact: bool,
}

impl HistoryPeriod {
    /// Creates the period of a history that is requested at `now`. Without a step, it has the
    /// default step of its length.
    ///
    /// # Errors
    /// Fails if no part of it is kept, or if it has more than [`MAX_BUCKETS`].
    pub fn new(
        now: Timestamp,
        asked: AskedPeriod,
        step: Option<HistoryStep>,
    ) -> Result<Self, InvalidPeriod> {
        let (length_seconds, end) = match asked {
            AskedPeriod::Window(HistoryWindow { seconds }) => (seconds, now),
            AskedPeriod::Between(from, to) => {
                let (from, to) = (from.max(RETENTION.start(now)), to.min(now));
                if from >= to {
                    return Err(InvalidPeriod::Empty);
                }
                let seconds = (to.as_micros() - from.as_micros() + 999_999) / 1_000_000;
                (seconds, to)
            }
        };
        let step = step.unwrap_or_else(|| HistoryStep::fitting(length_seconds));
        let first = |step: HistoryStep| match asked {
            // As many buckets as steps fit into the window.
            AskedPeriod::Window(_) => {
                let others = (length_seconds + step.seconds - 1) / step.seconds - 1;
                step.floor(Timestamp::from_micros(end.as_micros() - 1))
                    .minus_seconds(others * step.seconds)
            }
            AskedPeriod::Between(from, _) => step.floor(from.max(RETENTION.start(now))),
        };
        let buckets = |step: HistoryStep| {
            let (length, width) = (end.as_micros() - first(step).as_micros(), step.seconds);
            (length + width * 1_000_000 - 1) / (width * 1_000_000)
        };
        let fits = |step: &HistoryStep| buckets(*step) <= MAX_BUCKETS as i64;
        if !fits(&step) {
            // A step of a day always fits into 30 days.
            let smallest = HistoryStep::ALL.into_iter().find(fits).unwrap_or(step);
            return Err(InvalidPeriod::TooManyBuckets { step, buckets: buckets(step), smallest });
        }
        let (first, buckets) = (first(step), buckets(step) as usize);
        Ok(Self { now, first, end, step, buckets })
    }

    /// Returns the beginning of the first bucket.
    pub fn start(&self) -> Timestamp {
        self.first
    }

    /// Returns the end of the last bucket.
    pub fn end(&self) -> Timestamp {
        self.end
    }

    /// Returns the width of the buckets.
    pub fn step(&self) -> HistoryStep {
        self.step
    }

    /// Returns the times since which events must be counted, in rising order.
    pub fn times(&self) -> Vec<Timestamp> {
        let mut times = BTreeSet::new();
        for index in 0..self.buckets {
            let end = self.end_of(index);
            times.insert(self.kept(self.start_of(index)));
            times.insert(self.kept(Window::Day.start(end)));
            if end < self.now {
                times.insert(self.kept(end));
            }
        }
        times.into_iter().collect()
    }

    /// Returns the buckets from the counts since [`HistoryPeriod::times`]. An anomaly that became
    /// known within the last 30 days has no older occurrence.
    pub fn buckets(
        &self,
        counts: &[CountSince],
        known_since: Option<Timestamp>,
    ) -> Vec<HistoryBucket> {
        let times = self.times();
        let since = |time: Timestamp| {
            let index = times.binary_search(&self.kept(time)).ok();
            index.and_then(|index| counts.get(index)).copied().unwrap_or_default()
        };
        let oldest = RETENTION.start(self.now);
        let holds_all = |start: Timestamp| {
            start >= oldest || known_since.is_some_and(|known_since| known_since >= oldest)
        };
        let bucket = |index: usize| {
            let (start, end) = (self.start_of(index), self.end_of(index));
            let (since_start, since_day) = (since(start), since(Window::Day.start(end)));
            // Events ahead of the clock already count.
            let since_end = if end < self.now { since(end) } else { CountSince::default() };
            let counts_day = holds_all(Window::Day.start(end));
            let is_approximate = since_start.is_approximate
                || since_end.is_approximate
                || counts_day && since_day.is_approximate;
            HistoryBucket {
                start,
                count: since_start.count.saturating_sub(since_end.count),
                count_24h: counts_day.then(|| since_day.count.saturating_sub(since_end.count)),
                is_exact: !is_approximate && holds_all(start),
            }
        };
        (0..self.buckets).map(bucket).collect()
    }

    fn start_of(&self, index: usize) -> Timestamp {
        self.first.plus_seconds(index as i64 * self.step.seconds)
    }

    fn end_of(&self, index: usize) -> Timestamp {
        self.start_of(index + 1).min(self.end)
    }

    /// Returns `time`, or the beginning of the last 30 days if that is later: older events do not
    /// count, whether or not they are kept.
    fn kept(&self, time: Timestamp) -> Timestamp {
        time.max(RETENTION.start(self.now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    fn now() -> Timestamp {
        at("2026-11-22T15:02:12.5Z")
    }

    fn window(window: &str, step: Option<&str>) -> Result<HistoryPeriod, InvalidPeriod> {
        let asked = AskedPeriod::Window(window.parse().unwrap());
        HistoryPeriod::new(now(), asked, step.map(|step| step.parse().unwrap()))
    }

    fn buckets(period: &HistoryPeriod) -> Vec<HistoryBucket> {
        period.buckets(&vec![CountSince::default(); period.times().len()], Some(now()))
    }

    #[test]
    fn a_window_has_as_many_buckets_as_its_steps_and_ends_now() {
        let week = window("7d", Some("1h")).unwrap();
        assert_eq!(week.start(), at("2026-11-15T16:00:00Z"));
        assert_eq!(week.end(), now());
        assert_eq!(buckets(&week).len(), 168);
        assert_eq!(buckets(&week)[167].start, at("2026-11-22T15:00:00Z"));
        assert_eq!(buckets(&window("90m", Some("1h")).unwrap()).len(), 2);
        let on_the_edge = at("2026-11-22T15:00:00Z");
        let asked = AskedPeriod::Window("2h".parse().unwrap());
        let period = HistoryPeriod::new(on_the_edge, asked, Some("1h".parse().unwrap())).unwrap();
        assert_eq!(period.start(), at("2026-11-22T13:00:00Z"));
        assert_eq!(buckets(&period).len(), 2, "none is empty because it begins at the end");
    }

    #[test]
    fn the_step_follows_from_the_length() {
        let step = |length: &str| window(length, None).unwrap().step().to_string();
        for (length, expected) in [
            ("1h", "15m"),
            ("24h", "15m"),
            ("25h", "1h"),
            ("7d", "1h"),
            ("8d", "6h"),
            ("30d", "6h"),
        ] {
            assert_eq!(step(length), expected, "{length}");
        }
    }

    #[test]
    fn a_period_begins_no_later_than_it_is_asked_for_and_within_what_is_kept() {
        let between = |from: Timestamp, to: Timestamp| {
            HistoryPeriod::new(now(), AskedPeriod::Between(from, to), Some("1h".parse().unwrap()))
        };
        let past = between(at("2026-11-20T10:30:00Z"), at("2026-11-20T12:15:00Z")).unwrap();
        assert_eq!(past.start(), at("2026-11-20T10:00:00Z"));
        assert_eq!(past.end(), at("2026-11-20T12:15:00Z"));
        assert_eq!(buckets(&past).len(), 3);
        let all = between(at("2020-01-01T00:00:00Z"), at("2030-01-01T00:00:00Z")).unwrap();
        assert_eq!((all.start(), all.end()), (at("2026-10-23T15:00:00Z"), now()));
        let gone = between(at("2020-01-01T00:00:00Z"), at("2020-01-02T00:00:00Z"));
        assert_eq!(gone, Err(InvalidPeriod::Empty));
        assert_eq!(between(now(), now()), Err(InvalidPeriod::Empty));
    }

    #[test]
    fn too_many_buckets_are_refused_with_the_smallest_step_that_fits() {
        let refused = window("7d", Some("5m")).unwrap_err();
        let (step, smallest) = ("5m".parse().unwrap(), "15m".parse().unwrap());
        assert_eq!(refused, InvalidPeriod::TooManyBuckets { step, buckets: 2_016, smallest });
        for length in ["1h", "84h", "10d", "20d", "30d"] {
            if let Err(InvalidPeriod::TooManyBuckets { smallest, .. }) = window(length, Some("5m"))
            {
                assert!(window(length, Some(smallest.name)).is_ok(), "{length}");
            }
        }
    }

    #[test]
    fn days_that_reach_behind_what_is_kept_are_not_known_unless_the_anomaly_is_younger() {
        let month = window("30d", None).unwrap();
        let counts = vec![CountSince { count: 3, is_approximate: false }; month.times().len()];
        let unknown = |known_since| {
            let buckets = month.buckets(&counts, known_since);
            buckets.iter().filter(|bucket| bucket.count_24h.is_none()).count()
        };
        assert_eq!(unknown(None), 3);
        assert_eq!(unknown(Some(now().minus_seconds(31 * 86_400))), 3);
        assert_eq!(unknown(Some(now().minus_seconds(29 * 86_400))), 0);
    }

    #[test]
    fn lengths_and_steps_have_their_forms() {
        for length in ["60m", "1h", "720h", "30d", "007d"] {
            assert!(length.parse::<HistoryWindow>().is_ok(), "{length}");
        }
        for length in ["", "m", "59m", "0h", "721h", "31d", "+7d", "7 d", "7D", "1.5h"] {
            assert_eq!(length.parse::<HistoryWindow>(), Err(InvalidHistoryWindow), "{length}");
        }
        for step in HistoryStep::ALL {
            assert_eq!(step.to_string().parse(), Ok(step));
            assert_eq!(DAY_SECONDS % step.seconds(), 0, "{step}");
        }
        assert_eq!("60m".parse::<HistoryStep>(), Err(InvalidHistoryStep));
    }
}
