//! How answers tell that the store had no part in them.

use axum::{
    http::{HeaderValue, StatusCode},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{problem::Problem, schemas};
use crate::{
    counter::{Answered, Counter, Degraded},
    domain::Timestamp,
};

/// Names the store that does not answer, on every response while it does not.
const DEGRADED_HEADER: &str = "x-degraded";

/// The members that every answer about an anomaly ends with.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(as = Degraded)]
pub(super) struct DegradedBody {
    /// Whether the store had no part in the answer: it is made of what was last known and what waits.
    degraded: bool,
    /// When the store's part of the answer was current, where that is not now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<schemas::Time>)]
    as_of: Option<Timestamp>,
}

impl From<Option<Degraded>> for DegradedBody {
    fn from(degraded: Option<Degraded>) -> Self {
        let as_of = degraded.and_then(|degraded| degraded.as_of);
        Self { degraded: degraded.is_some(), as_of }
    }
}

/// The status of a write: accepted, where it waits in the spool.
pub(super) fn written(degraded: Option<Degraded>) -> StatusCode {
    if degraded.is_some() { StatusCode::ACCEPTED } else { StatusCode::OK }
}

/// The status of many writes: accepted, where any of them waits.
pub(super) fn written_all<T>(results: &[Result<Option<Answered<T>>, Problem>]) -> StatusCode {
    let waits = |result: &Result<Option<Answered<T>>, Problem>| {
        matches!(result, Ok(Some(Answered { degraded: Some(_), .. })))
    };
    if results.iter().any(waits) { StatusCode::ACCEPTED } else { StatusCode::OK }
}

/// Marks a response while the state is not Healthy. It only reads the state.
pub(super) fn marked(counter: &Counter, mut response: Response) -> Response {
    if let Some(store) = counter.degraded_store() {
        response.headers_mut().insert(DEGRADED_HEADER, HeaderValue::from_static(store));
    }
    response
}
