//! The rules that are in force together, with the rule of each anomaly that was seen, and the
//! number of decisions of each rule.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use lru::LruCache;
use parking_lot::Mutex;

use crate::domain::{
    AnomalyKey, Occurrence, RuleRef, RuleSet, Signature, SignatureJson, Timestamp,
};

/// Maximum number of anomalies whose rule is kept, some 100 bytes each. The fields of other
/// anomalies are read and matched again.
const MAX_KNOWN: usize = 100_000;

/// The rules that are in force together.
#[derive(Debug)]
pub struct RulesInForce {
    set: Arc<RuleSet>,
    loaded_at: Timestamp,
    /// The number of occurrences that each rule has judged since the process began.
    hits: Vec<Arc<AtomicU64>>,
    /// The index of each anomaly's rule: a function of the key while these rules are in force. The
    /// least recently used entry is evicted first.
    known: Mutex<LruCache<AnomalyKey, u16>>,
}

impl RulesInForce {
    /// Creates the rules that come into force at `now`. A rule with the name of one that was in
    /// force `before` continues its count.
    pub(super) fn new(set: RuleSet, now: Timestamp, before: Option<&Self>) -> Self {
        let hits_of = |name: &str| {
            let before = before?;
            let index = before.set.rules().iter().position(|rule| rule.name() == name)?;
            before.hits.get(index).cloned()
        };
        let hits = set.rules().iter().map(|rule| hits_of(rule.name()).unwrap_or_default());
        let hits = hits.collect();
        let known = Mutex::new(LruCache::unbounded());
        Self { set: Arc::new(set), loaded_at: now, hits, known }
    }

    /// Returns the rules, in their order.
    pub fn set(&self) -> &Arc<RuleSet> {
        &self.set
    }

    /// Returns the time at which they came into force.
    pub fn loaded_at(&self) -> Timestamp {
        self.loaded_at
    }

    /// Returns the number of occurrences that the rule with this index has judged.
    pub fn hits(&self, index: usize) -> u64 {
        self.hits.get(index).map_or(0, |hits| hits.load(Ordering::Relaxed))
    }

    /// Counts an occurrence that a rule has judged.
    pub fn note_hit(&self, rule: &RuleRef) {
        let index = match Arc::ptr_eq(rule.set(), &self.set) {
            true => Some(rule.index()),
            // Other rules have come into force in the meantime.
            false => self.set.rules().iter().position(|r| r.name() == rule.rule().name()),
        };
        if let Some(hits) = index.and_then(|index| self.hits.get(index)) {
            hits.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the rule of an anomaly without its fields, if it is known or there is only one rule.
    pub fn known_rule(&self, key: AnomalyKey) -> Option<RuleRef> {
        if self.set.has_only_default() {
            return Some(self.default_rule());
        }
        let index = self.known.lock().get(&key).copied()?;
        Some(RuleRef::new(Arc::clone(&self.set), index.into()))
    }

    /// Gives each occurrence the rule that judges it.
    pub fn assign<'a>(&self, occurrences: impl IntoIterator<Item = &'a mut Occurrence>) {
        for occurrence in occurrences {
            occurrence.rule = Some(self.rule_of(occurrence.key, &occurrence.signature_json));
        }
    }

    /// Returns the rule of an anomaly, given the object of its post.
    fn rule_of(&self, key: AnomalyKey, posted: &SignatureJson) -> RuleRef {
        self.known_rule(key).unwrap_or_else(|| self.rule_by(key, Some(&posted.to_stored())))
    }

    /// Returns the rule of an anomaly, given the object that is stored with it. Returns the rule
    /// `default` if the object is missing or can't be read.
    pub fn rule_by(&self, key: AnomalyKey, stored: Option<&str>) -> RuleRef {
        // The four fields are stored as the key is computed from them: they are mapped before an
        // occurrence is created.
        let signature = stored.and_then(Signature::from_stored);
        let Some(signature) = signature else { return self.default_rule() };
        let index = self.set.index_of(&signature);
        let mut known = self.known.lock();
        if known.len() >= MAX_KNOWN && !known.contains(&key) {
            known.pop_lru();
        }
        known.put(key, index as u16);
        drop(known);
        RuleRef::new(Arc::clone(&self.set), index)
    }

    /// Returns the rule of an anomaly, given its fields, without keeping it: of a million anomalies
    /// in a scan, few are requested again.
    pub fn rule_of_fields(&self, key: AnomalyKey, fields: Option<&Signature>) -> RuleRef {
        let by_fields = |fields| RuleRef::new(Arc::clone(&self.set), self.set.index_of(fields));
        let rule = self.known_rule(key).or_else(|| fields.map(by_fields));
        rule.unwrap_or_else(|| self.default_rule())
    }

    /// Returns the rule `default`, for an anomaly whose fields are not known.
    pub fn default_rule(&self) -> RuleRef {
        RuleRef::of_unknown(Arc::clone(&self.set))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{RuleSource, Thresholds};

    fn in_force(rules: &str, before: Option<&RulesInForce>) -> RulesInForce {
        let sources: Vec<RuleSource> = serde_json::from_str(rules).unwrap();
        let thresholds = Thresholds::new(3, 5, 10).unwrap();
        let set = RuleSet::parse(&sources, thresholds, 86_400, None).unwrap();
        RulesInForce::new(set, Timestamp::MIN, before)
    }

    fn key(bits: u64) -> AnomalyKey {
        AnomalyKey::from_bits(bits)
    }

    const DEV: &str = r#"[{"name": "dev", "match": ["namespace=\"dev\""], "levels": "none"}]"#;

    #[test]
    fn the_rule_of_an_anomaly_is_known_once_its_fields_were_seen() {
        let rules = in_force(DEV, None);
        assert_eq!(rules.known_rule(key(1)), None);
        let posted = SignatureJson::from(r#"{"alertname":"A","namespace":"dev"}"#);
        assert_eq!(rules.rule_of(key(1), &posted).rule().name(), "dev");
        assert_eq!(rules.known_rule(key(1)).unwrap().rule().name(), "dev");
        for unreadable in [None, Some("no JSON"), Some("{}"), Some(r#"{"alert_name":7}"#)] {
            let unknown = rules.rule_by(key(2), unreadable);
            let because = unknown.judge(Default::default()).because;
            assert_eq!(because, "0 in 24h < 3 (rule default: its signature is not known)");
            assert_eq!(rules.known_rule(key(2)), None, "it may become known");
        }
    }

    #[test]
    fn without_rules_no_field_is_looked_at() {
        let rules = in_force("[]", None);
        let rule = rules.known_rule(key(1)).unwrap();
        assert_eq!(rule.judge(Default::default()).because, "0 in 24h < 3 (rule default)");
    }

    #[test]
    fn no_more_rules_of_anomalies_are_kept_than_the_limit() {
        let rules = in_force(DEV, None);
        for bits in 0..=MAX_KNOWN as u64 {
            rules.rule_by(key(bits), Some(r#"{"alert_name":"A"}"#));
        }
        assert_eq!(rules.known.lock().len(), MAX_KNOWN);
        assert!(rules.known_rule(key(0)).is_none() && rules.known_rule(key(1)).is_some());
    }

    #[test]
    fn a_rule_of_the_same_name_goes_on_counting() {
        let before = in_force(DEV, None);
        let dev = before.rule_by(key(1), Some(r#"{"alert_name":"A","namespace":"dev"}"#));
        before.note_hit(&dev);
        let more = r#"[{"name": "first", "match": ["namespace=\"x\""]}, {"name": "dev"}]"#;
        let after = in_force(more, Some(&before));
        after.note_hit(&dev);
        assert_eq!((after.hits(0), after.hits(1), after.hits(2)), (0, 2, 0));
    }
}
