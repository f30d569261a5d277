//! Turns the errors of other modules into problems.

use std::time::{Duration, Instant};

use super::{Problem, ProblemKind};
use crate::{
    auth::{AuthError, AuthFailure, RetryAfter, Scope},
    counter::CounterError,
    domain::{AnomalyKey, InvalidKey, InvalidSignature},
    telemetry::{LogSource, may_log},
};

/// An invalid key is shown up to this length: a valid one is shorter.
const SHOWN_KEY_CHARS: usize = 40;

/// Anomalies expire slowly, so that trying again sooner is in vain.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(60);
/// The beginning of a detail where no more is to be said to clients.
const UNANSWERED: &str = "the store did not answer in time";

impl Problem {
    /// An anomaly that the store does not have.
    pub(in crate::http) fn unknown_anomaly(key: AnomalyKey) -> Self {
        let detail = format!(
            "no anomaly has the key {key}: check it for a typo; anomalies are forgotten 35 days \
             after their last occurrence"
        );
        Self::new(ProblemKind::UnknownAnomaly, detail).of_anomaly(key)
    }

    /// An anomaly that was looked up by its labels, which give this key. `similar` says which
    /// others there are.
    pub(in crate::http) fn unknown_labels(key: AnomalyKey, similar: Option<&str>) -> Self {
        let remedy = similar.unwrap_or(
            "check them for a typo; anomalies are forgotten 35 days after their last occurrence",
        );
        let detail =
            format!("no anomaly is known by these labels (its key would be {key}): {remedy}");
        Self::new(ProblemKind::UnknownAnomaly, detail).of_anomaly(key)
    }

    pub(in crate::http) fn invalid_key(text: &str, error: &InvalidKey) -> Self {
        let shown: String = text.chars().take(SHOWN_KEY_CHARS).collect();
        Self::new(ProblemKind::InvalidKey, format!("{shown:?} {error}"))
    }

    /// A token's limit is reached. Alertmanager drops a delivery that is answered 429 and retries
    /// after a 503, so writes get the latter.
    pub(in crate::http) fn token_limit(scope: Scope, RetryAfter(wait): RetryAfter) -> Self {
        let (kind, effect) = match scope {
            Scope::Ingest => (ProblemKind::Overloaded, "and nothing was recorded"),
            Scope::Read | Scope::Operate => (ProblemKind::TooManyRequests, "and nothing was done"),
        };
        let detail =
            format!("this token's limit is reached, {effect}: try again later, or raise it");
        Self::new(kind, detail).retry_after(wait)
    }
}

impl From<CounterError> for Problem {
    fn from(error: CounterError) -> Self {
        match &error {
            CounterError::Unavailable(_) => Self::new(
                ProblemKind::Unavailable,
                "the store can't be reached, and the call had no effect: try again in a moment",
            ),
            CounterError::Disk(cause) => Self::new(
                ProblemKind::Unavailable,
                format!("{cause}. The call had no effect: try again in a moment"),
            ),
            CounterError::WritesWait => Self::new(
                ProblemKind::Unavailable,
                "writes wait until the store has answered, and could bring the anomaly back; \
                 nothing was forgotten: try again once /readyz says `ready`",
            ),
            CounterError::MayCount { event_id, disk } => {
                let detail = format!(
                    "{}, so that this may count: retry with this id, the event_id {:?}, and it \
                     counts once",
                    disk.as_deref().unwrap_or(UNANSWERED),
                    event_id.as_str()
                );
                Self::new(ProblemKind::Unavailable, detail).of_event(event_id)
            }
            CounterError::Unanswered { disk, .. } => Self::new(
                ProblemKind::Unavailable,
                format!(
                    "{}, so that a write may or may not have taken effect: try again in a moment",
                    disk.as_deref().unwrap_or(UNANSWERED)
                ),
            ),
            CounterError::Overloaded => Self::new(
                ProblemKind::Overloaded,
                "more calls are waiting than can be served, and this one had no effect: try again \
                 in a moment",
            ),
            CounterError::Full(cause) => Self::new(
                ProblemKind::Overloaded,
                format!(
                    "this anomaly is new, and {cause}: nothing was recorded. Raise the option, or \
                     find out who posts so many different ones; known anomalies are counted"
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
                    "the store refuses this call; the service's log says why",
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
                "this takes a token: send the header `Authorization: Bearer TOKEN`, or the token \
                 as the password of Basic. `anomaly-counter token new` makes one"
                    .to_owned()
            }
            AuthFailure::Unknown => {
                "the token or signature is not known here: check it for a typo, and that it was \
                 made for this service"
                    .to_owned()
            }
            AuthFailure::Expired => {
                format!("the token {token_name:?} has expired: have a new one made")
            }
            AuthFailure::Forbidden => format!(
                "the token {token_name:?} is not good for this, which takes the scope {needed}"
            ),
        };
        // As RFC 6750 specifies it.
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
