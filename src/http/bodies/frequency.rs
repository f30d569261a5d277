//! The frequency of an anomaly.

use serde::Serialize;
use utoipa::ToSchema;

use super::{degraded::DegradedBody, schemas};
use crate::{
    counter::Degraded,
    domain::{AnomalyKey, EscalationLevel, Frequency, Timestamp},
};

/// The frequency of an anomaly. The first ten names are fixed by contract.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Frequency)]
pub(in crate::http) struct FrequencyBody {
    #[schema(value_type = schemas::AnomalyKey)]
    anomaly_key: AnomalyKey,
    /// Occurrences within the last hour.
    #[schema(example = 1)]
    count_1h: u64,
    /// Occurrences within the last 24 hours.
    #[schema(example = 4)]
    count_24h: u64,
    /// Occurrences within the last 7 days.
    #[schema(example = 9)]
    count_7d: u64,
    /// Occurrences within the last 30 days.
    #[schema(example = 20)]
    count_30d: u64,
    /// The oldest occurrence within 30 days; null where there is none, and in an outage where it
    /// is not known.
    #[schema(required, value_type = Option<schemas::Time>)]
    first_seen: Option<Timestamp>,
    /// The newest occurrence within 30 days; null where there is none. In an outage the newest
    /// that is known.
    #[schema(required, value_type = Option<schemas::Time>)]
    last_seen: Option<Timestamp>,
    /// Number of repair attempts; null in an outage where it is not known.
    #[schema(required, example = 2)]
    auto_repair_count: Option<u64>,
    /// True while the mark of a permanent fix holds; null in an outage where that is not known.
    #[schema(required)]
    permanent_fix_applied: Option<bool>,
    /// The level that the occurrences of 24 hours have reached; null where they are few.
    #[schema(required, value_type = Option<schemas::EscalationLevel>)]
    escalation_level: Option<EscalationLevel>,
    /// The level just before this occurrence: act where the two differ. Where nothing was
    /// recorded they are the same.
    #[schema(required, value_type = Option<schemas::EscalationLevel>)]
    previous_level: Option<EscalationLevel>,
    /// True if the anomaly has come back after its cause was marked as fixed; null in an outage
    /// where that is not known.
    #[schema(required)]
    regressed: Option<bool>,
    /// Present where it is false: a count may be too high, or `first_seen` too early, by what lies
    /// in one bucket of time, or in an outage by what has left a window since `as_of`.
    #[serde(skip_serializing_if = "is_true")]
    #[schema(required = false)]
    exact: bool,
    #[serde(flatten)]
    degraded: DegradedBody,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_true(value: &bool) -> bool {
    *value
}

impl FrequencyBody {
    pub(in crate::http) fn new(frequency: Frequency, degraded: Option<Degraded>) -> Self {
        let Frequency { key, stats, level, previous_level } = frequency;
        Self {
            anomaly_key: key,
            count_1h: stats.counts.hour,
            count_24h: stats.counts.day,
            count_7d: stats.counts.week,
            count_30d: stats.counts.month,
            first_seen: stats.first_seen,
            last_seen: stats.last_seen,
            auto_repair_count: stats.repair_attempts,
            permanent_fix_applied: stats.mark.holds(),
            escalation_level: level,
            previous_level,
            regressed: stats.regressed(),
            exact: !stats.is_approximate,
            degraded: degraded.into(),
        }
    }
}
