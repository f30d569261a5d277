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
    /// True where the answer is an estimate, made of the last known state and of the writes that
    /// wait. Its counts are lower bounds, and what is not known is null.
    degraded: bool,
    /// Present where `degraded` is true: the time of the last known state; null where there is
    /// none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schemas::Time>)]
    as_of: Option<Option<Timestamp>>,
}

impl DegradedBody {
    /// Of an answer made of several: an estimate where one of them is, as of the oldest.
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

/// The status of a write: 202 where it waits in the spool.
pub(in crate::http) fn write_status(degraded: Option<Degraded>) -> StatusCode {
    if degraded.is_some() { StatusCode::ACCEPTED } else { StatusCode::OK }
}
