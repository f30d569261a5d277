//! Errors as clients see them: RFC 9457 problems that say what to do. Causes stay in the log. This
//! is the one place that turns errors into status codes.

mod from_errors;
mod kind;

use std::{fmt, time::Duration};

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::json::Json;
use crate::domain::{AnomalyKey, EventId};

pub(super) use kind::ProblemKind;

/// The `Retry-After` of a 503, in seconds.
const RETRY_AFTER_SECONDS: u32 = 1;

/// An error in the format of RFC 9457.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    #[serde(flatten)]
    kind: ProblemKind,
    /// The error in this request, and what to do.
    #[schema(example = "`success` is missing")]
    detail: String,
    /// The name of the invalid field.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>, example = "success")]
    field: Option<Box<str>>,
    /// The line at which the JSON is invalid; the first line is 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 1)]
    line: Option<usize>,
    /// The column at which the JSON is invalid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 14)]
    column: Option<usize>,
    /// The id of an event that may have been counted despite this error. A retry with the same id
    /// counts once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>, example = "deploy-7")]
    event_id: Option<Box<EventId>>,
    /// The key of the unknown anomaly.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>, example = "d7807df379350b77")]
    anomaly_key: Option<Box<AnomalyKey>>,
    /// The header `Retry-After`.
    #[serde(skip)]
    retry_after_seconds: Option<u32>,
    /// The header `WWW-Authenticate`.
    #[serde(skip)]
    challenge: Option<Box<str>>,
}

impl Problem {
    pub(super) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        let retry_after_seconds = kind.is_temporary().then_some(RETRY_AFTER_SECONDS);
        Self {
            kind,
            detail: detail.into(),
            field: None,
            line: None,
            column: None,
            event_id: None,
            anomaly_key: None,
            retry_after_seconds,
            challenge: None,
        }
    }

    /// Creates the problem of a field that is missing, of a wrong type or out of bounds. `fault`
    /// follows its name.
    pub(super) fn field(field: &str, fault: impl fmt::Display) -> Self {
        Self::new(ProblemKind::InvalidField, format!("`{field}` {fault}")).at_field(field)
    }

    /// Creates the problem of a field of the wrong JSON type. `expected` and `found` have their
    /// article: "a string".
    pub(super) fn wrong_type(field: &str, expected: &str, found: &str) -> Self {
        Self::field(field, format!("must be {expected}, not {found}"))
    }

    pub(super) fn at_field(mut self, field: &str) -> Self {
        self.field = Some(field.into());
        self
    }

    pub(super) fn at_position(mut self, line: usize, column: usize) -> Self {
        self.line = Some(line);
        self.column = Some(column);
        self
    }

    fn of_anomaly(mut self, key: AnomalyKey) -> Self {
        self.anomaly_key = Some(Box::new(key));
        self
    }

    fn of_event(mut self, event_id: &EventId) -> Self {
        self.event_id = Some(Box::new(event_id.clone()));
        self
    }

    /// Sets `Retry-After`, rounded up to a second.
    fn retry_after(mut self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.retry_after_seconds = Some(u32::try_from(seconds).unwrap_or(u32::MAX).max(1));
        self
    }

    /// Sets `WWW-Authenticate`.
    fn challenge(mut self, challenge: String) -> Self {
        self.challenge = Some(challenge.into());
        self
    }

    pub(super) fn kind(&self) -> ProblemKind {
        self.kind
    }

    /// Returns whether the client may retry the same request later.
    pub(super) fn is_temporary(&self) -> bool {
        self.kind.is_temporary()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.kind.status(), Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(challenge) = self.challenge.and_then(|text| text.parse().ok()) {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
