//! The id of an event, by which a retry is recognised: in the body or in a header.

use axum::{extract::FromRequestParts, http::request::Parts};

use crate::{
    domain::EventId,
    http::{
        headers::IDEMPOTENCY_KEY,
        problem::{Problem, ProblemKind},
    },
};

/// The header `Idempotency-Key`, if any.
#[derive(Debug)]
pub(in crate::http) struct IdempotencyKey(pub(in crate::http) Option<EventId>);

impl IdempotencyKey {
    /// The header as people write it.
    pub(in crate::http) const NAME: &'static str = "Idempotency-Key";
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else { return Ok(Self(None)) };
        if values.any(|other| other != value) {
            let detail = "the request has Idempotency-Key headers that differ: send one";
            return Err(Problem::new(ProblemKind::MalformedRequest, detail));
        }
        let parsed = EventId::parse(value.to_str().unwrap_or_default());
        let id = parsed.map_err(|error| Problem::field(Self::NAME, error))?;
        Ok(Self(Some(id)))
    }
}

/// Returns the id of the field `event_id` or of the header, or generates one.
pub(in crate::http) fn event_id(
    from_field: Option<&str>,
    from_header: Option<EventId>,
) -> Result<EventId, Problem> {
    let name = "event_id";
    let parse = |text| EventId::parse(text).map_err(|error| Problem::field(name, error));
    match (from_field.map(parse).transpose()?, from_header) {
        (Some(field), Some(header)) if field != header => Err(Problem::field(
            name,
            "differs from the Idempotency-Key header: send one of them, or the same value in both",
        )),
        (field, header) => Ok(field.or(header).unwrap_or_else(EventId::unique)),
    }
}
