//! Turns the errors of other modules into problems.

use std::time::{Duration, Instant};

use super::{Problem, ProblemKind};
use crate::{
    auth::{AuthError, AuthFailure, RetryAfter, Scope},
    counter::CounterError,
    domain::{AnomalyKey, InvalidKey, InvalidSignature},
    telemetry::{LogSource, may_log},
};

/// Maximum length of an invalid key in a problem; valid ones are shorter.
const SHOWN_KEY_CHARS: usize = 40;

/// `Retry-After` of a full store: anomalies expire slowly, so that an earlier retry would fail.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(60);
/// The beginning of a detail, if clients are not to learn the cause.
const UNANSWERED: &str = "the store did not answer in time";

impl Problem {
    /// Creates the problem of an anomaly that the store does not have.
    pub(in crate::http) fn unknown_anomaly(key: AnomalyKey) -> Self {
        let detail = format!(
            "no anomaly has the key {key}: check it for a typo; anomalies are deleted 35 days \
             after their last occurrence"
        );
        Self::new(ProblemKind::UnknownAnomaly, detail).of_anomaly(key)
    }

    /// Creates the problem of an anomaly that was looked up by its labels, which give this key.
    /// `similar` describes similar ones.
    pub(in crate::http) fn unknown_labels(key: AnomalyKey, similar: Option<&str>) -> Self {
        let remedy = similar.unwrap_or(
            "check them for a typo; anomalies are deleted 35 days after their last occurrence",
        );
        let detail = format!("no anomaly has these labels (its key would be {key}): {remedy}");
        Self::new(ProblemKind::UnknownAnomaly, detail).of_anomaly(key)
    }

    pub(in crate::http) fn invalid_key(text: &str, error: &InvalidKey) -> Self {
        let shown: String = text.chars().take(SHOWN_KEY_CHARS).collect();
        Self::new(ProblemKind::InvalidKey, format!("{shown:?} {error}"))
    }

    /// Creates the problem of a token whose limit is reached. Alertmanager drops a delivery that is
    /// answered 429 and retries after a 503, so writes get the latter.
    pub(in crate::http) fn token_limit(scope: Scope, RetryAfter(wait): RetryAfter) -> Self {
        let (kind, effect) = match scope {
            Scope::Ingest => (ProblemKind::Overloaded, "and nothing was recorded"),
            Scope::Read | Scope::Operate => (ProblemKind::TooManyRequests, "and nothing was done"),
        };
        let detail =
            format!("the token's limit is reached, {effect}: try again later, or raise the limit");
        Self::new(kind, detail).retry_after(wait)
    }
}

impl From<CounterError> for Problem {
    fn from(error: CounterError) -> Self {
        match &error {
            CounterError::Unavailable(_) => Self::new(
                ProblemKind::Unavailable,
                "the store is unavailable, and the call had no effect: try again in a moment",
            ),
            CounterError::Disk(cause) => Self::new(
                ProblemKind::Unavailable,
                format!("{cause}. The call had no effect: try again in a moment"),
            ),
            CounterError::WritesWait => Self::new(
                ProblemKind::Unavailable,
                "writes that wait for the store could create the anomaly again, so nothing was \
                 deleted: try again once the status of /readyz is `ready`",
            ),
            CounterError::MayCount { event_id, disk } => {
                let detail = format!(
                    "{}, so the event may have been counted: retry with the event_id {:?}, and it \
                     counts once",
                    disk.as_deref().unwrap_or(UNANSWERED),
                    event_id.as_str()
                );
                Self::new(ProblemKind::Unavailable, detail).of_event(event_id)
            }
            CounterError::Unanswered { disk, .. } => Self::new(
                ProblemKind::Unavailable,
                format!(
                    "{}, so a write may or may not have taken effect: try again in a moment",
                    disk.as_deref().unwrap_or(UNANSWERED)
                ),
            ),
            CounterError::Overloaded => Self::new(
                ProblemKind::Overloaded,
                "too many calls are waiting for the store, and this one had no effect: try again \
                 in a moment",
            ),
            CounterError::Full(cause) => Self::new(
                ProblemKind::Overloaded,
                format!(
                    "this anomaly is new, and {cause}: nothing was recorded. Raise the limit, or \
                     find out who posts so many different anomalies; known anomalies are still \
                     counted"
                ),
            )
            .retry_after(FULL_RETRY_AFTER),
            CounterError::Refused(cause) => {
                let kind = "the store refuses a call";
                if may_log(kind, LogSource::Anyone, Instant::now()) {
                    tracing::error!(%cause, "{kind}");
                }
                Self::new(
                    ProblemKind::Internal,
                    "the store refuses this call: the service's log says why",
                )
            }
        }
    }
}

impl From<InvalidSignature> for Problem {
    fn from(error: InvalidSignature) -> Self {
        let problem = Self::new(ProblemKind::InvalidField, error.to_string());
        match error {
            InvalidSignature::NotAString { field, .. } | InvalidSignature::TooLong { field } => {
                problem.at_field(field)
            }
            InvalidSignature::Empty => problem.at_field("alert_name"),
        }
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let AuthError { failure, token_name, needed } = error;
        let detail = match failure {
            AuthFailure::Missing => {
                "this call requires a token: send the header `Authorization: Bearer TOKEN`, or the \
                 token as the password of Basic authentication. `anomaly-counter token new` \
                 creates one"
                    .to_owned()
            }
            AuthFailure::Unknown => {
                "the token or signature is unknown: check it for a typo, and check that it was \
                 created for this service"
                    .to_owned()
            }
            AuthFailure::Expired => {
                format!("the token {token_name:?} has expired: request a new one")
            }
            AuthFailure::Forbidden => format!(
                "the token {token_name:?} lacks the scope {needed}, which this call requires"
            ),
        };
        // The challenges are those of RFC 6750.
        let (kind, challenge) = match failure {
            AuthFailure::Missing => (ProblemKind::Unauthorized, String::new()),
            AuthFailure::Unknown | AuthFailure::Expired => {
                (ProblemKind::Unauthorized, ", error=\"invalid_token\"".to_owned())
            }
            AuthFailure::Forbidden => {
                let challenge = format!(", error=\"insufficient_scope\", scope=\"{needed}\"");
                (ProblemKind::Forbidden, challenge)
            }
        };
        Self::new(kind, detail).challenge(format!("Bearer realm=\"anomaly-counter\"{challenge}"))
    }
}
