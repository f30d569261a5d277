//! `/webhooks/alertmanager`: deliveries of Prometheus' Alertmanager (version 4) and of Grafana
//! (version 1). See <https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>.
//!
//! Alertmanager sends every alert of a group again and again for as long as it fires. So an
//! occurrence is an *episode*: a fingerprint and the time at which it began. Alertmanager repeats a
//! delivery after a 5xx and drops it after a 4xx, so that a 4xx is only for what no repetition
//! would fix.

use std::sync::LazyLock;

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::endpoint::{Access, Endpoint};
use crate::{
    auth::Scope,
    domain::{EventId, MAX_AHEAD_SECONDS, Occurrence, Timestamp},
    http::{
        bodies::{
            CountedBody, Recorded, read_labels, record_each, schemas, temporary_problem,
            write_status_of,
        },
        config::CountBy,
        extract::{CheckedJson, EventQuota, JsonText, JsonValue, members, parse},
        problem::{Problem, ProblemKind},
        state::AppState,
    },
    telemetry::{self, Counters, Label},
};

static WEBHOOK_ALERTS: LazyLock<Counters<AlertOutcome>> = LazyLock::new(telemetry::webhook_alerts);

/// Registers the metrics of deliveries. To be called after the recorder is installed.
pub(in crate::http) fn register_metrics() {
    LazyLock::force(&WEBHOOK_ALERTS);
}

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("alertmanager.deliver", routes!(deliver))
            .access(Access::ScopeOrSignature(Scope::Ingest)),
    ]
}

/// A delivery of Alertmanager (version 4) or Grafana (version 1). Its other fields are ignored.
#[derive(Debug, ToSchema)]
#[schema(
    as = Delivery,
    example = json!({"version": "4", "alerts": [{
        "status": "firing", "startsAt": "2026-11-22T14:21:22Z", "fingerprint": "e3b6f5c0a1d2b4f7",
        "labels": {"alertname": "HighCPU", "service": "api"},
        "annotations": {"summary": "CPU above 90 %"},
    }]})
)]
pub(in crate::http) struct DeliveryRequest<'a> {
    /// The alerts; whatever is no alert fails itself alone.
    #[schema(schema_with = schemas::array_of_anything_like::<AlertRequest<'_>>)]
    alerts: Vec<&'a RawValue>,
}

impl<'a> DeliveryRequest<'a> {
    pub(in crate::http) fn parse(text: &'a str) -> Result<Self, Problem> {
        let CheckedJson(type_name) = parse(text)?;
        let Some([alerts, truncated]) = members(parse(text)?, ["alerts", "truncatedAlerts"]) else {
            let detail = format!("a delivery must be a JSON object, not {type_name}");
            return Err(Problem::new(ProblemKind::InvalidField, detail));
        };
        if let Some(truncated) = truncated.and_then(|value| parse::<u64>(value.get()).ok())
            && truncated > 0
        {
            telemetry::truncated_alerts(truncated);
            tracing::warn!(truncated, "a delivery left {truncated} alerts out: raise max_alerts");
        }
        let Some(alerts) = alerts else {
            let fault = "is missing: this is no delivery of Alertmanager";
            return Err(Problem::field("alerts", fault));
        };
        match parse(alerts.get()) {
            Ok(alerts) => Ok(Self { alerts }),
            Err(_) => Err(Problem::wrong_type("alerts", "an array", type_of(alerts)?)),
        }
    }

    /// Reads each alert; one that is malformed fails alone.
    pub(in crate::http) fn read(
        &self,
        count: CountBy,
        now: Timestamp,
    ) -> impl Iterator<Item = (Option<String>, Result<Option<Occurrence>, Problem>)> {
        self.alerts.iter().map(move |alert| {
            let alert = AlertRequest::parse(alert);
            let fingerprint = alert.as_ref().ok().and_then(AlertRequest::given_fingerprint);
            (fingerprint, alert.and_then(|alert| alert.read(count, now)))
        })
    }
}

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

impl<'a> AlertRequest<'a> {
    fn parse(alert: &'a RawValue) -> Result<Self, Problem> {
        let names = ["status", "labels", "annotations", "startsAt", "fingerprint"];
        let Some([status, labels, annotations, starts_at, fingerprint]) = members(alert, names)
        else {
            return Err(Problem::wrong_type("alerts", "an array of objects", type_of(alert)?));
        };
        Ok(Self { status, labels, annotations, starts_at, fingerprint })
    }

    /// Returns `None` for a resolved alert, because the end of an episode is no occurrence.
    fn read(&self, count: CountBy, now: Timestamp) -> Result<Option<Occurrence>, Problem> {
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
        read_labels(labels, annotations, id, at).map(Some)
    }

    fn began_at(&self) -> Result<Timestamp, Problem> {
        let Some(text) = text_of(self.starts_at) else {
            return Err(Problem::field("startsAt", "must be an RFC 3339 time"));
        };
        Timestamp::parse_rfc3339(&text).map_err(|error| Problem::field("startsAt", error))
    }

    fn given_fingerprint(&self) -> Option<String> {
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

fn type_of(value: &RawValue) -> Result<&'static str, Problem> {
    parse(value.get()).map(|CheckedJson(type_name)| type_name)
}

fn text_of(value: Option<&RawValue>) -> Option<String> {
    match parse(value?.get()) {
        Ok(JsonValue::Text(text)) => Some(text.into_owned()),
        _ => None,
    }
}

/// The answer to a delivery.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryResult)]
struct DeliveryBody {
    /// Number of `alerts` that count from this delivery on.
    #[schema(example = 1)]
    counted: usize,
    /// Number of `alerts` that could not be read.
    #[schema(example = 0)]
    failed: usize,
    /// For each alert of the delivery, in its order.
    alerts: Vec<AlertBody>,
}

/// The result of an alert.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AlertResult)]
struct AlertBody {
    /// The alert's own, where it is a text.
    #[schema(required, example = "e3b6f5c0a1d2b4f7")]
    fingerprint: Option<String>,
    #[serde(flatten)]
    result: AlertStatus,
}

/// The result by the status of the alert.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase", tag = "status")]
#[schema(as = AlertStatus)]
enum AlertStatus {
    /// The alert fires; the frequency of its anomaly.
    Firing(Box<CountedBody>),
    /// The episode has ended.
    Resolved {
        /// Always false.
        counted: bool,
    },
    /// The alert could not be read, or the store refuses it.
    Failed {
        /// Always false.
        counted: bool,
        problem: Problem,
    },
}

impl DeliveryBody {
    fn new(alerts: Vec<AlertBody>) -> Self {
        let number = |outcome| {
            let outcomes = alerts.iter().map(|alert| alert.result.outcome());
            outcomes.filter(|other| *other == outcome).count()
        };
        Self {
            counted: number(AlertOutcome::Counted),
            failed: number(AlertOutcome::Failed),
            alerts,
        }
    }
}

impl From<Recorded> for AlertStatus {
    fn from(result: Recorded) -> Self {
        match result {
            Ok(Some(counted)) => Self::Firing(Box::new(counted.into())),
            Ok(None) => Self::Resolved { counted: false },
            Err(problem) => Self::Failed { counted: false, problem },
        }
    }
}

impl AlertStatus {
    fn outcome(&self) -> AlertOutcome {
        match self {
            Self::Firing(body) if body.counted() => AlertOutcome::Counted,
            Self::Firing(_) => AlertOutcome::NotCounted,
            Self::Resolved { .. } => AlertOutcome::Resolved,
            Self::Failed { .. } => AlertOutcome::Failed,
        }
    }
}

/// The outcome of an alert, as the answer counts it and the metric has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AlertOutcome {
    Counted,
    /// It was counted before, or is too old.
    NotCounted,
    Resolved,
    Failed,
}

impl Label for AlertOutcome {
    const ALL: &'static [Self] = &[Self::Counted, Self::NotCounted, Self::Resolved, Self::Failed];

    fn value(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::NotCounted => "not_counted",
            Self::Resolved => "resolved",
            Self::Failed => "failed",
        }
    }
}

/// Take a delivery of Alertmanager or Grafana.
///
/// An occurrence is the beginning of an episode, identified by `fingerprint` and `startsAt`: an
/// alert that is sent again counts once.
#[utoipa::path(
    post,
    path = "/webhooks/alertmanager",
    tag = "anomalies",
    request_body = DeliveryRequest<'_>,
    responses(
        (status = 200, description = "What became of each alert.", body = DeliveryBody),
        (
            status = 202, description = "The store is away: some wait for it, and will count.",
            body = DeliveryBody,
        ),
    ),
)]
async fn deliver(
    State(state): State<AppState>,
    quota: EventQuota,
    body: Result<JsonText, Problem>,
) -> Result<(StatusCode, Json<DeliveryBody>), Problem> {
    // Alertmanager drops a delivery that is answered 4xx, so the log has to say it.
    let refused = |problem: &Problem| tracing::warn!(%problem, "a delivery is refused and lost");
    let body = body.inspect_err(refused)?;
    let delivery = body.as_str().and_then(DeliveryRequest::parse).inspect_err(refused)?;
    quota.take(delivery.alerts.len())?;
    let now = state.counter.now();
    let (fingerprints, read): (Vec<_>, Vec<_>) =
        delivery.read(state.alertmanager.count, now).unzip();
    let results = record_each(&state.counter, now, read).await;
    // Alertmanager sends the whole again, and an episode that was recorded counts once. (A delivery
    // has no id: where each one counts, a part of it may count twice.)
    if let Some(problem) = temporary_problem(&results) {
        return Err(problem.clone());
    }
    let status = write_status_of(&results);
    let alerts = fingerprints.into_iter().zip(results).map(|(fingerprint, result)| {
        if let Err(problem) = &result {
            tracing::warn!(?fingerprint, %problem, "an alert of a delivery was not counted");
        }
        let result = AlertStatus::from(result);
        WEBHOOK_ALERTS.increment(result.outcome());
        AlertBody { fingerprint, result }
    });
    Ok((status, Json(DeliveryBody::new(alerts.collect()))))
}
