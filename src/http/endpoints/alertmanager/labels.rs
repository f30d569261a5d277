//! Reads the labels of an alert: the anomaly that they identify, and the object that is stored with
//! it.

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    domain::{AnomalyConfig, AnomalyKey, KeyMapping, PostedTo, SignatureJson},
    http::problem::Problem,
};

/// The anomaly that the labels of an alert identify.
pub(super) struct ReadLabels {
    pub(super) key: AnomalyKey,
    /// The object that is stored with the anomaly.
    pub(super) signature_json: SignatureJson,
    pub(super) notes: LabelNotes,
}

/// Notes about the labels of an alert.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(in crate::http) struct LabelNotes {
    /// The names of identifying labels that were cut because they had more than 1,024 characters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, required = false)]
    cut_labels: Vec<&'static str>,
    /// True if the four fields differ from the labels of these names, because another label names
    /// the workload or the service rewrote a field. Present if true.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false, example = true)]
    mapped: bool,
}

/// Reads the labels of an alert. They are stored with the annotations; both were checked to be
/// JSON objects.
pub(super) fn read(
    labels: &RawValue,
    annotations: Option<&RawValue>,
    keys: &KeyMapping,
    config: AnomalyConfig,
) -> Result<ReadLabels, Problem> {
    let posted = keys
        .read(PostedTo::Webhook, labels.get())
        .map_err(|error| Problem::field("labels", format!("can't be read: {error}")))?;
    let mapped = keys.map(&posted)?;
    let cut_labels = posted.cut_labels();
    let replaced = &mapped.replaced;
    Ok(ReadLabels {
        key: mapped.signature.key(),
        signature_json: SignatureJson::of_alert(labels, annotations, &cut_labels, replaced, config),
        notes: LabelNotes { cut_labels, mapped: mapped.is_mapped() },
    })
}
