//! `/anomalies`: records occurrences, and reads an anomaly.

use axum::{extract::State, http::StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{OneOfBuilder, Ref},
    },
};

use super::endpoint::{Endpoint, routes};
use crate::{
    auth::{Caller, Scope},
    counter::{Anomaly, Answered},
    domain::{AnomalyKey, Signature, Timestamp},
    http::{
        bodies::{
            ActionBody, CountedBody, DegradedBody, FiringBody, FixBody, FrequencyBody,
            OccurrenceRequest, PostedArray, PostedOccurrence, ReadOccurrence, Recorded,
            SignatureBody, record_each, record_one, schemas, temporary_problem, write_status,
            write_status_of,
        },
        extract::{EventQuota, IdempotencyKey, JsonText, KeyPath, Requester},
        json::Json,
        problem::{Problem, ProblemKind},
        state::AppState,
    },
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    use ProblemKind::{InvalidKey, UnknownAnomaly};
    vec![
        Endpoint::new("anomalies.record", routes!(record)).scope(Scope::Ingest),
        Endpoint::new("anomalies.frequency", routes!(frequency))
            .scope(Scope::Read)
            .problems(&[InvalidKey, UnknownAnomaly]),
        Endpoint::new("anomalies.get", routes!(anomaly))
            .scope(Scope::Read)
            .problems(&[InvalidKey, UnknownAnomaly]),
        Endpoint::new("anomalies.forget", routes!(forget))
            .scope(Scope::Operate)
            .problems(&[InvalidKey, UnknownAnomaly]),
    ]
}

/// All details of an anomaly.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Anomaly)]
pub(super) struct AnomalyBody {
    #[schema(value_type = schemas::AnomalyKey)]
    anomaly_key: AnomalyKey,
    /// The four fields that identify the anomaly; null if unknown.
    #[schema(required)]
    signature: Option<SignatureBody>,
    /// The other fields that were posted with the first occurrence; null if unknown. If they were
    /// too large, the largest ones are left out, and `metadata_truncated` is true. If the service
    /// rewrote identifying fields, `as_posted` has their original values.
    #[schema(required, value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
    /// The time of the first occurrence that the service recorded, or of an older one that was
    /// recorded later and is within 30 days; null if unknown.
    #[schema(required, value_type = Option<schemas::Time>)]
    known_since: Option<Timestamp>,
    frequency: FrequencyBody,
    /// The mark that the cause is fixed; null if there is none, or if it is unknown in an outage
    /// (`frequency.permanent_fix_applied` is null then).
    #[schema(required)]
    permanent_fix: Option<FixBody>,
    /// The attempts and successes of each repair action, among the newest 100 attempts. The action
    /// with the most attempts comes first. Null if unknown in an outage.
    #[schema(required, max_items = 100)]
    repairs: Option<Vec<ActionBody>>,
    /// The alerts of the anomaly that fire; null if there are none, and in an outage, when they are
    /// unknown (`degraded` is true then).
    #[schema(required)]
    firing: Option<FiringBody>,
    #[serde(flatten)]
    degraded: DegradedBody,
}

impl From<Answered<Anomaly>> for AnomalyBody {
    fn from(Answered { value, degraded }: Answered<Anomaly>) -> Self {
        let Anomaly { frequency, details } = value;
        let first_seen = frequency.stats.first_seen;
        let posted: Option<Map<String, Value>> =
            details.signature_json.and_then(|json| serde_json::from_str(&json).ok());
        let of_posted = posted.as_ref().and_then(|fields| Signature::from_fields(fields).ok());
        let signature = of_posted.or(details.signature);
        Self {
            anomaly_key: frequency.key,
            signature: signature.map(SignatureBody::from),
            metadata: posted.map(|fields| Signature::other_fields(&fields)),
            known_since: details.known_since.map(|known| known.min(first_seen.unwrap_or(known))),
            permanent_fix: details.fix.map(|fix| FixBody::new(frequency.key, fix, degraded)),
            repairs: details.repairs.as_ref().map(ActionBody::of_history),
            firing: details.firing.map(FiringBody::from),
            frequency: FrequencyBody::new(frequency, degraded),
            degraded: degraded.into(),
        }
    }
}

/// An occurrence, or an array of them.
enum Posted {}

impl ToSchema for Posted {}

impl PartialSchema for Posted {
    fn schema() -> RefOr<Schema> {
        let many = schemas::array_of_anything_like::<OccurrenceRequest<'_>>();
        OneOfBuilder::new()
            .item(Ref::from_schema_name(OccurrenceRequest::name()))
            .item(many.max_items(Some(PostedArray::MAX_LENGTH)))
            .into()
    }
}

/// The response to an occurrence, or to an array of them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Recorded)]
enum RecordedBody {
    One(CountedBody),
    Many(Vec<ElementBody>),
}

/// Record an occurrence, or an array of them.
///
/// An array returns an array: for each element, in the same order, its frequency or a problem. An
/// invalid element does not affect the others. If no element was recorded and a retry may succeed
/// for some, the whole request returns that problem (503).
#[utoipa::path(
    post,
    path = "/anomalies",
    tag = "anomalies",
    params((
        "Idempotency-Key" = Option<schemas::EventId>, Header, nullable = false,
        description = "Has the same meaning as `event_id`. It is allowed with a single occurrence \
                       only, and must be equal to `event_id` if both are present.",
    )),
    request_body = Posted,
    responses(
        (
            status = 200, body = RecordedBody,
            description = "The occurrence is recorded, or was recorded before.",
        ),
        (
            status = 202, body = RecordedBody,
            description = "The store is unavailable. The occurrence is on disk, and is counted \
                           once the store answers.",
        ),
    ),
)]
async fn record(
    State(state): State<AppState>,
    caller: Caller,
    quota: EventQuota,
    IdempotencyKey(id): IdempotencyKey,
    body: JsonText,
) -> Result<(StatusCode, Json<RecordedBody>), Problem> {
    let text = body.as_str()?;
    if let Some(array) = PostedArray::parse(text)? {
        if id.is_some() {
            return Err(Problem::field(
                IdempotencyKey::NAME,
                "is allowed with a single occurrence only: give each element of an array its own \
                 event_id",
            ));
        }
        quota.take(array.len())?;
        // On the heap: otherwise each request with one occurrence has room for it too.
        return Box::pin(record_array(&state, &caller, &array)).await;
    }
    let moment = state.counter.moment();
    let ReadOccurrence { occurrence, is_mapped } = {
        let posted = PostedOccurrence::parse(text)?;
        quota.take(1)?;
        posted.read(id, moment, &state.keys, state.anomaly)?
    };
    let counted = record_one(&state.counter, &caller, moment, occurrence).await?;
    let status = write_status(counted.degraded);
    Ok((status, Json(RecordedBody::One(CountedBody::new(counted, is_mapped)))))
}

async fn record_array(
    state: &AppState,
    caller: &Caller,
    array: &PostedArray<'_>,
) -> Result<(StatusCode, Json<RecordedBody>), Problem> {
    let moment = state.counter.moment();
    let read = array.read(moment, &state.keys, state.anomaly)?;
    let are_mapped: Vec<bool> =
        read.iter().map(|read| read.as_ref().is_ok_and(|read| read.is_mapped)).collect();
    let occurrences = read.into_iter().map(|read| read.map(|read| read.occurrence)).collect();
    let results = record_each(&state.counter, caller, moment, occurrences).await;
    // Nothing was recorded, partly for a temporary reason: the client has to retry the call.
    if let Some(problem) = temporary_problem(&results)
        && results.iter().all(Result::is_err)
    {
        return Err(problem.clone());
    }
    let status = write_status_of(&results);
    let results = results.into_iter().zip(are_mapped);
    let bodies = results.map(|(result, mapped)| ElementBody::new(result, mapped)).collect();
    Ok((status, Json(RecordedBody::Many(bodies))))
}

/// An element of the response to an array.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Element)]
enum ElementBody {
    Counted(Box<CountedBody>),
    Problem(Problem),
}

impl ElementBody {
    fn new(result: Recorded, mapped: bool) -> Self {
        match result {
            Ok(counted) => Self::Counted(Box::new(CountedBody::new(counted, mapped))),
            Err(problem) => Self::Problem(problem),
        }
    }
}

/// Read how often an anomaly has occurred.
///
/// Records nothing.
#[utoipa::path(
    get,
    path = "/anomalies/{key}/frequency",
    tag = "anomalies",
    params(("key" = schemas::AnomalyKey, Path)),
    responses((status = 200, description = "The frequency of the anomaly.", body = FrequencyBody)),
)]
async fn frequency(
    State(state): State<AppState>,
    KeyPath(key): KeyPath,
) -> Result<Json<FrequencyBody>, Problem> {
    let frequency = state.counter.frequency(state.counter.moment(), key).await?;
    let frequency = frequency.ok_or_else(|| Problem::unknown_anomaly(key))?;
    Ok(Json(FrequencyBody::new(frequency.value, frequency.degraded)))
}

/// Read all details of an anomaly.
#[utoipa::path(
    get,
    path = "/anomalies/{key}",
    tag = "anomalies",
    params(("key" = schemas::AnomalyKey, Path)),
    responses((status = 200, description = "The anomaly.", body = AnomalyBody)),
)]
async fn anomaly(
    State(state): State<AppState>,
    KeyPath(key): KeyPath,
) -> Result<Json<AnomalyBody>, Problem> {
    let anomaly = state.counter.anomaly(state.counter.moment(), key).await?;
    let anomaly = anomaly.ok_or_else(|| Problem::unknown_anomaly(key))?;
    Ok(Json(anomaly.into()))
}

/// The response when an anomaly is forgotten.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Forgotten)]
struct ForgottenBody {
    #[schema(value_type = schemas::AnomalyKey)]
    anomaly_key: AnomalyKey,
    /// Always true.
    forgotten: bool,
    #[serde(flatten)]
    degraded: DegradedBody,
}

/// Forget one anomaly, such as a test's.
///
/// Deletes its counts, repairs, permanent fix and audit, and the state of its alerts. The next
/// occurrence starts from zero, and counts even if its `event_id` was counted before. The log has a
/// line with the name of the token. While writes wait for the store, as in an outage, nothing is
/// deleted and the response is 503.
#[utoipa::path(
    delete,
    path = "/anomalies/{key}",
    tag = "anomalies",
    params(("key" = schemas::AnomalyKey, Path)),
    responses((status = 200, description = "The anomaly is forgotten.", body = ForgottenBody)),
)]
async fn forget(
    State(state): State<AppState>,
    KeyPath(key): KeyPath,
    requester: Requester,
) -> Result<Json<ForgottenBody>, Problem> {
    let actor = requester.actor(None);
    if !state.counter.forget(state.counter.moment(), key, &actor).await? {
        return Err(Problem::unknown_anomaly(key));
    }
    Ok(Json(ForgottenBody { anomaly_key: key, forgotten: true, degraded: None.into() }))
}
