//! The set of all rules that are in force together.

use std::{collections::HashSet, fmt, sync::Arc};

use sha2::{Digest as _, Sha256};

use super::{
    counts::{Counts, ExtraCount, ExtraWindow, MAX_EXTRA_WINDOWS},
    error::RuleError,
    levels::Levels,
    rule::Rule,
    source::RuleSource,
    verdict::Verdict,
};
use crate::domain::{EscalationLevel, Signature, Thresholds, Timestamp, WindowCounts};

/// Maximum number of rules, without the rule `default`.
pub const MAX_RULES: usize = 200;

/// Rules in their order, the rule `default` last.
#[derive(Clone, Debug)]
pub struct RuleSet {
    rules: Vec<Rule>,
    rearm_seconds: u32,
    checksum: u32,
}

impl RuleSet {
    /// Reads rules, and adds the rule `default`. `file` is the content of the rules' file, if there
    /// is one.
    ///
    /// # Errors
    /// The error says what is wrong, and with which rule.
    pub fn parse(
        sources: &[RuleSource],
        thresholds: Thresholds,
        rearm_seconds: u32,
        file: Option<&[u8]>,
    ) -> Result<Self, RuleError> {
        if sources.len() > MAX_RULES {
            let what = format!("there are {}: write at most {MAX_RULES}", sources.len());
            return Err(RuleError::new("rules", what));
        }
        let default = Levels::from(thresholds);
        let mut rules = Vec::with_capacity(sources.len() + 1);
        let mut names = HashSet::new();
        let mut takes_everything = None;
        for (index, source) in sources.iter().enumerate() {
            let number = index + 1;
            let rule = Rule::parse(number, source, &default)?;
            if let Some(other) = takes_everything {
                let what = format!("can never match: rule {other} matches everything");
                return Err(RuleError::new(format!("rule {number} \"{}\"", rule.name()), what));
            }
            if !names.insert(rule.name().to_owned()) {
                let what = "write another name: an earlier rule has this name";
                return Err(RuleError::new(format!("rule {number} \"{}\"", rule.name()), what));
            }
            if rule.matchers().is_empty() {
                takes_everything = Some(number);
            }
            rules.push(rule);
        }
        rules.push(Rule::of_thresholds(thresholds));
        let mut set = Self { rules, rearm_seconds, checksum: 0 };
        set.checksum = match file {
            Some(content) => checksum(content),
            None => checksum(set.to_string().as_bytes()),
        };
        Ok(set)
    }

    /// Returns the rules in their order, the rule `default` last.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Returns true if `default` is the only rule.
    pub fn has_only_default(&self) -> bool {
        self.rules.len() == 1
    }

    /// Returns the time for which a level must not have been held before a step to it is new, in
    /// seconds.
    pub fn rearm_seconds(&self) -> u32 {
        self.rearm_seconds
    }

    /// Returns the first four bytes of the SHA-256 of the file or, without a file, of the rules as
    /// text.
    pub fn checksum(&self) -> u32 {
        self.checksum
    }

    /// Returns the index of the first rule that matches.
    pub fn index_of(&self, signature: &Signature) -> usize {
        let matches = |rule: &Rule| rule.mismatch(signature).is_none();
        self.rules.iter().position(matches).unwrap_or(self.rules.len() - 1)
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    let digest = Sha256::digest(bytes);
    digest[..4].iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte))
}

/// Writes the rules, one per line.
impl fmt::Display for RuleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, rule) in self.rules.iter().enumerate() {
            writeln!(f, "{} {rule}", index + 1)?;
        }
        Ok(())
    }
}

/// The rule that judges an anomaly. It stays the same when other rules come into force.
#[derive(Clone)]
pub struct RuleRef {
    set: Arc<RuleSet>,
    index: u16,
    is_signature_known: bool,
}

impl RuleRef {
    /// Creates a reference to the rule with this index, which [`RuleSet::index_of`] has returned.
    pub fn new(set: Arc<RuleSet>, index: usize) -> Self {
        let index = index.min(set.rules.len() - 1) as u16;
        Self { set, index, is_signature_known: true }
    }

    /// Creates a reference to the rule `default`, for an anomaly whose fields are not known.
    pub fn of_unknown(set: Arc<RuleSet>) -> Self {
        let is_signature_known = set.has_only_default();
        let index = (set.rules.len() - 1) as u16;
        Self { set, index, is_signature_known }
    }

    /// Returns the rule that it refers to.
    pub fn rule(&self) -> &Rule {
        &self.set.rules[usize::from(self.index)]
    }

    /// Returns its index in its set.
    pub fn index(&self) -> usize {
        self.index.into()
    }

    /// Returns the rules that were in force together with it.
    pub fn set(&self) -> &Arc<RuleSet> {
        &self.set
    }

    /// Returns the additional windows that it counts in.
    pub fn extra_windows(&self) -> &[ExtraWindow] {
        self.rule().extra_windows()
    }

    /// Returns the number of the newest events that decide whether a step is new.
    pub fn newest_wanted(&self) -> usize {
        self.rule().newest_wanted(self.set.rearm_seconds)
    }

    /// Returns the level that these counts reach, with the reason.
    pub fn judge(&self, counts: Counts<'_>) -> Verdict {
        let ends = if self.is_signature_known { "" } else { ": its signature is not known" };
        self.rule().judge(counts, ends)
    }

    /// Returns the highest level that these counts can reach, if the rule's additional windows are
    /// not counted.
    #[inline]
    pub fn level_at_most(&self, windows: WindowCounts) -> Option<EscalationLevel> {
        if self.rule().levels().are_out_of_reach(windows) {
            return None;
        }
        self.level_of_frequent(windows)
    }

    fn level_of_frequent(&self, windows: WindowCounts) -> Option<EscalationLevel> {
        let own = self.extra_windows();
        if own.is_empty() {
            return self.rule().level(Counts { windows, ..Counts::default() });
        }
        let mut extra = [ExtraCount::default(); MAX_EXTRA_WINDOWS];
        for (count, window) in extra.iter_mut().zip(own) {
            *count = window.at_most(windows);
        }
        let extra = extra.get(..own.len()).unwrap_or_default();
        self.rule().level(Counts { windows, extra, is_approximate: false })
    }

    /// Returns true if the level may depend on additional windows whose counts do not follow from
    /// these.
    pub fn needs_counts(&self, windows: WindowCounts) -> bool {
        self.extra_windows().iter().any(|window| window.needs_count(windows))
    }

    /// Returns true if a step to `level` at `now` is new: neither it nor a higher level was held
    /// within the time of `rules.rearm`, as far as the times of the newest events show. `at` is the
    /// time of the occurrence that causes the step, and is one of them.
    pub fn is_new_step(
        &self,
        level: EscalationLevel,
        at: Timestamp,
        now: Timestamp,
        newest: &[Timestamp],
    ) -> bool {
        let mut others = newest.to_vec();
        if let Some(own) = others.iter().position(|time| *time == at) {
            others.swap_remove(own);
        }
        let rearm_seconds = self.set.rearm_seconds;
        rearm_seconds == 0 || !self.rule().was_held(level, rearm_seconds, now, &others)
    }
}

impl PartialEq for RuleRef {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.set, &other.set)
            && (self.index, self.is_signature_known) == (other.index, other.is_signature_known)
    }
}

impl Eq for RuleRef {}

impl fmt::Debug for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RuleRef").field(&self.rule().name()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::domain::WindowCounts;

    fn parse(rules: &serde_json::Value) -> Result<RuleSet, RuleError> {
        let sources: Vec<RuleSource> = serde_json::from_str(&rules.to_string()).unwrap();
        RuleSet::parse(&sources, Thresholds::new(3, 5, 10).unwrap(), 86_400, None)
    }

    fn signature(alert_name: &str, namespace: &str) -> Signature {
        let lookup = |name| match name {
            "alert_name" => Some(Ok(alert_name)),
            "namespace" => Some(Ok(namespace)),
            _ => None,
        };
        Signature::from_lookup(lookup).unwrap()
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let set = parse(&json!([
            {"name": "jobs", "match": ["namespace=\"batch\"", "alertname=~\"KubeJob.*\""]},
            {"name": "batch", "match": ["namespace=\"batch\""], "levels": "none"},
        ]))
        .unwrap();
        for (alert_name, namespace, expected) in [
            ("KubeJobFailed", "batch", "jobs"),
            ("HighCPU", "batch", "batch"),
            ("KubeJobFailed", "shop", "default"),
        ] {
            let index = set.index_of(&signature(alert_name, namespace));
            assert_eq!(set.rules()[index].name(), expected, "{alert_name} {namespace}");
        }
        let everything = parse(&json!([{"name": "all"}])).unwrap();
        assert_eq!(everything.index_of(&signature("A", "")), 0);
        let default = everything.rules()[0].levels();
        assert_eq!(default, everything.rules()[1].levels(), "without levels those of the default");
    }

    #[test]
    fn what_can_not_be_used_is_refused_with_its_place_and_what_to_write() {
        let with = |levels: serde_json::Value| json!([{"name": "batch", "levels": levels}]);
        let conditions = |count: usize| {
            let all: Vec<_> = (0..count).map(|n| format!("{} in 1h", 9 - n)).collect();
            with(json!({"REPEAT": all}))
        };
        let named = |names: &[&str]| {
            let rule = |name: &&str| json!({"name": name, "match": ["namespace=\"x\""]});
            serde_json::Value::from(names.iter().map(rule).collect::<Vec<_>>())
        };
        let numbers: Vec<String> = (0..=MAX_RULES).map(|n| n.to_string()).collect();
        let too_many = named(&numbers.iter().map(String::as_str).collect::<Vec<_>>());
        let matchers = vec!["namespace!=\"x\""; 9];
        let long = "n".repeat(65);
        let five_windows = ["1 in 1m", "1 in 2m", "1 in 3m", "1 in 4m", "1 in 5m"];
        for (rules, expected) in [
            (
                with(json!({"ESCALATE": ["5 in 24"]})),
                "rule 1 \"batch\": ESCALATE \"5 in 24\": write \"5 in 24h\"",
            ),
            (
                with(json!({"ESCALTE": ["5 in 24h"]})),
                "levels: \"ESCALTE\" is not a level: the levels are REPEAT, ESCALATE and",
            ),
            (with(json!("never")), "rule 1 \"batch\": levels: write a table"),
            (with(json!({})), "levels: write a table"),
            (with(json!(7)), "levels: write a table"),
            (with(json!({"REPEAT": "3 in 24h"})), "REPEAT: write a list of conditions"),
            (with(json!({"REPEAT": []})), "REPEAT: write a condition, or leave the level out"),
            (with(json!({"REPEAT": [3]})), "REPEAT: write a list of conditions"),
            (
                with(json!({"REPEAT": ["5 in 24h"], "ESCALATE": ["5 in 1d"]})),
                "ESCALATE \"5 in 1d\": REPEAT \"5 in 24h\" can never be the level",
            ),
            (
                with(json!({"REPEAT": ["9 in 6h"], "PERMANENT_FIX": ["8 in 360m"]})),
                "PERMANENT_FIX \"8 in 360m\": REPEAT \"9 in 6h\" can never be the level",
            ),
            (
                with(json!({"REPEAT": ["2 in 1h and 5 in 7d"], "ESCALATE": ["5 in 7d"]})),
                "REPEAT \"2 in 1h and 5 in 7d\" can never be the level",
            ),
            (conditions(9), "levels: there are 9 conditions: write at most 8"),
            (with(json!({"REPEAT": five_windows})), "there are 5 windows other than 1h, 24h, 7d"),
            (
                json!([{"name": "batch", "match": ["namespace=~\"a(\""]}]),
                "\": the value is not a regular expression of RE2: unclosed group, at",
            ),
            (json!([{"name": "a", "match": "job=\"x\""}]), "match: write a list of matchers"),
            (json!([{"name": "a", "match": [1]}]), "match: write a list of matchers"),
            (json!([{"name": "a", "match": matchers}]), "match: there are 9: write at most 8"),
            (json!([{"name": "a", "macth": []}]), "rule 1 \"a\": \"macth\": is not a known key"),
            (json!([{"match": []}]), "rule 1: name: write 1 to 64"),
            (json!([{"name": 7}]), "rule 1: name: write 1 to 64"),
            (json!([{"name": long}]), ": name: write 1 to 64"),
            (json!([{"name": "a/b"}]), "rule 1 \"a/b\": name: write 1 to 64"),
            (json!([{"name": "default"}]), "rule 1 \"default\": name: write another name"),
            (named(&["a", "b", "a"]), "rule 3 \"a\": write another name"),
            (
                json!([{"name": "a"}, {"name": "b", "match": ["service=\"x\""]}]),
                "rule 2 \"b\": can never match: rule 1 matches everything",
            ),
            (too_many, "rules: there are 201: write at most 200"),
        ] {
            let error = parse(&rules).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}\n{expected}");
        }
    }

    #[test]
    fn as_much_as_is_permitted_is_taken() {
        let matchers = vec!["namespace!=\"x\""; 8];
        let levels = json!({
            "REPEAT": ["1 in 1m and 1 in 2m and 1 in 3m and 1 in 4m", "2 in 1h", "3 in 1d"],
            "ESCALATE": ["8 in 24h", "1000000 in 30d", "9 in 1h"],
            "PERMANENT_FIX": ["10 in 24h and 3 in 1h", "40 in 7d"],
        });
        let rule = |n: usize| json!({"name": format!("r{n}"), "match": matchers, "levels": levels});
        let set = parse(&(0..MAX_RULES).map(rule).collect()).unwrap();
        assert_eq!(set.rules().len(), MAX_RULES + 1);
        // A case that is not refused: the other window has another meaning.
        parse(&json!([{"name": "a", "levels": {"REPEAT": ["5 in 24h"], "ESCALATE": ["5 in 1h"]}}]))
            .unwrap();
    }

    #[test]
    fn rules_that_differ_have_other_checksums() {
        let checksum = |rules: serde_json::Value| parse(&rules).unwrap().checksum();
        let first = checksum(json!([{"name": "a", "match": ["job=\"x\""]}]));
        assert_eq!(first, checksum(json!([{"name": "a", "match": ["service = \"x\""]}])));
        assert_ne!(first, checksum(json!([{"name": "a", "match": ["service=\"y\""]}])));
        let sources: Vec<RuleSource> = Vec::new();
        let thresholds = Thresholds::new(3, 5, 10).unwrap();
        let of_file = RuleSet::parse(&sources, thresholds, 86_400, Some(b"abc")).unwrap();
        assert_eq!(format!("{:08x}", of_file.checksum()), "ba7816bf", "as sha256sum prints it");
    }

    proptest! {
        /// Without rules, every count has the level that the thresholds define.
        #[test]
        fn the_default_rule_is_the_thresholds(
            repeat in 1..50_u64,
            more in 1..50_u64,
            most in 1..50_u64,
            hour in any::<u64>(),
            day in prop_oneof![0..200_u64, any::<u64>()],
            rest in any::<u64>(),
        ) {
            let (escalate, permanent_fix) = (repeat + more, repeat + more + most);
            let thresholds = Thresholds::new(repeat, escalate, permanent_fix).unwrap();
            let set = Arc::new(RuleSet::parse(&[], thresholds, 86_400, None).unwrap());
            let windows = WindowCounts { hour, day, week: rest, month: rest };
            let counts = Counts { windows, ..Counts::default() };
            let verdict = RuleRef::of_unknown(set).judge(counts);
            prop_assert_eq!(verdict.level, thresholds.level(day));
            let count = format!("{day} in 24h");
            prop_assert!(verdict.because.starts_with(&count));
        }
    }
}
