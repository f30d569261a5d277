//! `/webhooks/alertmanager`: deliveries of Prometheus' Alertmanager (version 4) and of Grafana
//! (version 1). See <https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>.
//!
//! Alertmanager sends every alert of a group again and again for as long as it fires. So an
//! occurrence is an *episode*: a fingerprint and the time at which it began. Alertmanager repeats a
//! delivery after a 5xx and drops it after a 4xx, so that a 4xx is only for what no repetition
//! would mend.

use axum::{Extension, Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::{
    AppState,
    anomalies::CountedBody,
    body::JsonBody,
    degraded::written_all,
    fields::{Fields, wrong_type},
    layers::access,
    occurrence,
    problem::Problem,
    schemas,
};
use crate::{
    auth::Caller,
    counter::{Answered, Counted},
    domain::{EventId, MAX_AHEAD_SECONDS, Occurrence, Timestamp},
    telemetry,
};

/// The section `alertmanager` of the configuration.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertmanagerConfig {
    /// What counts as an occurrence.
    pub count: CountBy,
}

/// What of a firing alert counts as an occurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CountBy {
    /// Its beginning, however often it is delivered.
    Episode,
    /// Every delivery of it.
    Delivery,
}

/// A delivery of Alertmanager (version 4) or Grafana (version 1). Its other fields are passed over.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is read field by field")]
#[schema(
    as = Delivery,
    example = json!({"version": "4", "alerts": [{
        "status": "firing", "startsAt": "2026-11-22T14:21:22Z", "fingerprint": "e3b6f5c0a1d2b4f7",
        "labels": {"alertname": "HighCPU", "service": "api"}, "annotations": {"summary": "CPU above 90 %"},
    }]})
)]
struct DeliveryRequest {
    /// The alerts; whatever is no alert fails itself alone.
    #[schema(schema_with = schemas::array_of_anything_like::<AlertRequest>)]
    alerts: Vec<AlertRequest>,
}

/// An alert of a delivery. Its labels are the fields of an occurrence; they and the annotations are kept with the
/// anomaly.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is read field by field")]
#[schema(as = Alert, rename_all = "camelCase")]
pub(super) struct AlertRequest {
    /// `firing`, or `resolved`, which does not count.
    #[schema(pattern = "^(firing|resolved)$", example = "firing")]
    status: String,
    /// What identifies the anomaly, and more.
    #[schema(value_type = Object)]
    labels: Map<String, Value>,
    /// Texts for people.
    #[schema(value_type = Option<Object>, nullable = false)]
    annotations: Option<Map<String, Value>>,
    /// When the episode began. What is ahead of the service's clock counts as of now.
    #[schema(value_type = schemas::Time)]
    starts_at: String,
    /// What identifies the alert; made from the labels where it is missing.
    #[schema(nullable = false, max_length = 100, example = "e3b6f5c0a1d2b4f7")]
    fingerprint: Option<String>,
}

/// The answer to a delivery.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryResult)]
pub(super) struct DeliveryBody {
    /// How many of `alerts` count from this delivery on.
    #[schema(example = 1)]
    counted: usize,
    /// How many of `alerts` could not be read.
    #[schema(example = 0)]
    failed: usize,
    /// For each alert of the delivery, in its order.
    alerts: Vec<AlertBody>,
}

/// What became of an alert.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AlertResult)]
struct AlertBody {
    /// The alert's own, where it is a text.
    #[schema(required, example = "e3b6f5c0a1d2b4f7")]
    fingerprint: Option<String>,
    #[serde(flatten)]
    result: AlertResult,
}

/// What became of it, by its status.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase", tag = "status")]
#[schema(as = AlertStatus)]
enum AlertResult {
    /// An alert that fires, and its anomaly's frequency.
    Firing(Box<CountedBody>),
    /// The end of an episode.
    Resolved {
        /// Always false.
        counted: bool,
    },
    /// An alert that could not be read, or that the store refuses.
    Failed {
        /// Always false.
        counted: bool,
        problem: Problem,
    },
}

/// Take a delivery of Alertmanager or Grafana.
///
/// An occurrence is the beginning of an episode, told by `fingerprint` and `startsAt`: what is sent again counts once.
#[utoipa::path(
    post,
    path = access::WEBHOOK_PATH,
    tag = "anomalies",
    request_body = DeliveryRequest,
    responses(
        (status = 200, description = "What became of each alert.", body = DeliveryBody),
        (status = 202, description = "The store is away: some wait for it, and will count.", body = DeliveryBody),
    ),
)]
pub(super) async fn receive(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    body: Result<JsonBody, Problem>,
) -> Result<(StatusCode, Json<DeliveryBody>), Problem> {
    // Alertmanager drops what is answered 4xx: somebody has to know.
    let refused = |problem: &Problem| tracing::warn!(%problem, "a delivery is refused and lost");
    let delivered = body.and_then(|JsonBody(body)| alerts_of(body)).inspect_err(refused)?;
    access::admit_events(&caller, delivered.len())?;
    let now = state.counter.now();
    let mut fingerprints = Vec::new();
    let mut read = Vec::new();
    for alert in delivered {
        fingerprints.push(text_at(&alert, "fingerprint").map(str::to_owned));
        read.push(read_alert(&alert, state.alertmanager.count, now));
    }
    let results = occurrence::record_readable(&state.counter, now, read).await;
    // Alertmanager sends the whole again, and an episode that was recorded counts once. (A delivery
    // has no id: where each one counts, a part of it may count twice.)
    let temporary = |result: &Result<_, Problem>| {
        result.as_ref().err().filter(|problem| problem.is_temporary()).cloned()
    };
    if let Some(problem) = results.iter().find_map(temporary) {
        return Err(problem);
    }
    let status = written_all(&results);
    let alerts = fingerprints.into_iter().zip(results).map(|(fingerprint, result)| {
        if let Err(problem) = &result {
            tracing::warn!(?fingerprint, %problem, "an alert of a delivery was not counted");
        }
        let result = AlertResult::from(result);
        telemetry::webhook_alert(result.told());
        AlertBody { fingerprint, result }
    });
    Ok((status, Json(DeliveryBody::new(alerts.collect()))))
}

impl DeliveryBody {
    fn new(alerts: Vec<AlertBody>) -> Self {
        let number =
            |is: fn(&AlertResult) -> bool| alerts.iter().filter(|alert| is(&alert.result)).count();
        Self {
            counted: number(|result| matches!(result, AlertResult::Firing(body) if body.counted())),
            failed: number(|result| matches!(result, AlertResult::Failed { .. })),
            alerts,
        }
    }
}

impl From<Result<Option<Answered<Counted>>, Problem>> for AlertResult {
    fn from(result: Result<Option<Answered<Counted>>, Problem>) -> Self {
        match result {
            Ok(Some(counted)) => Self::Firing(Box::new(counted.into())),
            Ok(None) => Self::Resolved { counted: false },
            Err(problem) => Self::Failed { counted: false, problem },
        }
    }
}

impl AlertResult {
    fn told(&self) -> telemetry::AlertResult {
        match self {
            Self::Firing(body) if body.counted() => telemetry::AlertResult::Counted,
            Self::Firing(_) => telemetry::AlertResult::NotCounted,
            Self::Resolved { .. } => telemetry::AlertResult::Resolved,
            Self::Failed { .. } => telemetry::AlertResult::Failed,
        }
    }
}

/// The alerts of a delivery, unread: one that is malformed fails itself alone.
pub(super) fn alerts_of(body: Value) -> Result<Vec<Value>, Problem> {
    let mut delivery = Fields::of("a delivery", body)?.rest();
    if let Some(truncated) = delivery.get("truncatedAlerts").and_then(Value::as_u64)
        && truncated > 0
    {
        telemetry::truncated_alerts(truncated);
        tracing::warn!(truncated, "a delivery left {truncated} alerts out: raise max_alerts");
    }
    match delivery.remove("alerts") {
        Some(Value::Array(alerts)) => Ok(alerts),
        Some(other) => Err(wrong_type("alerts", "an array", &other)),
        None => Err(Problem::field("alerts", "is missing: this is no delivery of Alertmanager")),
    }
}

/// Reads an alert; `None` for a resolved one, since the end of an episode is no occurrence.
pub(super) fn read_alert(
    alert: &Value,
    count: CountBy,
    now: Timestamp,
) -> Result<Option<Occurrence>, Problem> {
    let Value::Object(alert) = alert else {
        return Err(wrong_type("alerts", "an array of objects", alert));
    };
    match alert.get("status") {
        Some(Value::String(status)) if status == "firing" => {}
        Some(Value::String(status)) if status == "resolved" => return Ok(None),
        _ => {
            return Err(Problem::field("status", "must be \"firing\" or \"resolved\""));
        }
    }
    let labels = labels_of(alert)?;
    let began_at = began_at(alert)?;
    // An alert that fires now did not begin later: what lies too far ahead is the sender's clock,
    // and the alert is counted as of now rather than lost. Its id stays that of the episode.
    let is_ahead = began_at > now.plus_seconds(MAX_AHEAD_SECONDS);
    let (id, at) = match count {
        CountBy::Episode => {
            (episode_id(alert, labels, began_at)?, if is_ahead { now } else { began_at })
        }
        CountBy::Delivery => (EventId::unique(), now),
    };
    let mut fields = labels.clone();
    if let Some(annotations @ Value::Object(_)) = alert.get("annotations") {
        fields.insert("annotations".to_owned(), annotations.clone());
    }
    occurrence::of_fields(&fields, id, at).map(Some)
}

fn labels_of(alert: &Map<String, Value>) -> Result<&Map<String, Value>, Problem> {
    match alert.get("labels") {
        Some(Value::Object(labels)) => Ok(labels),
        Some(other) => Err(wrong_type("labels", "an object", other)),
        None => Err(Problem::field("labels", "is missing")),
    }
}

/// When the episode began.
fn began_at(alert: &Map<String, Value>) -> Result<Timestamp, Problem> {
    let Some(Value::String(text)) = alert.get("startsAt") else {
        return Err(Problem::field("startsAt", "must be an RFC 3339 time"));
    };
    Timestamp::parse_rfc3339(text).map_err(|error| Problem::field("startsAt", error))
}

/// Names the episode: `<fingerprint>@<startsAt>`, the time in one spelling.
fn episode_id(
    alert: &Map<String, Value>,
    labels: &Map<String, Value>,
    began_at: Timestamp,
) -> Result<EventId, Problem> {
    let fingerprint = match alert.get("fingerprint") {
        Some(Value::String(fingerprint)) if !fingerprint.is_empty() => fingerprint.clone(),
        Some(Value::String(_)) | None => fingerprint_of(labels),
        Some(other) => return Err(wrong_type("fingerprint", "a string", other)),
    };
    EventId::parse(&format!("{fingerprint}@{began_at}"))
        .map_err(|_| Problem::field("fingerprint", "must be up to 100 printable ASCII characters"))
}

/// Stands in for the fingerprint that Alertmanager before 0.19 does not send: as the label set
/// itself, it tells alerts apart.
fn fingerprint_of(labels: &Map<String, Value>) -> String {
    let mut sorted: Vec<_> = labels.iter().map(|(name, value)| (name, value.to_string())).collect();
    sorted.sort();
    let mut hash = Sha256::new();
    for (name, value) in sorted {
        hash.update(format!("{name}={value}\n"));
    }
    let digest = hash.finalize();
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text_at<'a>(alert: &'a Value, name: &str) -> Option<&'a str> {
    alert.get(name).and_then(Value::as_str)
}
