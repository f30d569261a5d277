//! The known stats of an anomaly: all of them if a store has answered, and the stats that this
//! instance has seen in an outage. An unknown value is a case of its own, never a zero.

use super::{
    AnomalyStats, Counts, ExtraCount, Firing, PermanentFix, RETENTION, RepairHistory, Signature,
    Timestamp, Window, WindowCounts,
};

/// The known part of an anomaly's stats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownStats {
    /// Events in each window: lower bounds if the store has not answered.
    pub counts: WindowCounts,
    /// Events in the additional windows of the anomaly's rule, as far as they are known. They are
    /// lower bounds in the same case.
    pub extra: Vec<ExtraCount>,
    /// True if a count may be too high, or the oldest event's time too early.
    pub is_approximate: bool,
    /// The oldest event inside 30 days; `None` if there is none, or if it is not known.
    pub first_seen: Option<Timestamp>,
    /// The newest known event inside 30 days.
    pub last_seen: Option<Timestamp>,
    /// The number of all repair attempts; `None` if it is not known.
    pub repair_attempts: Option<u64>,
    /// The mark of a permanent fix.
    pub mark: KnownMark,
    /// True if nothing is known about the events in the store.
    pub is_partial: bool,
}

/// The mark of an anomaly, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KnownMark {
    /// It is not known whether a mark holds.
    #[default]
    Unknown,
    /// No mark holds.
    Absent,
    /// A mark holds, and was set at this time.
    SetAt(Timestamp),
}

/// The known details of an anomaly, without its stats. An absent value does not hold, or is
/// unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownDetails {
    /// The object of the first post.
    pub signature_json: Option<String>,
    /// The identifying fields, if they are known and the object is not.
    pub signature: Option<Signature>,
    /// The time at which the anomaly became known.
    pub known_since: Option<Timestamp>,
    /// The permanent fix that holds; [`KnownStats::mark`] says whether that is known.
    pub fix: Option<PermanentFix>,
    /// The repair history.
    pub repairs: Option<RepairHistory>,
    /// The firing alerts. Absent from an estimate, because each waiting alert may change them.
    pub firing: Option<Firing>,
}

impl From<Option<Timestamp>> for KnownMark {
    fn from(fixed_at: Option<Timestamp>) -> Self {
        fixed_at.map_or(Self::Absent, Self::SetAt)
    }
}

impl KnownMark {
    /// Returns true if a mark holds; `None` if that is not known.
    pub fn holds(self) -> Option<bool> {
        match self {
            Self::Unknown => None,
            Self::Absent => Some(false),
            Self::SetAt(_) => Some(true),
        }
    }

    /// Returns the time of the mark; `None` if no mark is known to hold.
    pub fn set_at(self) -> Option<Timestamp> {
        match self {
            Self::Unknown | Self::Absent => None,
            Self::SetAt(at) => Some(at),
        }
    }
}

impl From<AnomalyStats> for KnownStats {
    fn from(stats: AnomalyStats) -> Self {
        let AnomalyStats { counts, extra, is_approximate, first_seen, last_seen, .. } = stats;
        Self {
            counts,
            extra,
            is_approximate,
            first_seen,
            last_seen,
            repair_attempts: Some(stats.repair_attempts),
            mark: stats.fixed_at.into(),
            is_partial: false,
        }
    }
}

impl KnownStats {
    /// Creates stats of which nothing is known yet.
    pub fn unknown() -> Self {
        Self {
            counts: WindowCounts::default(),
            extra: Vec::new(),
            is_approximate: false,
            first_seen: None,
            last_seen: None,
            repair_attempts: None,
            mark: KnownMark::Unknown,
            is_partial: true,
        }
    }

    /// Returns the stats of `as_of` as far as they still hold at `now`: a window that has moved
    /// past the newest event is empty, and a count that events may have left is approximate.
    #[must_use]
    pub fn aged(mut self, as_of: Timestamp, now: Timestamp) -> Self {
        let Some((first, last)) = self.first_seen.zip(self.last_seen) else { return self };
        let counts = self.counts;
        let mut inner = 0;
        for (window, count) in [
            (Window::Hour, &mut self.counts.hour),
            (Window::Day, &mut self.counts.day),
            (Window::Week, &mut self.counts.week),
            (Window::Month, &mut self.counts.month),
        ] {
            let start = window.start(now);
            if last < start {
                *count = 0;
            } else {
                // No event has left if all are inside, or if all were inside a shorter window that
                // this one still covers.
                self.is_approximate |= first < start && *count > inner;
            }
            inner = match window {
                Window::Hour if Window::Hour.start(as_of) >= Window::Day.start(now) => counts.hour,
                Window::Day if Window::Day.start(as_of) >= Window::Week.start(now) => counts.day,
                Window::Week if Window::Week.start(as_of) >= RETENTION.start(now) => counts.week,
                _ => 0,
            };
        }
        for extra in &mut self.extra {
            let start = now.minus_seconds(extra.seconds.into());
            if last < start {
                extra.count = 0;
            } else {
                extra.is_approximate |= first < start && extra.count > 0;
            }
        }
        if self.counts.month == 0 {
            self.last_seen = None;
        }
        self.first_seen = self.first_seen.filter(|first| *first >= RETENTION.start(now));
        self
    }

    /// Returns the counts for judging by a rule.
    pub fn as_counts(&self) -> Counts<'_> {
        let Self { counts: windows, extra, is_approximate, .. } = self;
        Counts { windows: *windows, extra, is_approximate: *is_approximate }
    }

    /// Raises each value to that of other stats of the same anomaly, if that is higher. Both may
    /// lack events.
    pub fn raise_to(&mut self, other: &Self) {
        for more in &other.extra {
            match self.extra.iter_mut().find(|extra| extra.seconds == more.seconds) {
                Some(extra) => extra.count = extra.count.max(more.count),
                None => self.extra.push(*more),
            }
        }
        self.counts = self.counts.max(other.counts);
        self.is_approximate |= other.is_approximate;
        self.first_seen = [self.first_seen, other.first_seen].into_iter().flatten().min();
        self.last_seen = self.last_seen.max(other.last_seen);
        self.repair_attempts = self.repair_attempts.max(other.repair_attempts);
    }

    /// Returns true if the anomaly came back after its mark, within the 30 days; `None` if that is
    /// not known.
    pub fn regressed(&self) -> Option<bool> {
        match self.mark {
            KnownMark::Unknown => None,
            KnownMark::Absent => Some(false),
            KnownMark::SetAt(fixed) if self.last_seen.is_some_and(|seen| seen > fixed) => {
                Some(true)
            }
            KnownMark::SetAt(_) => (!self.is_partial).then_some(false),
        }
    }

    /// Returns true if the occurrence that led to these stats is the first known one after the
    /// mark. `previous_last_seen` is the newest known event before it.
    pub fn has_just_regressed(&self, previous_last_seen: Option<Timestamp>) -> bool {
        self.regressed() == Some(true) && previous_last_seen <= self.mark.set_at()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_micros(1_774_799_738_000_000)
    }

    fn stats(counts: [u64; 4], first_ago: i64, last_ago: i64) -> KnownStats {
        let [hour, day, week, month] = counts;
        AnomalyStats {
            counts: WindowCounts { hour, day, week, month },
            first_seen: Some(now().minus_seconds(first_ago)),
            last_seen: Some(now().minus_seconds(last_ago)),
            ..AnomalyStats::default()
        }
        .into()
    }

    #[test]
    fn a_window_that_has_left_the_newest_event_behind_is_empty() {
        let aged = stats([2, 5, 5, 5], 7_200, 600).aged(now(), now().plus_seconds(3_001));
        assert_eq!(aged.counts, WindowCounts { hour: 0, day: 5, week: 5, month: 5 });
        assert!(!aged.is_approximate, "all others are inside");
        let aged = stats([2, 5, 5, 5], 7_200, 600).aged(now(), now().plus_seconds(31 * 86_400));
        assert_eq!(aged.counts, WindowCounts::default());
        assert_eq!((aged.first_seen, aged.last_seen), (None, None));
    }

    #[test]
    fn a_count_of_which_events_may_have_left_is_approximate() {
        let aged = |counts| stats(counts, 7_200, 60).aged(now(), now().plus_seconds(60));
        assert!(aged([2, 5, 5, 5]).is_approximate, "of the hour");
        let days = |counts| stats(counts, 40 * 3_600, 7_200).aged(now(), now().plus_seconds(60));
        assert!(days([0, 2, 5, 5]).is_approximate, "of the day");
        let young = stats([2, 2, 2, 2], 600, 60).aged(now(), now().plus_seconds(60));
        assert!(!young.is_approximate);
    }

    #[test]
    fn a_regression_is_known_only_where_the_mark_and_the_events_are() {
        let mut known = KnownStats::unknown();
        assert_eq!(known.regressed(), None);
        known.mark = KnownMark::SetAt(now());
        assert_eq!(known.regressed(), None);
        known.last_seen = Some(now().plus_seconds(1));
        assert_eq!(known.regressed(), Some(true));
        assert!(known.has_just_regressed(None) && known.has_just_regressed(Some(now())));
        assert!(!known.has_just_regressed(known.last_seen), "it had come back before");
        let complete = KnownStats { mark: KnownMark::SetAt(now()), ..stats([1, 1, 1, 1], 60, 60) };
        assert_eq!(complete.regressed(), Some(false));
    }
}
