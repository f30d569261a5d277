//! The service's responses, as far as they are shown. Members that a newer or older service omits
//! are unknown; additional members are ignored.

use serde::Deserialize;

use crate::domain::Timestamp;

/// The four fields that identify an anomaly.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Signature {
    pub(super) alert_name: String,
    pub(super) service: String,
    pub(super) namespace: String,
    pub(super) error_type: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Frequency {
    pub(super) count_1h: u64,
    pub(super) count_24h: u64,
    pub(super) count_7d: u64,
    pub(super) count_30d: u64,
    pub(super) first_seen: Option<Timestamp>,
    pub(super) last_seen: Option<Timestamp>,
    pub(super) auto_repair_count: Option<u64>,
    pub(super) permanent_fix_applied: Option<bool>,
    pub(super) escalation_level: Option<String>,
    pub(super) regressed: Option<bool>,
    #[serde(default)]
    pub(super) rule: String,
    #[serde(default)]
    pub(super) because: String,
    #[serde(default)]
    pub(super) degraded: bool,
}

impl Frequency {
    /// Returns the level, or else `none` or `unknown`. In an outage, counts that lack earlier
    /// occurrences lack the first one too, and without a level the level is not known then.
    pub(super) fn level_or<'a>(&'a self, none: &'a str, unknown: &'a str) -> &'a str {
        let lacks_earlier = self.degraded && self.first_seen.is_none() && self.last_seen.is_some();
        let no_level = if lacks_earlier { unknown } else { none };
        self.escalation_level.as_deref().unwrap_or(no_level)
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Firing {
    pub(super) episodes: u64,
    pub(super) since: Timestamp,
}

/// An anomaly of a list.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Listed {
    pub(super) anomaly_key: String,
    pub(super) signature: Option<Signature>,
    pub(super) frequency: Frequency,
    pub(super) fixed_at: Option<Timestamp>,
    pub(super) firing: Option<Firing>,
    pub(super) series: Option<Vec<u64>>,
}

/// `GET /anomalies`
#[derive(Clone, Debug, Deserialize)]
pub(super) struct List {
    pub(super) anomalies: Vec<Listed>,
    pub(super) total: u64,
    pub(super) next_cursor: Option<String>,
    pub(super) as_of: Option<Timestamp>,
    #[serde(default = "yes")]
    pub(super) complete: bool,
    pub(super) reason: Option<String>,
    pub(super) loaded: Option<u64>,
    pub(super) ranking: Option<String>,
    #[serde(default)]
    pub(super) degraded: bool,
}

fn yes() -> bool {
    true
}

/// `GET /anomalies/{key}`, and a look-up.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Anomaly {
    pub(super) anomaly_key: String,
    pub(super) signature: Option<Signature>,
    pub(super) metadata: Option<serde_json::Map<String, serde_json::Value>>,
    pub(super) known_since: Option<Timestamp>,
    pub(super) frequency: Frequency,
    pub(super) permanent_fix: Option<Fix>,
    pub(super) repairs: Option<Vec<Action>>,
    pub(super) firing: Option<Firing>,
    #[serde(flatten)]
    pub(super) estimate: Estimate,
}

/// The mark of an answer that is made of the last known figures.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Estimate {
    #[serde(default)]
    pub(super) degraded: bool,
    pub(super) as_of: Option<Timestamp>,
}

/// The mark of a permanent fix.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Fix {
    pub(super) fix_description: Option<String>,
    pub(super) fixed_by: Option<String>,
    pub(super) fixed_at: Timestamp,
    pub(super) expires_at: Option<Timestamp>,
}

/// The removal of a mark.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Unfix {
    pub(super) removed: Option<bool>,
}

/// The figures of a repair action.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Action {
    pub(super) action: String,
    pub(super) total: u64,
    pub(super) success: u64,
    pub(super) success_rate: f64,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Attempt {
    pub(super) action: String,
    pub(super) success: bool,
    pub(super) timestamp: Option<Timestamp>,
}

/// `GET /anomalies/{key}/repairs`
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Repairs {
    pub(super) auto_repair_count: u64,
    pub(super) actions: Vec<Action>,
    pub(super) attempts: Vec<Attempt>,
    #[serde(flatten)]
    pub(super) estimate: Estimate,
}

/// An event: something that was done about an anomaly.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Event {
    pub(super) at: Timestamp,
    pub(super) event: String,
    pub(super) by: Option<String>,
    pub(super) token: Option<String>,
    pub(super) request_id: Option<String>,
    pub(super) fix_description: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) action: Option<String>,
    pub(super) success: Option<bool>,
}

/// `GET /anomalies/{key}/audit`
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Audit {
    pub(super) entries: Vec<Event>,
    #[serde(flatten)]
    pub(super) estimate: Estimate,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Bucket {
    pub(super) start: Timestamp,
    pub(super) count: u64,
    pub(super) count_24h: Option<u64>,
    #[serde(default = "yes")]
    pub(super) exact: bool,
}

/// A condition that reaches a level.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Band {
    pub(super) level: String,
    pub(super) condition: String,
}

/// `GET /anomalies/{key}/history`
#[derive(Clone, Debug, Deserialize)]
pub(super) struct History {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    pub(super) step_seconds: i64,
    pub(super) total: u64,
    pub(super) buckets: Vec<Bucket>,
    pub(super) events: Vec<Event>,
    pub(super) bands: Vec<Band>,
    #[serde(flatten)]
    pub(super) estimate: Estimate,
}

/// A problem in the form of RFC 9457.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Problem {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) detail: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_level_of_counts_that_lack_earlier_occurrences_is_unknown() {
        let level = |degraded: bool, first_seen: Option<&str>, level: Option<&str>| {
            let frequency = json!({
                "count_1h": 1, "count_24h": 1, "count_7d": 1, "count_30d": 1,
                "first_seen": first_seen, "last_seen": "2026-11-27T05:56:02.128024Z",
                "escalation_level": level, "degraded": degraded,
            });
            let frequency: Frequency = serde_json::from_value(frequency).unwrap();
            frequency.level_or("none", "?").to_owned()
        };
        assert_eq!(level(true, None, None), "?");
        assert_eq!(level(true, None, Some("REPEAT")), "REPEAT", "a lower bound");
        assert_eq!(level(true, Some("2026-11-27T05:56:02.128024Z"), None), "none");
        assert_eq!(level(false, None, None), "none");
    }
}
