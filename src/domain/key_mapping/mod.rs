//! The mapping of posted fields and labels to the four fields that identify an anomaly. It rewrites
//! them before the canonical form is computed, which itself never changes.
//!
//! On the webhook, the steps are: empty labels are absent, `exported_…` labels win, the preset for
//! Kubernetes, the name of Grafana's rule, then the rules and the masks of the section `key`. On
//! `POST /anomalies`, only the section `key` applies. Each step sees the results of the steps
//! before it.

mod config;
mod fields;
mod kubernetes;
mod mask;
mod pod_name;
mod posted;
mod relabel;
mod webhook;

use std::collections::BTreeSet;

use serde_json::json;
use sha2::{Digest, Sha256};

use self::fields::Fields;
use super::{AnomalyKey, InvalidSignature, ReplacedField, Signature};

pub use self::{
    config::{InvalidKeyConfig, KeyConfig},
    fields::{Field, Step, StepKind},
    mask::Mask,
    posted::{PostedFields, PostedTo},
    relabel::InvalidRelabel,
};

/// Maps posted fields and labels to the four identifying fields.
#[derive(Clone, Debug)]
pub struct KeyMapping {
    config: KeyConfig,
    kubernetes_on_webhook: bool,
    /// The names of all members that it reads.
    sources: BTreeSet<String>,
}

/// The signature of a posted object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedSignature {
    /// The four fields after the mapping.
    pub signature: Signature,
    /// The fields that differ from those that identify the same object on `POST /anomalies` without
    /// a mapping.
    pub replaced: Vec<ReplacedField>,
}

impl MappedSignature {
    /// Returns true if the mapping has changed a field.
    pub fn is_mapped(&self) -> bool {
        !self.replaced.is_empty()
    }
}

/// A mapping of one object, step by step.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The four fields by the rules of `POST /anomalies` without a mapping.
    pub posted: [String; 4],
    /// The key of the posted fields; `None` if all four are empty.
    pub posted_key: Option<AnomalyKey>,
    /// The steps that changed a field, in order.
    pub steps: Vec<Step>,
    /// The key of the four fields after the mapping.
    pub key: AnomalyKey,
}

impl Default for KeyMapping {
    /// Creates the mapping without options.
    fn default() -> Self {
        Self::new(KeyConfig::default(), true)
    }
}

impl KeyMapping {
    /// Creates a mapping. `kubernetes_on_webhook` says whether the preset for Kubernetes applies to
    /// the labels of alerts.
    pub fn new(config: KeyConfig, kubernetes_on_webhook: bool) -> Self {
        let identifying = Field::ALL.into_iter().flat_map(Field::names);
        let built_in = identifying.chain(kubernetes::sources()).chain(webhook::sources());
        let mut sources: BTreeSet<String> = built_in.map(str::to_owned).collect();
        sources.extend(config.sources().map(str::to_owned));
        Self { config, kubernetes_on_webhook, sources }
    }

    /// Returns true if it may change the fields of objects posted to this call.
    pub fn maps(&self, to: PostedTo) -> bool {
        to == PostedTo::Webhook || self.config.maps_posts()
    }

    /// Returns a number that differs between mappings: two instances with different mappings would
    /// split an anomaly.
    pub fn checksum(&self) -> u32 {
        let whole = json!([self.kubernetes_on_webhook, self.config.to_json()]).to_string();
        let digest = Sha256::digest(whole);
        u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
    }

    /// Reads the members of a posted JSON object that it needs.
    ///
    /// # Errors
    /// Fails if `object` is not a JSON object.
    pub fn read<'a>(&self, to: PostedTo, object: &'a str) -> serde_json::Result<PostedFields<'a>> {
        PostedFields::of(to, object, |name| self.sources.contains(name))
    }

    /// Maps a posted object.
    ///
    /// # Errors
    /// Fails if an identifying field is not a string, or if all four are empty.
    pub fn map(&self, posted: &PostedFields<'_>) -> Result<MappedSignature, InvalidSignature> {
        let as_posted = posted.values()?;
        let mapped = self.apply(posted, &as_posted, None);
        let replaced = Field::ALL.into_iter().zip(as_posted.iter().zip(&mapped));
        let replaced = replaced.filter(|(_, (before, after))| before != after);
        let replaced = replaced.map(|(field, (_, value))| ReplacedField {
            name: field.name(),
            posted_as: posted.name_of(field),
            value: value.clone(),
        });
        let replaced = replaced.collect();
        Ok(MappedSignature { signature: Signature::of_values(mapped)?, replaced })
    }

    /// Maps a posted object, and returns each step.
    ///
    /// # Errors
    /// Fails as [`KeyMapping::map`] does.
    pub fn explain(&self, fields: &PostedFields<'_>) -> Result<Explanation, InvalidSignature> {
        let posted = fields.values()?;
        let mut steps = Vec::new();
        let mapped = self.apply(fields, &posted, Some(&mut steps));
        let posted_key = Signature::of_values(posted.clone()).ok().map(|posted| posted.key());
        Ok(Explanation { posted, posted_key, steps, key: Signature::of_values(mapped)?.key() })
    }

    fn apply(
        &self,
        posted: &PostedFields<'_>,
        as_posted: &[String; 4],
        trace: Option<&mut Vec<Step>>,
    ) -> [String; 4] {
        let mut fields = Fields::new(as_posted.clone(), trace);
        let text = |name: &str| posted.text(name);
        let is_webhook = posted.to == PostedTo::Webhook;
        let has_preset =
            if is_webhook { self.kubernetes_on_webhook } else { self.config.kubernetes };
        if is_webhook {
            webhook::apply_before_preset(&mut fields, text);
        }
        if has_preset && kubernetes::is_of_exporter(text) {
            kubernetes::apply(&mut fields, text);
        }
        if is_webhook {
            webhook::apply_after_preset(&mut fields, text);
        }
        self.config.relabel(&mut fields, text);
        self.config.mask(&mut fields);
        // The posted fields identify an anomaly: the occurrence counts, whatever the rules do.
        if fields.are_empty() {
            for (field, value) in Field::ALL.into_iter().zip(as_posted) {
                fields.set(field, value, || StepKind::Restored);
            }
        }
        fields.into_values()
    }
}
