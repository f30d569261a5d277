//! `/anomalies`: recording occurrences, and what is known of an anomaly.

use axum::{
    Extension, Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    AppState, access,
    body::JsonBody,
    degraded::{DegradedBody, written, written_all},
    occurrence,
    path::KeyPath,
    permanent_fix::FixBody,
    problem::{Problem, ProblemKind},
    repairs::ActionBody,
};
use crate::{
    auth::Caller,
    counter::{Anomaly, Answered, Counted, Degraded},
    domain::{AnomalyKey, EscalationLevel, Frequency, Signature, Timestamp},
};

/// How many occurrences an array may hold.
const MAX_ARRAY: usize = 1_000;

/// How often an anomaly has happened. The first ten names are fixed by contract.
#[derive(Debug, Serialize)]
pub(super) struct FrequencyBody {
    anomaly_key: AnomalyKey,
    count_1h: u64,
    count_24h: u64,
    count_7d: u64,
    count_30d: u64,
    first_seen: Option<Timestamp>,
    last_seen: Option<Timestamp>,
    auto_repair_count: u64,
    permanent_fix_applied: bool,
    escalation_level: Option<EscalationLevel>,
    previous_level: Option<EscalationLevel>,
    regressed: bool,
    /// Present where it is false: a count may be too high, or `first_seen` too early, by what lies in one
    /// bucket of time.
    #[serde(skip_serializing_if = "is_true")]
    exact: bool,
    #[serde(flatten)]
    degraded: DegradedBody,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_true(value: &bool) -> bool {
    *value
}

impl FrequencyBody {
    pub(super) fn new(frequency: Frequency, degraded: Option<Degraded>) -> Self {
        let regressed = frequency.regressed();
        let Frequency { key, tally, level, previous_level } = frequency;
        Self {
            anomaly_key: key,
            count_1h: tally.counts.hour,
            count_24h: tally.counts.day,
            count_7d: tally.counts.week,
            count_30d: tally.counts.month,
            first_seen: tally.first_seen,
            last_seen: tally.last_seen,
            auto_repair_count: tally.repair_attempts,
            permanent_fix_applied: tally.fixed_at.is_some(),
            escalation_level: level,
            previous_level,
            regressed,
            exact: !tally.is_approximate,
            degraded: degraded.into(),
        }
    }
}

/// The answer to an occurrence.
#[derive(Debug, Serialize)]
pub(super) struct CountedBody {
    #[serde(flatten)]
    frequency: FrequencyBody,
    counted: bool,
}

impl CountedBody {
    pub(super) fn counted(&self) -> bool {
        self.counted
    }
}

impl From<Answered<Counted>> for CountedBody {
    fn from(Answered { value, degraded }: Answered<Counted>) -> Self {
        let Counted { counted, frequency } = value;
        Self { frequency: FrequencyBody::new(frequency, degraded), counted }
    }
}

/// All that is known of an anomaly.
#[derive(Debug, Serialize)]
pub(super) struct AnomalyBody {
    anomaly_key: AnomalyKey,
    /// The identifying fields by their canonical names.
    signature: Option<Map<String, Value>>,
    /// The other fields as first posted.
    metadata: Option<Map<String, Value>>,
    known_since: Option<Timestamp>,
    frequency: FrequencyBody,
    permanent_fix: Option<FixBody>,
    repairs: Vec<ActionBody>,
}

impl From<Answered<Anomaly>> for AnomalyBody {
    fn from(Answered { value, degraded }: Answered<Anomaly>) -> Self {
        let Anomaly { frequency, dossier } = value;
        let posted: Option<Map<String, Value>> =
            dossier.signature_json.and_then(|json| serde_json::from_str(&json).ok());
        let signature = posted.as_ref().and_then(|fields| Signature::from_fields(fields).ok());
        Self {
            anomaly_key: frequency.key,
            signature: signature.map(|signature| {
                let fields = signature.named_fields();
                fields.map(|(name, value)| (name.to_owned(), value.into())).into_iter().collect()
            }),
            metadata: posted.map(|fields| Signature::other_fields(&fields)),
            known_since: dossier.known_since,
            permanent_fix: dossier.fix.map(|fix| FixBody::new(frequency.key, fix, degraded)),
            repairs: ActionBody::of_history(&dossier.repairs),
            frequency: FrequencyBody::new(frequency, degraded),
        }
    }
}

/// `POST /anomalies`: an occurrence, or an array of them.
pub(super) async fn record(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let id = occurrence::idempotency_key(&headers)?;
    let now = state.counter.now();
    if let Value::Array(elements) = body {
        if id.is_some() {
            return Err(Problem::field(
                "Idempotency-Key",
                "goes with a single occurrence: give each element of an array its own event_id",
            ));
        }
        access::admit_events(&caller, elements.len())?;
        return record_all(&state, now, elements).await;
    }
    access::admit_events(&caller, 1)?;
    let occurrence = occurrence::read(body, id, now)?;
    let counted = state.counter.record_one(now, occurrence).await?;
    let status = written(counted.degraded);
    Ok((status, Json(CountedBody::from(counted))).into_response())
}

async fn record_all(
    state: &AppState,
    now: Timestamp,
    elements: Vec<Value>,
) -> Result<Response, Problem> {
    if elements.len() > MAX_ARRAY {
        let detail = format!(
            "an array holds at most {MAX_ARRAY} occurrences, and this one holds {}: send it in \
             parts. Nothing was recorded",
            elements.len()
        );
        return Err(Problem::new(ProblemKind::InvalidField, detail));
    }
    let read = elements
        .into_iter()
        .map(|element| occurrence::read(element, None, now).map(Some))
        .collect();
    let results = occurrence::record_readable(&state.counter, now, read).await;
    // Nothing was recorded, of some for a reason that passes: the call is to be made again.
    let temporary = |result: &Result<_, Problem>| {
        result.as_ref().err().filter(|problem| problem.is_temporary()).cloned()
    };
    if let Some(problem) = results.iter().find_map(temporary)
        && results.iter().all(Result::is_err)
    {
        return Err(problem);
    }
    let status = written_all(&results);
    let bodies: Vec<ElementBody> = results.into_iter().filter_map(ElementBody::of).collect();
    Ok((status, Json(bodies)).into_response())
}

/// An element of the answer to an array.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ElementBody {
    Counted(Box<CountedBody>),
    Problem(Problem),
}

impl ElementBody {
    fn of(result: Result<Option<Answered<Counted>>, Problem>) -> Option<Self> {
        match result {
            Ok(counted) => counted.map(|counted| Self::Counted(Box::new(counted.into()))),
            Err(problem) => Some(Self::Problem(problem)),
        }
    }
}

/// `GET /anomalies/{key}/frequency`.
pub(super) async fn frequency(
    State(state): State<AppState>,
    KeyPath(key): KeyPath,
) -> Result<Json<FrequencyBody>, Problem> {
    let frequency = state.counter.frequency(state.counter.now(), key).await?;
    let frequency = frequency.ok_or_else(|| Problem::unknown_anomaly(key))?;
    Ok(Json(FrequencyBody::new(frequency.value, frequency.degraded)))
}

/// `GET /anomalies/{key}`.
pub(super) async fn anomaly(
    State(state): State<AppState>,
    KeyPath(key): KeyPath,
) -> Result<Json<AnomalyBody>, Problem> {
    let anomaly = state.counter.anomaly(state.counter.now(), key).await?;
    let anomaly = anomaly.ok_or_else(|| Problem::unknown_anomaly(key))?;
    Ok(Json(anomaly.into()))
}
