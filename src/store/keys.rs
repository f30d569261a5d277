//! The names of the keys in Redis, which no other file knows. Other programs share them: see "On
//! Redis" in ARCHITECTURE.md before changing one.

/// The kinds of an anomaly's keys, in the order in which the scripts take the first few of them.
const KINDS: [&str; 11] = [
    // Sorted set: member = event id, score = Unix seconds with a fraction. The newest events.
    "timeline",
    // String: the number of repair attempts.
    "repair_count",
    // String: `1` while the mark of a permanent fix holds.
    "permanent_fix",
    // Hash: the signature as first posted, its first time, and the details of the fix.
    "metadata",
    // The rest is this service's own, except the history. The older events, rolled up: see
    // rollup.lua.
    "folded",
    "folded_counts",
    "folded_ids",
    // List: the newest repair attempts as JSON, newest first.
    "repair_history",
    // Sorted set: the ids of repairs, marks and their removals, score = Unix seconds.
    "operation_ids",
    // List: the audit as JSON, newest first.
    "audit",
    // Hash: the newest episode of each alert, by fingerprint: see incidents.lua.
    "incidents",
];

/// The names of the keys of one deployment.
#[derive(Clone, Debug)]
pub(super) struct KeyNames {
    /// The part before an anomaly's key, by kind.
    prefixes: [String; KINDS.len()],
    /// The part after it.
    suffix: &'static str,
    /// String: written by the probe, which makes other types of it in between.
    probe: String,
}

impl KeyNames {
    /// Creates names. With `in_braces` the anomaly's key stands in braces, by which a cluster puts
    /// all of its keys into one slot.
    pub(super) fn new(prefix: &str, in_braces: bool) -> Self {
        let brace = if in_braces { "{" } else { "" };
        let prefixes = KINDS.map(|kind| format!("{prefix}{kind}:{brace}"));
        let probe = format!("{prefix}probe");
        Self { prefixes, suffix: if in_braces { "}" } else { "" }, probe }
    }

    /// Returns the key of the probe. On a cluster `tag` decides which slot it is in.
    pub(super) fn probe(&self, tag: Option<&str>) -> String {
        tag.map_or_else(|| self.probe.clone(), |tag| format!("{}:{{{tag}}}", self.probe))
    }

    /// Returns the first `count` of an anomaly's keys, each in parts. `key` is the anomaly's.
    pub(super) fn first<'a>(
        &'a self,
        count: usize,
        key: &'a str,
    ) -> impl Iterator<Item = [&'a str; 3]> {
        self.prefixes[..count].iter().map(move |prefix| [prefix, key, self.suffix])
    }
}
