//! Reads occurrences as callers post them, and records those of many that can be read.

use axum::http::HeaderMap;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    fields::Fields,
    problem::{Problem, ProblemKind},
    schemas,
};
use crate::{
    counter::{Answered, Counted, Counter},
    domain::{EventId, InvalidSignature, MAX_AHEAD_SECONDS, Occurrence, Signature, Timestamp},
};

/// An occurrence to record. Four fields identify its anomaly: `alert_name`, `service`, `namespace` and `error_type`; a
/// missing one is empty, and one at least must not be. Where a name and its alias are given, the name counts.
/// All other fields are kept with the anomaly, as first posted.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is read field by field")]
#[schema(
    as = Occurrence,
    example = json!({"alert_name": "HighCPU", "service": "api", "namespace": "shop", "pod": "api-1"})
)]
pub(super) struct OccurrenceRequest {
    /// What is wrong.
    #[schema(nullable = false, example = "HighCPU")]
    alert_name: Option<String>,
    /// Another name of `alert_name`, as Prometheus has it: a text, too. Where `alert_name` is there, it is one of the other
    /// fields.
    #[schema(value_type = Option<Value>)]
    alertname: Option<String>,
    /// With what.
    #[schema(nullable = false, example = "api")]
    service: Option<String>,
    /// Another name of `service`, in the same way.
    #[schema(value_type = Option<Value>)]
    job: Option<String>,
    /// Where.
    #[schema(nullable = false, example = "shop")]
    namespace: Option<String>,
    /// In which way.
    #[schema(nullable = false, example = "OOMKilled")]
    error_type: Option<String>,
    /// Another name of `error_type`, in the same way.
    #[schema(value_type = Option<Value>)]
    reason: Option<String>,
    /// By what a retry is recognised, so that it counts once; the service makes one up where none is given.
    #[schema(value_type = Option<schemas::EventId>)]
    event_id: Option<String>,
    /// When it happened, where that is not now: at most 60 seconds ahead of the service's clock. What is older than 30
    /// days does not count.
    #[schema(value_type = Option<schemas::Time>)]
    occurred_at: Option<String>,
}

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Reads one posted occurrence. `id` is the one that a header gave.
pub(super) fn read(
    value: Value,
    id: Option<EventId>,
    now: Timestamp,
) -> Result<Occurrence, Problem> {
    let mut fields = Fields::of("an occurrence", value)?;
    let id = event_id(&mut fields, id)?;
    let at = occurred_at(&mut fields, now)?;
    of_fields(&fields.rest(), id, at)
}

/// Makes an occurrence of the fields that identify and describe its anomaly.
pub(super) fn of_fields(
    fields: &Map<String, Value>,
    id: EventId,
    at: Timestamp,
) -> Result<Occurrence, Problem> {
    let signature = Signature::from_fields(fields)?;
    // A map of JSON values always has a JSON form.
    let signature_json = serde_json::to_string(fields).unwrap_or_default().into();
    Ok(Occurrence { key: signature.key(), id, at, signature_json })
}

/// Records the occurrences among `read`. Answers for each element its result, its problem, or
/// nothing where there was nothing to record.
pub(super) async fn record_readable(
    counter: &Counter,
    now: Timestamp,
    read: Vec<Result<Option<Occurrence>, Problem>>,
) -> Vec<Result<Option<Answered<Counted>>, Problem>> {
    let mut occurrences = Vec::with_capacity(read.len());
    let places: Vec<Result<bool, Problem>> = read
        .into_iter()
        .map(|element| {
            element.map(|occurrence| {
                let is_there = occurrence.is_some();
                occurrences.extend(occurrence);
                is_there
            })
        })
        .collect();
    let mut results = counter.record(now, occurrences).await.into_iter();
    places
        .into_iter()
        .map(|place| match place {
            Ok(true) => Ok(results.next().transpose()?),
            Ok(false) => Ok(None),
            Err(problem) => Err(problem),
        })
        .collect()
}

/// The id in the field `event_id` or given by the header, else one of its own.
pub(super) fn event_id(
    fields: &mut Fields,
    from_header: Option<EventId>,
) -> Result<EventId, Problem> {
    let name = "event_id";
    let from_field = fields
        .optional_text(name)?
        .map(|text| EventId::parse(&text).map_err(|error| Problem::field(name, error)))
        .transpose()?;
    match (from_field, from_header) {
        (Some(field), Some(header)) if field != header => Err(Problem::field(
            name,
            "differs from the header Idempotency-Key: give one of them, or the same in both",
        )),
        (field, header) => Ok(field.or(header).unwrap_or_else(EventId::unique)),
    }
}

/// The id that the header `Idempotency-Key` gives.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<EventId>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let parsed = EventId::parse(value.to_str().unwrap_or_default());
    parsed.map(Some).map_err(|error| Problem::field("Idempotency-Key", error))
}

fn occurred_at(fields: &mut Fields, now: Timestamp) -> Result<Timestamp, Problem> {
    let name = "occurred_at";
    let Some(text) = fields.optional_text(name)? else {
        return Ok(now);
    };
    let at = Timestamp::parse_rfc3339(&text).map_err(|error| Problem::field(name, error))?;
    if at > now.plus_seconds(MAX_AHEAD_SECONDS) {
        return Err(Problem::field(
            name,
            format!(
                "lies more than {MAX_AHEAD_SECONDS} seconds ahead of the service's clock ({now}): \
                 check the clock or the time zone of the sender"
            ),
        ));
    }
    Ok(at)
}

impl From<InvalidSignature> for Problem {
    fn from(error: InvalidSignature) -> Self {
        let detail = error.to_string();
        let problem = Self::new(ProblemKind::InvalidField, detail);
        match error {
            InvalidSignature::NotAString { field, .. } => problem.at_field(field),
            InvalidSignature::Empty => problem.at_field("alert_name"),
        }
    }
}
