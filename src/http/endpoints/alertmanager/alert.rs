//! The alerts of a delivery.

use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::{
    domain::{AnomalyConfig, EventId, MAX_AHEAD_SECONDS, Timestamp},
    http::{
        bodies::{CutOccurrence, read_labels, schemas},
        config::CountBy,
        extract::{CheckedJson, JsonValue, members, parse},
        problem::Problem,
    },
};

/// An alert of a delivery. Its labels are the fields of an occurrence; they and the annotations are
/// kept with the anomaly.
#[derive(Debug, ToSchema)]
#[schema(as = Alert, rename_all = "camelCase")]
pub(in crate::http) struct AlertRequest<'a> {
    /// `firing`, or `resolved`, which does not count.
    #[schema(required, value_type = String, pattern = "^(firing|resolved)$", example = "firing")]
    status: Option<&'a RawValue>,
    /// The labels, which identify the anomaly.
    #[schema(required, value_type = Object)]
    labels: Option<&'a RawValue>,
    /// Texts for people.
    #[schema(value_type = Option<Object>, nullable = false)]
    annotations: Option<&'a RawValue>,
    /// The beginning of the episode. A time ahead of the service's clock counts as now.
    #[schema(required, value_type = schemas::Time)]
    starts_at: Option<&'a RawValue>,
    /// The id of the alert; made from the labels where it is missing.
    #[schema(
        value_type = Option<String>, nullable = false, max_length = 100,
        example = "e3b6f5c0a1d2b4f7",
    )]
    fingerprint: Option<&'a RawValue>,
}

/// What the answer says of an alert beside its result.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct AlertHead {
    /// The alert's own, where it is a text.
    #[schema(required, example = "e3b6f5c0a1d2b4f7")]
    pub(super) fingerprint: Option<String>,
    /// The identifying labels that were longer than 1,024 characters, and were cut.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, required = false)]
    pub(super) cut_labels: Vec<&'static str>,
}

impl<'a> AlertRequest<'a> {
    pub(super) fn parse(alert: &'a RawValue) -> Result<Self, Problem> {
        let names = ["status", "labels", "annotations", "startsAt", "fingerprint"];
        let Some([status, labels, annotations, starts_at, fingerprint]) = members(alert, names)
        else {
            return Err(Problem::wrong_type("alerts", "an array of objects", type_of(alert)?));
        };
        Ok(Self { status, labels, annotations, starts_at, fingerprint })
    }

    /// Returns `None` for a resolved alert, because the end of an episode is no occurrence.
    pub(super) fn read(
        &self,
        count: CountBy,
        now: Timestamp,
        config: AnomalyConfig,
    ) -> Result<Option<CutOccurrence>, Problem> {
        match text_of(self.status).as_deref() {
            Some("firing") => {}
            Some("resolved") => return Ok(None),
            _ => return Err(Problem::field("status", "must be \"firing\" or \"resolved\"")),
        }
        let labels = self.labels.ok_or_else(|| Problem::field("labels", "is missing"))?;
        if !is_object(labels) {
            return Err(Problem::wrong_type("labels", "an object", type_of(labels)?));
        }
        let began_at = self.began_at()?;
        // An alert that fires now did not begin later: the sender's clock is ahead, and the alert
        // is counted as of now rather than lost. Its id stays that of the episode.
        let is_ahead = began_at > now.plus_seconds(MAX_AHEAD_SECONDS);
        let (id, at) = match count {
            CountBy::Episode => {
                (self.episode_id(labels, began_at)?, if is_ahead { now } else { began_at })
            }
            CountBy::Delivery => (EventId::unique(), now),
        };
        let annotations = self.annotations.filter(|annotations| is_object(annotations));
        read_labels(labels, annotations, id, at, config).map(Some)
    }

    fn began_at(&self) -> Result<Timestamp, Problem> {
        let Some(text) = text_of(self.starts_at) else {
            return Err(Problem::field("startsAt", "must be an RFC 3339 time"));
        };
        Timestamp::parse_rfc3339(&text).map_err(|error| Problem::field("startsAt", error))
    }

    pub(super) fn given_fingerprint(&self) -> Option<String> {
        text_of(self.fingerprint)
    }

    /// Returns the id of the episode: `<fingerprint>@<startsAt>`, the time in one spelling.
    fn episode_id(&self, labels: &RawValue, began_at: Timestamp) -> Result<EventId, Problem> {
        let fingerprint = match self.fingerprint {
            None => fingerprint_of(labels)?,
            Some(given) => match text_of(Some(given)) {
                Some(text) if !text.is_empty() => text,
                Some(_) => fingerprint_of(labels)?,
                None => {
                    return Err(Problem::wrong_type("fingerprint", "a string", type_of(given)?));
                }
            },
        };
        EventId::parse(&format!("{fingerprint}@{began_at}")).map_err(|_| {
            Problem::field("fingerprint", "must be up to 100 printable ASCII characters")
        })
    }
}

/// Replaces the fingerprint that Alertmanager before 0.19 does not send: like the label set itself,
/// it distinguishes alerts.
fn fingerprint_of(labels: &RawValue) -> Result<String, Problem> {
    let labels: Map<String, Value> = parse(labels.get())?;
    let mut sorted: Vec<_> = labels.iter().map(|(name, value)| (name, value.to_string())).collect();
    sorted.sort();
    let mut hash = Sha256::new();
    for (name, value) in sorted {
        hash.update(format!("{name}={value}\n"));
    }
    let digest = hash.finalize();
    Ok(digest[..8].iter().map(|byte| format!("{byte:02x}")).collect())
}

fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

pub(super) fn type_of(value: &RawValue) -> Result<&'static str, Problem> {
    parse(value.get()).map(|CheckedJson(type_name)| type_name)
}

fn text_of(value: Option<&RawValue>) -> Option<String> {
    match parse(value?.get()) {
        Ok(JsonValue::Text(text)) => Some(text.into_owned()),
        _ => None,
    }
}
