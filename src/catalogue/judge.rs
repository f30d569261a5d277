//! Finds the rules that judge the anomalies of one query. Whether a rule matches depends only on
//! the four identifying fields, and the rules that a text permits are determined once for each
//! distinct text: a million anomalies have a few thousand of them. So nothing is stored with an
//! anomaly that other rules would make wrong.

use std::{cell::RefCell, sync::Arc};

use crate::domain::{FieldIds, RuleRef, RuleSet, Signature, TextId, Texts};

/// Number of rules whose verdicts fit into one number.
const RULES_OF_WORD: usize = u64::BITS as usize;

/// Maximum number of texts whose verdicts are kept for the next query.
const MAX_KEPT_TEXTS: usize = 100_000;

/// Finds the rules of anomalies.
#[derive(Debug)]
pub(super) struct Judge {
    set: Arc<RuleSet>,
    /// The rules, in the order of the set.
    rules: Vec<RuleRef>,
    of_unknown: RuleRef,
    permits: RefCell<Permits>,
}

/// The rules that each value of a field permits, for one set of rules and one of texts.
#[derive(Debug)]
pub(super) struct Permits {
    set: Arc<RuleSet>,
    /// The fields that rules match, as indices into [`Signature::FIELDS`].
    fields: Vec<usize>,
    words: usize,
    /// The version of each text's number, indexed by that number; 0 if nothing is known of it.
    versions: Vec<u32>,
    /// For each text, and each of the fields, a bit for each rule.
    bits: Vec<u64>,
}

impl Judge {
    /// Creates the judge of a query. `known` is the result of an earlier one.
    pub(super) fn new(set: Arc<RuleSet>, known: Option<Permits>) -> Self {
        let known = known.filter(|known| Arc::ptr_eq(&known.set, &set));
        let rule = |index| RuleRef::new(Arc::clone(&set), index);
        Self {
            rules: (0..set.rules().len()).map(rule).collect(),
            of_unknown: RuleRef::of_unknown(Arc::clone(&set)),
            permits: RefCell::new(known.unwrap_or_else(|| Permits::new(Arc::clone(&set)))),
            set,
        }
    }

    /// Returns the rule of the anomaly with these fields, which may not be known.
    #[inline]
    pub(super) fn rule(&self, texts: &Texts, fields: Option<FieldIds>) -> &RuleRef {
        match fields {
            Some(fields) if !self.set.has_only_default() => self.first(texts, fields),
            _ => &self.of_unknown,
        }
    }

    fn first(&self, texts: &Texts, fields: FieldIds) -> &RuleRef {
        let index = self.permits.borrow_mut().first(texts, fields);
        self.rules.get(index).unwrap_or(&self.of_unknown)
    }

    /// Returns its results for the next query, unless they are too many to keep.
    pub(super) fn into_known(self) -> Option<Permits> {
        let known = self.permits.into_inner();
        (known.versions.len() <= MAX_KEPT_TEXTS).then_some(known)
    }
}

impl Permits {
    fn new(set: Arc<RuleSet>) -> Self {
        let is_looked_at = |field: &usize| set.rules().iter().any(|rule| rule.looks_at(*field));
        Self {
            fields: (0..Signature::FIELDS.len()).filter(is_looked_at).collect(),
            words: set.rules().len().div_ceil(RULES_OF_WORD),
            set,
            versions: Vec::new(),
            bits: Vec::new(),
        }
    }

    /// Returns the index of the first rule that all fields permit.
    fn first(&mut self, texts: &Texts, fields: FieldIds) -> usize {
        for field in 0..self.fields.len() {
            self.look_at(texts, fields[self.fields[field]]);
        }
        for word in 0..self.words {
            let permitted = self.fields.iter().enumerate().fold(u64::MAX, |all, (place, field)| {
                all & self.bits[self.start(fields[*field]) + place * self.words + word]
            });
            if permitted != 0 {
                return word * RULES_OF_WORD + permitted.trailing_zeros() as usize;
            }
        }
        self.set.rules().len() - 1
    }

    /// Returns the index at which the bits of a text begin.
    fn start(&self, id: TextId) -> usize {
        id.index() * self.fields.len() * self.words
    }

    /// Determines the rules that a text permits, unless they are known.
    fn look_at(&mut self, texts: &Texts, id: TextId) {
        let (index, version) = (id.index(), texts.version(id));
        if self.versions.get(index) == Some(&version) {
            return;
        }
        if self.versions.len() <= index {
            self.versions.resize(index + 1, 0);
            self.bits.resize(self.versions.len() * self.fields.len() * self.words, 0);
        }
        let text = texts.get(id).map(|text| &**text).unwrap_or_default();
        let start = self.start(id);
        for (place, field) in self.fields.iter().enumerate() {
            for word in 0..self.words {
                let rules = self.set.rules().iter().skip(word * RULES_OF_WORD);
                let bits = rules.take(RULES_OF_WORD).enumerate().fold(0, |bits, (bit, rule)| {
                    bits | u64::from(rule.permits(*field, text)) << bit
                });
                self.bits[start + place * self.words + word] = bits;
            }
        }
        self.versions[index] = version;
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};
    use serde_json::json;

    use super::*;
    use crate::domain::{RuleSource, Thresholds};

    fn set(rules: &serde_json::Value) -> Arc<RuleSet> {
        let sources: Vec<RuleSource> = serde_json::from_str(&rules.to_string()).unwrap();
        RuleSet::parse(&sources, Thresholds::new(3, 5, 10).unwrap(), 86_400, None).unwrap().into()
    }

    fn signature(texts: &[String; 4]) -> Option<Signature> {
        let named = Signature::FIELDS.map(|(name, _)| name).into_iter().zip(texts);
        let find = |name: &str| named.clone().find(|(other, _)| *other == name).map(|(_, t)| &**t);
        Signature::from_lookup(|name| find(name).map(Ok)).ok()
    }

    fn any_matcher() -> impl Strategy<Value = String> {
        let field = select(vec!["alert_name", "service", "namespace", "error_type"]);
        let operator = select(vec!["=", "!=", "=~", "!~"]);
        (field, operator, "[ab]{0,2}").prop_map(|(field, operator, value)| {
            let value = if operator.ends_with('~') { format!("{value}.*") } else { value };
            format!("{field}{operator}\"{value}\"")
        })
    }

    proptest! {
        /// Includes numbers that come to stand for another text, and more rules than a number has
        /// bits.
        #[test]
        fn the_rule_is_the_first_that_matches(
            matchers in vec(vec(any_matcher(), 1..4), 0..100),
            all_texts in vec(["[ab]{0,2}", "[ab]{0,2}", "[ab]{0,2}", "[ab]{0,2}"], 1..20),
        ) {
            let rule = |(number, matchers): (usize, &Vec<String>)| {
                json!({"name": format!("r{number}"), "match": matchers})
            };
            let set = set(&matchers.iter().enumerate().map(rule).collect());
            let mut texts = Texts::default();
            let mut known = None;
            for all in all_texts {
                let Some(signature) = signature(&all) else { continue };
                let fields = texts.add(&signature).unwrap();
                let judge = Judge::new(Arc::clone(&set), known);
                let rule = judge.rule(&texts, Some(fields));
                prop_assert_eq!(rule.index(), set.index_of(&signature));
                texts.remove(fields);
                known = judge.into_known();
            }
        }
    }

    #[test]
    fn the_results_of_other_rules_are_not_reused() {
        let of_a = json!([{"name": "a", "match": ["alert_name=\"A\""]}]);
        let none = json!([{"name": "b", "match": ["alert_name=\"B\""]}]);
        let mut texts = Texts::default();
        let fields = texts.add(&signature(&["A", "", "", ""].map(str::to_owned)).unwrap());
        let judge = Judge::new(set(&of_a), None);
        assert_eq!(judge.rule(&texts, fields).rule().name(), "a");
        let judge = Judge::new(set(&none), judge.into_known());
        assert_eq!(judge.rule(&texts, fields).rule().name(), "default");
        let unknown = judge.rule(&texts, None).judge(Default::default());
        assert!(unknown.because.ends_with("its signature is not known)"), "{}", unknown.because);
    }
}
