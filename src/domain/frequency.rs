//! How often an anomaly has happened, as a caller is answered.

use super::{AnomalyKey, EscalationLevel, KnownStats, Thresholds};

/// Stats with the level that follows from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frequency {
    /// The anomaly.
    pub key: AnomalyKey,
    /// The stats that the level follows from.
    pub stats: KnownStats,
    /// The level of the current count of 24 hours.
    pub level: Option<EscalationLevel>,
    /// The level just before this occurrence; the current one if nothing was recorded.
    pub previous_level: Option<EscalationLevel>,
}

impl Frequency {
    /// Determines the levels of `stats`, given the count of 24 hours before this call.
    pub fn judge(
        key: AnomalyKey,
        stats: KnownStats,
        previous_count_24h: u64,
        thresholds: Thresholds,
    ) -> Self {
        let level = thresholds.level(stats.counts.day);
        let previous_level = thresholds.level(previous_count_24h);
        Self { key, stats, level, previous_level }
    }
}
