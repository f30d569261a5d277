//! How often an anomaly has happened: what a store tallies, and what a caller is told of it.

use super::{AnomalyKey, EscalationLevel, Thresholds, Timestamp, WindowCounts};

/// What a store knows of an anomaly's occurrences at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnomalyStats {
    /// Events in each window.
    pub counts: WindowCounts,
    /// Whether a count may be too high, or the oldest event's time too early, by what lies in one
    /// bucket of time: there are more events than are kept exactly.
    pub is_approximate: bool,
    /// The oldest event inside 30 days.
    pub first_seen: Option<Timestamp>,
    /// The newest event inside 30 days.
    pub last_seen: Option<Timestamp>,
    /// All repair attempts.
    pub repair_attempts: u64,
    /// When the permanent fix that holds was marked.
    pub fixed_at: Option<Timestamp>,
}

/// A tally judged: the answer to "how often, and what is to be done".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frequency {
    /// Whose frequency it is.
    pub key: AnomalyKey,
    /// What the judgement rests on.
    pub stats: AnomalyStats,
    /// The level of the current count of 24 hours.
    pub level: Option<EscalationLevel>,
    /// The level just before this occurrence; the current one where nothing was recorded.
    pub previous_level: Option<EscalationLevel>,
}

impl Frequency {
    /// Judges `stats`, given the count of 24 hours as it was before this call.
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

    /// Whether it came back after its permanent fix was marked, within the 30 days.
    pub fn regressed(&self) -> bool {
        matches!((self.stats.last_seen, self.stats.fixed_at), (Some(seen), Some(fixed)) if seen > fixed)
    }
}
