//! The frequency of an anomaly.

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::{degraded::DegradedBody, schemas};
use crate::{
    counter::Degraded,
    domain::{AnomalyKey, EscalationLevel, Frequency, RuleRef, Timestamp},
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
    /// The oldest occurrence within 30 days; null if there is none, or if it is unknown in an
    /// outage.
    #[schema(required, value_type = Option<schemas::Time>)]
    first_seen: Option<Timestamp>,
    /// The newest occurrence within 30 days; null if there is none. In an outage, the newest known
    /// one.
    #[schema(required, value_type = Option<schemas::Time>)]
    last_seen: Option<Timestamp>,
    /// Number of repair attempts; null if unknown in an outage.
    #[schema(required, example = 2)]
    auto_repair_count: Option<u64>,
    /// True while the mark of a permanent fix is valid; null if unknown in an outage.
    #[schema(required)]
    permanent_fix_applied: Option<bool>,
    /// The level that the occurrences have reached; null if they have reached none. In an outage it
    /// may also be unknown: counts that lack earlier occurrences, whose `first_seen` is null, reach
    /// at least this level.
    #[schema(required, value_type = Option<schemas::EscalationLevel>)]
    escalation_level: Option<EscalationLevel>,
    /// The level just before this occurrence, by the same rule. If nothing was recorded, it is the
    /// same as `escalation_level`.
    #[schema(required, value_type = Option<schemas::EscalationLevel>)]
    previous_level: Option<EscalationLevel>,
    /// True if the anomaly occurred again after its cause was marked as fixed; null if unknown in
    /// an outage.
    #[schema(required)]
    regressed: Option<bool>,
    /// The name of the rule that decides the levels: the first rule that matches the fields that
    /// identify the anomaly.
    #[serde(serialize_with = "serialize_name")]
    #[schema(value_type = String, min_length = 1, max_length = 64, example = "default")]
    rule: RuleRef,
    /// The reason for `escalation_level`, in words: the condition that holds or, without a level,
    /// the condition that is closest to holding.
    #[schema(max_length = 200, example = "4 in 24h >= 3 (rule default)")]
    because: String,
    /// True if this occurrence raised the anomaly to a level that it did not have within the time
    /// `rules.rearm` (24 hours): act on it. In an outage, when that is unknown, it is true for
    /// every rise.
    new_step: bool,
    /// Present if false: a count may be too high, or `first_seen` too early, by the occurrences of
    /// one bucket of time or, in an outage, by those that have left a window since `as_of`.
    #[serde(skip_serializing_if = "is_true")]
    #[schema(required = false)]
    exact: bool,
    #[serde(flatten)]
    degraded: DegradedBody,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
pub(in crate::http) fn is_true(value: &bool) -> bool {
    *value
}

fn serialize_name<S: Serializer>(rule: &RuleRef, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(rule.rule().name())
}

impl FrequencyBody {
    pub(in crate::http) fn new(frequency: Frequency, degraded: Option<Degraded>) -> Self {
        let Frequency { key, stats, level, previous_level, rule, because, new_step } = frequency;
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
            rule,
            because,
            new_step,
            exact: !stats.is_approximate,
            degraded: degraded.into(),
        }
    }
}
