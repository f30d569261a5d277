//! The section `key` of the configuration.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    fields::{Field, Fields, StepKind},
    mask::Mask,
    relabel::{InvalidRelabel, Relabel, RelabelOptions},
};

/// Maximum number of relabelling rules.
const MAX_RULES: usize = 64;

/// The section as it is written, before it is checked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyOptions {
    /// True if the preset for Kubernetes also applies to `POST /anomalies`.
    kubernetes: bool,
    /// Rules that rewrite the four fields, in this order: 64 at most.
    relabel: Vec<RelabelOptions>,
    /// The masks of each field.
    #[serde(default)]
    mask: MaskOptions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MaskOptions {
    alert_name: Vec<Mask>,
    service: Vec<Mask>,
    namespace: Vec<Mask>,
    error_type: Vec<Mask>,
}

/// The section `key` of the configuration: how the four fields are rewritten before the key of an
/// anomaly is computed from them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(try_from = "KeyOptions")]
pub struct KeyConfig {
    /// True if the preset for Kubernetes applies to `POST /anomalies`.
    pub(super) kubernetes: bool,
    relabel: Vec<Relabel>,
    /// The masks of each field, in the order in which they apply.
    masks: [Vec<Mask>; 4],
}

/// A fault of the section.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeyConfig {
    /// There are too many rules.
    #[error("`relabel` has more than {MAX_RULES} rules: write fewer")]
    TooManyRules,
    /// A rule can't be used; the first is 1.
    #[error("relabel rule {number}: {fault}")]
    Rule {
        /// The number of the rule.
        number: usize,
        /// The fault of the rule.
        fault: InvalidRelabel,
    },
}

impl TryFrom<KeyOptions> for KeyConfig {
    type Error = InvalidKeyConfig;

    fn try_from(options: KeyOptions) -> Result<Self, InvalidKeyConfig> {
        let KeyOptions { kubernetes, relabel, mask } = options;
        if relabel.len() > MAX_RULES {
            return Err(InvalidKeyConfig::TooManyRules);
        }
        let numbered = (1..).zip(relabel);
        let relabel = numbered.map(|(number, options)| {
            Relabel::try_from(options).map_err(|fault| InvalidKeyConfig::Rule { number, fault })
        });
        let relabel = relabel.collect::<Result<_, _>>()?;
        let MaskOptions { alert_name, service, namespace, error_type } = mask;
        let masks = [alert_name, service, namespace, error_type].map(|mut masks| {
            masks.sort();
            masks.dedup();
            masks
        });
        Ok(Self { kubernetes, relabel, masks })
    }
}

impl KeyConfig {
    /// Returns true if it rewrites the fields of objects posted to `POST /anomalies`.
    pub(super) fn maps_posts(&self) -> bool {
        self.kubernetes || !self.relabel.is_empty() || self.masks.iter().any(|m| !m.is_empty())
    }

    /// Returns the names of all sources of its rules.
    pub(super) fn sources(&self) -> impl Iterator<Item = &str> {
        self.relabel.iter().flat_map(Relabel::sources)
    }

    /// Applies the rules in order.
    pub(super) fn relabel<'p>(
        &self,
        fields: &mut Fields<'_>,
        posted: impl Fn(&str) -> &'p str + Copy,
    ) {
        for (number, rule) in (1..).zip(&self.relabel) {
            rule.apply(number, fields, posted);
        }
    }

    /// Applies the masks until they match nothing more: the result of one mask may be an address
    /// for another.
    pub(super) fn mask(&self, fields: &mut Fields<'_>) {
        for (field, masks) in Field::ALL.into_iter().zip(&self.masks) {
            loop {
                let before = fields.get(field).to_owned();
                for &mask in masks {
                    let masked = mask.apply(fields.get(field));
                    fields.set(field, &masked, || StepKind::Mask(mask));
                }
                if fields.get(field) == before {
                    break;
                }
            }
        }
    }

    /// Returns its whole content, for the checksum.
    pub(super) fn to_json(&self) -> Value {
        let rules: Vec<Value> = self.relabel.iter().map(Relabel::to_json).collect();
        let names = |masks: &Vec<Mask>| masks.iter().map(|mask| mask.name()).collect::<Vec<_>>();
        let masks: Vec<_> = self.masks.iter().map(names).collect();
        json!([self.kubernetes, rules, masks])
    }
}
