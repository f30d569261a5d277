//! The alerts of a delivery.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::labels::{self, LabelNotes, ReadLabels};
use crate::{
    domain::{
        AlertEpisode, AlertState, AnomalyConfig, CountBy, EventId, Fingerprint, InvalidTimestamp,
        KeyMapping, Occurrence, Signature, Timestamp,
    },
    http::{
        bodies::schemas,
        extract::{CheckedJson, JsonValue, members, parse},
        problem::Problem,
    },
};

/// An alert of a delivery. Its labels identify the anomaly; labels and annotations are stored with
/// the anomaly.
#[derive(Debug, ToSchema)]
#[schema(as = Alert, rename_all = "camelCase")]
pub(in crate::http) struct AlertRequest<'a> {
    /// `firing` or `resolved`.
    #[schema(required, value_type = String, pattern = "^(firing|resolved)$", example = "firing")]
    status: Option<&'a RawValue>,
    /// The labels of the alert. Four of them identify the anomaly: `alertname`, `service` (or
    /// `job`), `namespace` and `error_type` (or `reason`). An empty label counts as absent.
    /// `exported_namespace`, `exported_service` and `exported_job` take precedence. If `service` or
    /// `job` is kube-state-metrics, the labels that name the workload are used instead.
    #[schema(required, value_type = Object)]
    labels: Option<&'a RawValue>,
    /// The annotations of the alert: texts for people.
    #[schema(value_type = Option<Object>, nullable = false)]
    annotations: Option<&'a RawValue>,
    /// The time at which the alert started firing. If it is missing, empty, null, before 1971, or
    /// ahead of the service's clock, the time of the delivery is used; but if the alert is known to
    /// fire, an unset time is that of the current episode.
    #[schema(value_type = Option<schemas::Time>)]
    starts_at: Option<&'a RawValue>,
    /// The time at which a resolved alert ended. The rules of `startsAt` for missing and invalid
    /// times apply. Ignored while the alert fires.
    #[schema(value_type = Option<schemas::Time>)]
    ends_at: Option<&'a RawValue>,
    /// The id of the alert, computed from the labels if it is missing. An id that is longer than
    /// 100 characters or not printable ASCII is replaced by its digest.
    #[schema(value_type = Option<String>, nullable = false, example = "e3b6f5c0a1d2b4f7")]
    fingerprint: Option<&'a RawValue>,
}

/// The alert that a result belongs to.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct AlertHead {
    /// The fingerprint in the delivery; null if there was none.
    #[schema(required, example = "e3b6f5c0a1d2b4f7")]
    pub(super) fingerprint: Option<String>,
    #[serde(flatten)]
    pub(super) labels: LabelNotes,
    #[serde(skip)]
    pub(super) is_resolved: bool,
}

impl<'a> AlertRequest<'a> {
    pub(super) fn parse(alert: &'a RawValue) -> Result<Self, Problem> {
        let names = ["status", "labels", "annotations", "startsAt", "endsAt", "fingerprint"];
        let Some([status, labels, annotations, starts_at, ends_at, fingerprint]) =
            members(alert, names)
        else {
            return Err(Problem::wrong_type("alerts", "an array of objects", type_of(alert)?));
        };
        Ok(Self { status, labels, annotations, starts_at, ends_at, fingerprint })
    }

    pub(super) fn is_resolved(&self) -> bool {
        text_of(self.status).as_deref() == Some("resolved")
    }

    /// Reads an alert that is delivered at `now`, with notes about its labels.
    pub(super) fn read(
        &self,
        count: CountBy,
        now: Timestamp,
        keys: &KeyMapping,
        config: AnomalyConfig,
    ) -> Result<(Occurrence, LabelNotes), Problem> {
        let annotations = self.readable_annotations();
        let state = self.state(annotations)?;
        let labels = self.labels.ok_or_else(|| Problem::field("labels", "is missing"))?;
        if !is_object(labels) {
            return Err(Problem::wrong_type("labels", "an object", type_of(labels)?));
        }
        let labels = as_texts(labels)?;
        let fingerprint = self.fingerprint(&labels)?;
        let episode = AlertEpisode {
            fingerprint: Fingerprint::of(&fingerprint),
            starts_at: time("startsAt", self.starts_at)?,
            delivered_at: now,
            state,
        };
        let (id, at) = match count {
            CountBy::Delivery if state == AlertState::Firing => (EventId::unique(), now),
            CountBy::Incident | CountBy::Episode | CountBy::Delivery => {
                (id_of(&fingerprint, &episode)?, episode.start())
            }
        };
        let ReadLabels { key, signature_json, notes } =
            labels::read(&labels, annotations, keys, config)?;
        let episode = Some(Box::new(episode));
        Ok((Occurrence { key, id, at, signature_json, episode, rule: None }, notes))
    }

    fn state(&self, annotations: Option<&RawValue>) -> Result<AlertState, Problem> {
        match text_of(self.status).as_deref() {
            Some("firing") => Ok(AlertState::Firing),
            Some("resolved") => {
                let ends_at = time("endsAt", self.ends_at)?;
                Ok(match is_interrupted(annotations) {
                    true => AlertState::Interrupted { ends_at },
                    false => AlertState::Resolved { ends_at },
                })
            }
            _ => Err(Problem::field("status", "must be \"firing\" or \"resolved\"")),
        }
    }

    /// Returns the annotations, unless they can't be read: they are for people only, so that is no
    /// fault.
    fn readable_annotations(&self) -> Option<&'a RawValue> {
        self.annotations.filter(|annotations| {
            is_object(annotations) && parse::<CheckedJson>(annotations.get()).is_ok()
        })
    }

    pub(super) fn given_fingerprint(&self) -> Option<String> {
        text_of(self.fingerprint)
    }

    /// Returns the fingerprint: as it was given, or its digest if it does not fit into an id.
    fn fingerprint(&self, labels: &RawValue) -> Result<String, Problem> {
        let given = self.fingerprint.and_then(|given| match given.get().as_bytes() {
            [b'"', ..] => text_of(Some(given)),
            [b'n' | b'{' | b'[', ..] => None,
            _ => Some(given.get().to_owned()),
        });
        let Some(given) = given.filter(|text| !text.is_empty()) else {
            return fingerprint_of(labels);
        };
        let fits = given.len() <= MAX_FINGERPRINT_BYTES
            && given.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        Ok(if fits { given } else { short_digest(Sha256::digest(given)) })
    }
}

/// The annotation in which Grafana gives the reason of an alert's state, and the reasons that are
/// about its rule and not about its cause.
const STATE_REASON: &str = "grafana_state_reason";
const INTERRUPTIONS: [&str; 3] = ["Updated", "Paused", "RuleDeleted"];

/// Returns whether Grafana says that an alert has ended because of its rule.
fn is_interrupted(annotations: Option<&RawValue>) -> bool {
    let reason = annotations.and_then(|annotations| members(annotations, [STATE_REASON]));
    let Some(reasons) = reason.and_then(|[reason]| text_of(reason)) else { return false };
    reasons.split(',').any(|reason| INTERRUPTIONS.contains(&reason.trim()))
}

/// Returns the id of the occurrence that an episode may be: `<fingerprint>@<startsAt>`, with the
/// time in one spelling.
fn id_of(fingerprint: &str, episode: &AlertEpisode) -> Result<EventId, Problem> {
    let id = format!("{fingerprint}@{}", episode.starts_at.unwrap_or_else(|| episode.start()));
    EventId::parse(&id).map_err(|error| Problem::field("fingerprint", error))
}

/// Reads a time; `None` if it is unset.
fn time(name: &'static str, given: Option<&RawValue>) -> Result<Option<Timestamp>, Problem> {
    let Some(given) = given.filter(|given| given.get() != "null") else { return Ok(None) };
    let fault = |error| Problem::field(name, error);
    let text = text_of(Some(given)).ok_or_else(|| fault(InvalidTimestamp))?;
    if text.trim().is_empty() || text.starts_with(GO_ZERO_DATE) {
        return Ok(None);
    }
    let at = Timestamp::parse_rfc3339(&text).map_err(fault)?;
    Ok(Some(at).filter(|at| *at >= EARLIEST_START))
}

/// Maximum length of a fingerprint: together with the time, an id has at most 128 characters.
const MAX_FINGERPRINT_BYTES: usize = 100;

/// The beginning of a time that was never set, as Go prints it in any form and zone.
const GO_ZERO_DATE: &str = "0001-01-01";

/// No alert has begun before 1971: a time around 1970 was never set either.
const EARLIEST_START: Timestamp = Timestamp::from_micros(31_536_000 * 1_000_000);

/// Returns the labels with texts as identifying ones: a number or a boolean becomes its text, and a
/// label that is null is absent.
fn as_texts(labels: &RawValue) -> Result<Cow<'_, RawValue>, Problem> {
    let unreadable = |error| Problem::field("labels", format!("can't be read: {error}"));
    serde_json::from_str::<CheckedJson>(labels.get()).map_err(unreadable)?;
    let members: BTreeMap<String, &RawValue> =
        serde_json::from_str(labels.get()).map_err(unreadable)?;
    let is_number_or_boolean = |value: &RawValue| !value.get().starts_with(['"', '{', '[']);
    let is_odd = |(name, value): (&String, &&RawValue)| {
        value.get() == "null" || is_number_or_boolean(value) && Signature::is_identifying(name)
    };
    if !members.iter().any(is_odd) {
        return Ok(Cow::Borrowed(labels));
    }
    let mut texts = Vec::with_capacity(members.len());
    for (name, value) in members.iter().filter(|(_, value)| value.get() != "null") {
        let text = if is_odd((name, value)) {
            let value: Value = serde_json::from_str(value.get()).map_err(unreadable)?;
            Value::from(value.to_string()).to_string()
        } else {
            value.get().to_owned()
        };
        texts.push(format!("{}:{text}", Value::from(name.as_str())));
    }
    let object = format!("{{{}}}", texts.join(","));
    RawValue::from_string(object).map(Cow::Owned).map_err(unreadable)
}

/// Computes the fingerprint that Alertmanager before 0.19 does not send: like the label set itself,
/// it distinguishes alerts.
fn fingerprint_of(labels: &RawValue) -> Result<String, Problem> {
    let labels: Map<String, Value> = parse(labels.get())?;
    let mut sorted: Vec<_> = labels.iter().map(|(name, value)| (name, value.to_string())).collect();
    sorted.sort();
    let mut hash = Sha256::new();
    for (name, value) in sorted {
        hash.update(format!("{name}={value}\n"));
    }
    Ok(short_digest(hash.finalize()))
}

fn short_digest(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
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
