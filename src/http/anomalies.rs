//! `/anomalies`: recording occurrences, and what is known of an anomaly.

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{OneOfBuilder, Ref},
    },
};

use super::{
    AppState,
    body::JsonBody,
    degraded::{DegradedBody, written, written_all},
    layers::access,
    occurrence::{self, OccurrenceRequest},
    path::KeyPath,
    permanent_fix::FixBody,
    problem::{Problem, ProblemKind},
    repairs::ActionBody,
    schemas,
};
use crate::{
    auth::Caller,
    counter::{Anomaly, Answered, Counted, Degraded},
    domain::{AnomalyKey, EscalationLevel, Frequency, Signature, Timestamp},
};

/// How many occurrences an array may hold.
const MAX_ARRAY: usize = 1_000;

/// How often an anomaly has happened. The first ten names are fixed by contract.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Frequency)]
pub(super) struct FrequencyBody {
    #[schema(value_type = schemas::AnomalyKey)]
    anomaly_key: AnomalyKey,
    /// Occurrences within the last hour.
    #[schema(example = 1)]
    count_1h: u64,
    /// Occurrences within the last 24 hours.
    #[schema(example = 4)]
    count_24h: u64,
    /// Occurrences within the last 7 days.
    #[schema(example = 9)]
    count_7d: u64,
    /// Occurrences within the last 30 days.
    #[schema(example = 20)]
    count_30d: u64,
    /// The oldest occurrence within 30 days; null where there is none.
    #[schema(required, value_type = Option<schemas::Time>)]
    first_seen: Option<Timestamp>,
    /// The newest occurrence within 30 days; null where there is none.
    #[schema(required, value_type = Option<schemas::Time>)]
    last_seen: Option<Timestamp>,
    /// How many repair attempts the anomaly has had.
    #[schema(example = 2)]
    auto_repair_count: u64,
    /// Whether the mark of a permanent fix holds.
    permanent_fix_applied: bool,
    /// What the occurrences of 24 hours ask for; null where they are few.
    #[schema(required, value_type = Option<schemas::EscalationLevel>)]
    escalation_level: Option<EscalationLevel>,
    /// The level just before this occurrence: act where the two differ. Where nothing was recorded they are the same.
    #[schema(required, value_type = Option<schemas::EscalationLevel>)]
    previous_level: Option<EscalationLevel>,
    /// Whether the anomaly has come back after its cause was marked as fixed.
    regressed: bool,
    /// Present where it is false: a count may be too high, or `first_seen` too early, by what lies in one
    /// bucket of time.
    #[serde(skip_serializing_if = "is_true")]
    #[schema(required = false)]
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
        let Frequency { key, stats, level, previous_level } = frequency;
        Self {
            anomaly_key: key,
            count_1h: stats.counts.hour,
            count_24h: stats.counts.day,
            count_7d: stats.counts.week,
            count_30d: stats.counts.month,
            first_seen: stats.first_seen,
            last_seen: stats.last_seen,
            auto_repair_count: stats.repair_attempts,
            permanent_fix_applied: stats.fixed_at.is_some(),
            escalation_level: level,
            previous_level,
            regressed,
            exact: !stats.is_approximate,
            degraded: degraded.into(),
        }
    }
}

/// The answer to an occurrence.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Counted)]
pub(super) struct CountedBody {
    #[serde(flatten)]
    frequency: FrequencyBody,
    /// False for a retry, and for an occurrence that is older than 30 days.
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
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Anomaly)]
pub(super) struct AnomalyBody {
    #[schema(value_type = schemas::AnomalyKey)]
    anomaly_key: AnomalyKey,
    /// The identifying fields by their canonical names; null where the store has not told.
    #[schema(required, value_type = Option<SignatureBody>)]
    signature: Option<Map<String, Value>>,
    /// The other fields as first posted; null where the store has not told.
    #[schema(required, value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
    /// When it was first recorded; null where the store has not told.
    #[schema(required, value_type = Option<schemas::Time>)]
    known_since: Option<Timestamp>,
    frequency: FrequencyBody,
    /// The mark of a permanent fix; null where none holds.
    #[schema(required)]
    permanent_fix: Option<FixBody>,
    /// The figures of each action among the newest 100 attempts, the most tried first.
    #[schema(max_items = 100)]
    repairs: Vec<ActionBody>,
}

/// What identifies an anomaly.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is written from a map")]
#[schema(as = Signature)]
struct SignatureBody {
    #[schema(example = "HighCPU")]
    alert_name: String,
    #[schema(example = "api")]
    service: String,
    #[schema(example = "shop")]
    namespace: String,
    #[schema(example = "OOMKilled")]
    error_type: String,
}

impl From<Answered<Anomaly>> for AnomalyBody {
    fn from(Answered { value, degraded }: Answered<Anomaly>) -> Self {
        let Anomaly { frequency, details } = value;
        let posted: Option<Map<String, Value>> =
            details.signature_json.and_then(|json| serde_json::from_str(&json).ok());
        let signature = posted.as_ref().and_then(|fields| Signature::from_fields(fields).ok());
        Self {
            anomaly_key: frequency.key,
            signature: signature.map(|signature| {
                let fields = signature.named_fields();
                fields.map(|(name, value)| (name.to_owned(), value.into())).into_iter().collect()
            }),
            metadata: posted.map(|fields| Signature::other_fields(&fields)),
            known_since: details.known_since,
            permanent_fix: details.fix.map(|fix| FixBody::new(frequency.key, fix, degraded)),
            repairs: ActionBody::of_history(&details.repairs),
            frequency: FrequencyBody::new(frequency, degraded),
        }
    }
}

/// An occurrence, or an array of them.
enum Posted {}

impl ToSchema for Posted {}

impl PartialSchema for Posted {
    fn schema() -> RefOr<Schema> {
        let many = schemas::array_of_anything_like::<OccurrenceRequest>();
        OneOfBuilder::new()
            .item(Ref::from_schema_name(OccurrenceRequest::name()))
            .item(many.max_items(Some(MAX_ARRAY)))
            .into()
    }
}

/// The answer to an occurrence, or to an array of them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Recorded)]
pub(super) enum RecordedBody {
    One(CountedBody),
    Many(Vec<ElementBody>),
}

/// Record an occurrence, or an array of them.
///
/// Each element of an array is answered in its place, by its frequency or by a problem; one that is faulty fails itself
/// alone. Where nothing could be recorded, of some for a reason that passes, the whole is answered with that problem.
#[utoipa::path(
    post,
    path = "/anomalies",
    tag = "anomalies",
    params((
        "Idempotency-Key" = Option<schemas::EventId>, Header, nullable = false,
        description = "Means the same as `event_id`, and goes with a single occurrence only. Where both are given \
                       they must be the same.",
    )),
    request_body = Posted,
    responses(
        (status = 200, description = "It is recorded, or was before.", body = RecordedBody),
        (status = 202, description = "The store is away: it waits, and will count.", body = RecordedBody),
    ),
)]
pub(super) async fn record(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<RecordedBody>), Problem> {
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
    Ok((status, Json(RecordedBody::One(counted.into()))))
}

async fn record_all(
    state: &AppState,
    now: Timestamp,
    elements: Vec<Value>,
) -> Result<(StatusCode, Json<RecordedBody>), Problem> {
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
    let bodies = results.into_iter().filter_map(ElementBody::of).collect();
    Ok((status, Json(RecordedBody::Many(bodies))))
}

/// An element of the answer to an array.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Element)]
pub(super) enum ElementBody {
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

/// Ask how often an anomaly has happened.
///
/// Nothing is recorded.
#[utoipa::path(
    get,
    path = "/anomalies/{key}/frequency",
    tag = "anomalies",
    params(("key" = schemas::AnomalyKey, Path)),
    responses((status = 200, description = "Its frequency.", body = FrequencyBody)),
)]
pub(super) async fn frequency(
    State(state): State<AppState>,
    KeyPath(key): KeyPath,
) -> Result<Json<FrequencyBody>, Problem> {
    let frequency = state.counter.frequency(state.counter.now(), key).await?;
    let frequency = frequency.ok_or_else(|| Problem::unknown_anomaly(key))?;
    Ok(Json(FrequencyBody::new(frequency.value, frequency.degraded)))
}

/// Ask for all that is known of an anomaly.
#[utoipa::path(
    get,
    path = "/anomalies/{key}",
    tag = "anomalies",
    params(("key" = schemas::AnomalyKey, Path)),
    responses((status = 200, description = "All that is known.", body = AnomalyBody)),
)]
pub(super) async fn anomaly(
    State(state): State<AppState>,
    KeyPath(key): KeyPath,
) -> Result<Json<AnomalyBody>, Problem> {
    let anomaly = state.counter.anomaly(state.counter.now(), key).await?;
    let anomaly = anomaly.ok_or_else(|| Problem::unknown_anomaly(key))?;
    Ok(Json(anomaly.into()))
}
