//! The one place that names Redis keys. The names are shared with other programs: see
//! "On Redis" in ARCHITECTURE.md before changing one.

use crate::domain::AnomalyKey;

/// The kinds of an anomaly's keys, in the order in which the scripts take the first few of them.
const KINDS: [&str; 10] = [
    // Sorted set: member = event id, score = Unix seconds with a fraction. The newest events.
    "timeline",
    // String: the number of repair attempts.
    "repair_count",
    // String: `1` while a permanent fix holds.
    "permanent_fix",
    // Hash: the signature as first posted, since when it is known, and the fix's particulars.
    "metadata",
    // The rest is this service's own, but for the history. What is folded of the timeline: see
    // folding.lua.
    "folded",
    "folded_counts",
    "folded_ids",
    // List: the newest repair attempts as JSON, newest first.
    "repair_history",
    // Sorted set: the ids of repairs, marks and their removals, score = Unix seconds.
    "operation_ids",
    // List: who has done what, as JSON, newest first.
    "audit",
];

/// How the keys of a deployment are named.
#[derive(Clone, Debug)]
pub(super) struct KeyNames {
    /// What stands before an anomaly's key, by kind.
    leads: [String; KINDS.len()],
    /// What stands after it.
    tail: &'static str,
}

impl KeyNames {
    /// With `in_braces` the anomaly's key stands in braces, by which a cluster puts all of its keys into
    /// one slot.
    pub(super) fn new(prefix: &str, in_braces: bool) -> Self {
        let brace = if in_braces { "{" } else { "" };
        let leads = KINDS.map(|kind| format!("{prefix}{kind}:{brace}"));
        Self { leads, tail: if in_braces { "}" } else { "" } }
    }

    /// The first `count` of an anomaly's keys.
    pub(super) fn first(&self, count: usize, key: AnomalyKey) -> impl Iterator<Item = String> {
        let key = key.to_string();
        self.leads[..count].iter().map(move |lead| [lead.as_str(), &key, self.tail].concat())
    }
}
