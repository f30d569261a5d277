//! Every error that a client sees: an RFC 9457 problem that says what to do. Causes stay in the
//! log. This is the one place that turns errors into status codes.

use std::{fmt, time::Duration};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Serialize, Serializer};

use crate::{counter::CounterError, domain::AnomalyKey};

/// When to try again after a 503, in seconds.
const RETRY_AFTER_SECONDS: u32 = 1;

/// An error as RFC 9457 has it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Problem {
    #[serde(flatten)]
    kind: ProblemKind,
    detail: String,
    /// The field that is at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// Where broken JSON breaks, from 1.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    place: Option<Place>,
    /// The headers beside it.
    #[serde(skip)]
    retry_after_seconds: Option<u32>,
    #[serde(skip)]
    challenge: Option<Box<str>>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Place {
    line: usize,
    column: usize,
}

/// The types of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProblemKind {
    InvalidJson,
    InvalidKey,
    InvalidField,
    Unauthorized,
    Forbidden,
    CrossOrigin,
    UnknownHost,
    UnknownAnomaly,
    UnknownRoute,
    UnknownDeadLetter,
    MethodNotAllowed,
    UnsupportedMediaType,
    ContentTooLarge,
    RequestTimeout,
    TooManyRequests,
    Unavailable,
    Overloaded,
    Internal,
}

impl ProblemKind {
    const fn status(self) -> StatusCode {
        match self {
            Self::InvalidJson | Self::InvalidKey => StatusCode::BAD_REQUEST,
            Self::InvalidField => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::CrossOrigin => StatusCode::FORBIDDEN,
            Self::UnknownHost => StatusCode::MISDIRECTED_REQUEST,
            Self::UnknownAnomaly | Self::UnknownRoute | Self::UnknownDeadLetter => {
                StatusCode::NOT_FOUND
            }
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::ContentTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    const fn is_temporary(self) -> bool {
        matches!(self, Self::Unavailable | Self::Overloaded)
    }

    /// The `type`, relative to the service, and the `title`.
    const fn type_and_title(self) -> (&'static str, &'static str) {
        match self {
            Self::InvalidJson => ("/problems/invalid-json", "The body is not valid JSON"),
            Self::InvalidKey => ("/problems/invalid-key", "The anomaly key is malformed"),
            Self::InvalidField => ("/problems/invalid-field", "A field is not as it must be"),
            Self::Unauthorized => ("/problems/unauthorized", "A token is needed"),
            Self::Forbidden => ("/problems/forbidden", "The token is not good for this"),
            Self::CrossOrigin => ("/problems/cross-origin", "A page of another site has asked"),
            Self::UnknownHost => {
                ("/problems/unknown-host", "The service does not answer to this name")
            }
            Self::UnknownAnomaly => ("/problems/unknown-anomaly", "The anomaly is not known"),
            Self::UnknownRoute => ("/problems/unknown-route", "There is nothing at this path"),
            Self::UnknownDeadLetter => {
                ("/problems/unknown-dead-letter", "There is no such dead letter")
            }
            Self::MethodNotAllowed => {
                ("/problems/method-not-allowed", "The path does not take this method")
            }
            Self::UnsupportedMediaType => {
                ("/problems/unsupported-media-type", "The body must be JSON")
            }
            Self::ContentTooLarge => ("/problems/content-too-large", "The body is too large"),
            Self::RequestTimeout => ("/problems/request-timeout", "The body came too slowly"),
            Self::TooManyRequests => {
                ("/problems/too-many-requests", "The token's limit is reached")
            }
            Self::Unavailable => ("/problems/unavailable", "The store does not answer"),
            Self::Overloaded => {
                ("/problems/overloaded", "More is asked of the service than it can do")
            }
            Self::Internal => ("/problems/internal", "Something went wrong in the service"),
        }
    }
}

impl Serialize for ProblemKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let (uri, title) = self.type_and_title();
        let mut members = serializer.serialize_struct("ProblemKind", 3)?;
        members.serialize_field("type", uri)?;
        members.serialize_field("title", title)?;
        members.serialize_field("status", &self.status().as_u16())?;
        members.end()
    }
}

impl Problem {
    pub(super) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        let retry_after_seconds = kind.is_temporary().then_some(RETRY_AFTER_SECONDS);
        Self {
            kind,
            detail: detail.into(),
            field: None,
            place: None,
            retry_after_seconds,
            challenge: None,
        }
    }

    /// A field that is missing, of a wrong type or out of bounds. `fault` follows its name.
    pub(super) fn field(field: &str, fault: impl fmt::Display) -> Self {
        Self::new(ProblemKind::InvalidField, format!("`{field}` {fault}")).at_field(field)
    }

    /// An anomaly of which nothing is kept.
    pub(super) fn unknown_anomaly(key: AnomalyKey) -> Self {
        let detail = format!(
            "no anomaly has the key {key}: check it for a typo; anomalies are forgotten 35 days \
             after their last occurrence"
        );
        Self::new(ProblemKind::UnknownAnomaly, detail)
    }

    pub(super) fn at_field(mut self, field: &str) -> Self {
        self.field = Some(field.to_owned());
        self
    }

    pub(super) fn at_place(mut self, line: usize, column: usize) -> Self {
        self.place = Some(Place { line, column });
        self
    }

    /// Says when to try again, to the second above.
    pub(super) fn retry_after(mut self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.retry_after_seconds = Some(u32::try_from(seconds).unwrap_or(u32::MAX).max(1));
        self
    }

    /// Says in `WWW-Authenticate` how to show who one is.
    pub(super) fn challenge(mut self, challenge: String) -> Self {
        self.challenge = Some(challenge.into());
        self
    }

    /// Whether the client may try the same again later.
    pub(super) fn is_temporary(&self) -> bool {
        self.kind.is_temporary()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl From<CounterError> for Problem {
    fn from(error: CounterError) -> Self {
        match &error {
            CounterError::Unavailable(_) => Self::new(
                ProblemKind::Unavailable,
                "the store can't be reached, and nothing was recorded: try again in a moment",
            ),
            CounterError::Unanswered(_) => Self::new(
                ProblemKind::Unavailable,
                "the store did not answer in time, so that a write may or may not have taken \
                 effect: try again in a moment, with the same event_id so that it counts once",
            ),
            CounterError::Overloaded => Self::new(
                ProblemKind::Overloaded,
                "more calls are waiting than can be served, and nothing was recorded: try again \
                 in a moment",
            ),
            CounterError::Refused(cause) => {
                tracing::error!(%cause, "the store refuses a call");
                Self::new(
                    ProblemKind::Internal,
                    "the store refuses this call; the service's log says why",
                )
            }
        }
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
