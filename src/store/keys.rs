//! The one place that names Redis keys. The names are shared with other programs: see
//! "On Redis" in ARCHITECTURE.md before changing one.

use crate::domain::AnomalyKey;

/// How the keys of a deployment are named.
#[derive(Clone, Debug)]
pub(super) struct KeyNames {
    prefix: String,
    /// Whether the anomaly's key stands in braces, by which a cluster puts all of its keys into one slot.
    in_braces: bool,
}

impl KeyNames {
    pub(super) fn new(prefix: impl Into<String>, in_braces: bool) -> Self {
        Self { prefix: prefix.into(), in_braces }
    }

    /// Sorted set: member = event id, score = Unix seconds with a fraction.
    pub(super) fn timeline(&self, key: AnomalyKey) -> String {
        self.name("timeline", key)
    }

    /// String: the number of repair attempts.
    pub(super) fn repair_count(&self, key: AnomalyKey) -> String {
        self.name("repair_count", key)
    }

    /// List: the newest repair attempts as JSON, newest first.
    pub(super) fn repair_history(&self, key: AnomalyKey) -> String {
        self.name("repair_history", key)
    }

    /// Sorted set of this service's own: the ids of repairs, marks and their removals, score = Unix
    /// seconds.
    pub(super) fn operation_ids(&self, key: AnomalyKey) -> String {
        self.name("operation_ids", key)
    }

    /// String: `1` while a permanent fix holds.
    pub(super) fn permanent_fix(&self, key: AnomalyKey) -> String {
        self.name("permanent_fix", key)
    }

    /// Hash: the signature as first posted, since when it is known, and the fix's particulars.
    pub(super) fn metadata(&self, key: AnomalyKey) -> String {
        self.name("metadata", key)
    }

    fn name(&self, kind: &str, key: AnomalyKey) -> String {
        let prefix = &self.prefix;
        if self.in_braces {
            format!("{prefix}{kind}:{{{key}}}")
        } else {
            format!("{prefix}{kind}:{key}")
        }
    }
}
