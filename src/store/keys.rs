//! The names of the keys in Redis, which no other file knows. Other programs use the same keys: see
//! docs/design/redis.md before changing one.

use crate::domain::AnomalyKey;

/// The kinds of an anomaly's keys, in the order in which the scripts take the first few of them.
const KINDS: [&str; 11] = [
    // Sorted set: member = event id, score = Unix seconds with a fraction. The newest events.
    "timeline",
    // String: the number of repair attempts.
    "repair_count",
    // String: `1` while a mark of a permanent fix holds.
    "permanent_fix",
    // Hash: the object of the first post, its time, and the details of the fix.
    "metadata",
    // The remaining keys belong to this service only, except the history. The older events, rolled
    // up: see rollup.lua.
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

/// The kinds that hold the texts of an anomaly's stats.
const TEXTS: [usize; 3] = [1, 2, 4];
const TIMELINE_AND_METADATA: [usize; 2] = [0, 3];

/// The names of one deployment's keys.
#[derive(Clone, Debug)]
pub(super) struct KeyNames {
    /// The part before the anomaly's key, by kind.
    prefixes: [String; KINDS.len()],
    /// The part after the anomaly's key.
    suffix: &'static str,
    /// String: written by the probe, which turns it into other types in between.
    probe: String,
    /// Stream: the changes, for the catalogues of other instances.
    changes: String,
    /// String: the instance that scans all keys for the others.
    walker: String,
}

impl KeyNames {
    /// Creates names. With `in_braces`, the anomaly's key is in braces, which make a cluster put
    /// all of its keys into one slot.
    pub(super) fn new(prefix: &str, in_braces: bool) -> Self {
        let brace = if in_braces { "{" } else { "" };
        let prefixes = KINDS.map(|kind| format!("{prefix}{kind}:{brace}"));
        let probe = format!("{prefix}probe");
        Self {
            prefixes,
            suffix: if in_braces { "}" } else { "" },
            probe,
            changes: format!("{prefix}changes"),
            walker: format!("{prefix}walker"),
        }
    }

    /// Returns the key of the probe. On a cluster, `tag` determines its slot.
    pub(super) fn probe(&self, tag: Option<&str>) -> String {
        tag.map_or_else(|| self.probe.clone(), |tag| format!("{}:{{{tag}}}", self.probe))
    }

    /// Returns the key of the stream of changes.
    pub(super) fn changes(&self) -> &str {
        &self.changes
    }

    /// Returns the key of the lease for scanning all keys.
    pub(super) fn walker(&self) -> &str {
        &self.walker
    }

    /// Returns a pattern for SCAN that the timelines, metadata and marks of all anomalies match:
    /// every anomaly has at least one of these.
    pub(super) fn pattern(&self) -> String {
        let prefix = self.probe.strip_suffix("probe").unwrap_or_default();
        let is_special = |character: char| "*?[]\\^".contains(character);
        let mut pattern = String::new();
        for character in prefix.chars() {
            if is_special(character) {
                pattern.push('\\');
            }
            pattern.push(character);
        }
        pattern + "[tmp]*"
    }

    /// Returns the anomaly whose timeline, metadata or mark has this name.
    pub(super) fn anomaly_of(&self, name: &str) -> Option<AnomalyKey> {
        let kinds = ["timeline", "metadata", "permanent_fix"];
        let prefixes = KINDS.iter().zip(&self.prefixes).filter(|(kind, _)| kinds.contains(kind));
        let mut keys = prefixes.filter_map(|(_, prefix)| {
            let key = name.strip_prefix(prefix.as_str())?.strip_suffix(self.suffix)?;
            key.parse().ok()
        });
        keys.next()
    }

    /// Passes the first `count` of an anomaly's keys to `take`, each in parts.
    pub(super) fn first(&self, count: usize, key: AnomalyKey, take: impl FnMut([&str; 3])) {
        self.of_kinds(0..count, key, take);
    }

    /// Passes the keys with the texts of an anomaly's stats to `take`: the number of its repair
    /// attempts, its mark, and what is rolled up.
    pub(super) fn texts(&self, key: AnomalyKey, take: impl FnMut([&str; 3])) {
        self.of_kinds(TEXTS, key, take);
    }

    /// Passes an anomaly's timeline and its metadata to `take`.
    pub(super) fn timeline_and_metadata(&self, key: AnomalyKey, take: impl FnMut([&str; 3])) {
        self.of_kinds(TIMELINE_AND_METADATA, key, take);
    }

    fn of_kinds(
        &self,
        kinds: impl IntoIterator<Item = usize>,
        key: AnomalyKey,
        mut take: impl FnMut([&str; 3]),
    ) {
        let mut digits = [0; 16];
        let digits = key.digits(&mut digits);
        kinds.into_iter().for_each(|kind| take([&self.prefixes[kind], digits, self.suffix]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_anomaly_of_a_name_is_the_one_that_it_was_made_for() {
        let key = AnomalyKey::from_bits(7);
        for in_braces in [false, true] {
            let names = KeyNames::new("an*omaly:", in_braces);
            let mut found = Vec::new();
            names.first(KINDS.len(), key, |name| found.push(names.anomaly_of(&name.concat())));
            let some = found.iter().filter(|found| **found == Some(key)).count();
            assert_eq!(some, 3, "timeline, metadata and mark");
            for other in [names.probe(None).as_str(), names.changes(), "timeline:7", ""] {
                assert_eq!(names.anomaly_of(other), None, "{other}");
            }
        }
        assert_eq!(KeyNames::new("an*omaly:", true).pattern(), "an\\*omaly:[tmp]*");
    }
}
