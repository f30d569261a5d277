//! How often an anomaly has happened: the stats that a store returns, and the answer to a caller.

use super::{AnomalyKey, EscalationLevel, Thresholds, Timestamp, WindowCounts};

/// An anomaly's occurrences, repairs and mark at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnomalyStats {
    /// Events in each window.
    pub counts: WindowCounts,
    /// True if a count may be too high, or the oldest event's time too early, by the events of one
    /// bucket of time: there are more events than are kept exactly.
    pub is_approximate: bool,
    /// The oldest event inside 30 days.
    pub first_seen: Option<Timestamp>,
    /// The newest event inside 30 days.
    pub last_seen: Option<Timestamp>,
    /// The number of all repair attempts.
    pub repair_attempts: u64,
    /// The time of the mark that holds, if any.
    pub fixed_at: Option<Timestamp>,
}

impl AnomalyStats {
    /// Returns true if the anomaly came back after its mark, within the 30 days.
    pub fn regressed(&self) -> bool {
        self.last_seen.zip(self.fixed_at).is_some_and(|(seen, fixed)| seen > fixed)
    }

    /// Returns true if the occurrence that has led to these stats is the first one after the mark.
    /// `previous_last_seen` is the newest event before it.
    pub fn has_just_regressed(&self, previous_last_seen: Option<Timestamp>) -> bool {
        self.regressed() && previous_last_seen <= self.fixed_at
    }

    /// Takes over what is higher in other stats of the same anomaly, each of which may lack events.
    pub fn raise_to(&mut self, other: &Self) {
        let (counts, others) = (&mut self.counts, &other.counts);
        counts.hour = counts.hour.max(others.hour);
        counts.day = counts.day.max(others.day);
        counts.week = counts.week.max(others.week);
        counts.month = counts.month.max(others.month);
        self.is_approximate |= other.is_approximate;
        self.first_seen = [self.first_seen, other.first_seen].into_iter().flatten().min();
        self.last_seen = self.last_seen.max(other.last_seen);
        self.repair_attempts = self.repair_attempts.max(other.repair_attempts);
        self.fixed_at = other.fixed_at;
    }
}

/// Stats with the level that follows from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frequency {
    /// The anomaly.
    pub key: AnomalyKey,
    /// The stats that the level follows from.
    pub stats: AnomalyStats,
    /// The level of the current count of 24 hours.
    pub level: Option<EscalationLevel>,
    /// The level just before this occurrence; the current one if nothing was recorded.
    pub previous_level: Option<EscalationLevel>,
}

impl Frequency {
    /// Determines the levels of `stats`, given the count of 24 hours before this call.
    pub fn judge(
        key: AnomalyKey,
        stats: AnomalyStats,
        previous_count_24h: u64,
        thresholds: Thresholds,
    ) -> Self {
        let level = thresholds.level(stats.counts.day);
        let previous_level = thresholds.level(previous_count_24h);
        Self { key, stats, level, previous_level }
    }

    /// Returns true if the anomaly came back after its mark, within the 30 days.
    pub fn regressed(&self) -> bool {
        self.stats.regressed()
    }
}
