//! The members and the status by which an answer says that the store had no part in it.

use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::schemas;
use crate::{counter::Degraded, domain::Timestamp};

/// The members that every answer about an anomaly ends with.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(as = Degraded)]
pub(in crate::http) struct DegradedBody {
    /// True where the store had no part in the answer: it is made of the last known state and of
    /// the writes that wait.
    degraded: bool,
    /// The time as of which the store's part of the answer is current, where that is not now.
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

/// The status of a write: 202 where it waits in the spool.
pub(in crate::http) fn write_status(degraded: Option<Degraded>) -> StatusCode {
    if degraded.is_some() { StatusCode::ACCEPTED } else { StatusCode::OK }
}
