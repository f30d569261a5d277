//! The members and the status by which an answer says that it was made without the store.

use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::schemas;
use crate::{counter::Degraded, domain::Timestamp};

/// The last members of every response about an anomaly.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(as = Degraded)]
pub(in crate::http) struct DegradedBody {
    /// True if the response is an estimate, computed from the last known state and the writes that
    /// wait. Its counts are lower bounds, and unknown values are null.
    degraded: bool,
    /// The time of the last known state; null if there is none. Present if `degraded` is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schemas::Time>)]
    as_of: Option<Option<Timestamp>>,
}

impl DegradedBody {
    /// Combines several answers: the result is an estimate if one of them is, as of the oldest.
    pub(in crate::http) fn of_all(answers: impl Iterator<Item = Option<Degraded>>) -> Self {
        // An unknown time is the oldest.
        answers.flatten().min_by_key(|degraded| degraded.as_of).into()
    }
}

impl From<Option<Degraded>> for DegradedBody {
    fn from(degraded: Option<Degraded>) -> Self {
        let as_of = degraded.map(|degraded| degraded.as_of);
        Self { degraded: degraded.is_some(), as_of }
    }
}

/// Returns the status of a write: 202 if it waits in the spool.
pub(in crate::http) fn write_status(degraded: Option<Degraded>) -> StatusCode {
    if degraded.is_some() { StatusCode::ACCEPTED } else { StatusCode::OK }
}
