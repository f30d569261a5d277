//! Refused callers: counted, and logged without their tokens.

use std::{sync::LazyLock, time::Instant};

use super::token::Scope;
use crate::telemetry::{self, Counters, Label, LogSource, may_log};

static FAILURES: LazyLock<Counters<AuthFailure>> = LazyLock::new(telemetry::auth_failures);

/// Registers the metrics of this module. To be called after the recorder is installed.
pub fn register_metrics() {
    LazyLock::force(&FAILURES);
}

/// The reason for which a caller is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthFailure {
    /// The request has no token.
    Missing,
    /// The token or signature is not known.
    Unknown,
    /// The token has expired.
    Expired,
    /// The token lacks the scope.
    Forbidden,
}

impl Label for AuthFailure {
    const ALL: &'static [Self] = &[Self::Missing, Self::Unknown, Self::Expired, Self::Forbidden];

    fn value(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Forbidden => "forbidden",
        }
    }
}

impl AuthFailure {
    fn log_kind(self) -> &'static str {
        match self {
            Self::Missing => "a call is refused: missing token",
            Self::Unknown => "a call is refused: unknown token",
            Self::Expired => "a call is refused: expired token",
            Self::Forbidden => "a call is refused: forbidden token",
        }
    }
}

/// A caller is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthError {
    /// The reason.
    pub failure: AuthFailure,
    /// The name of the token; empty if no token is known.
    pub token_name: String,
    /// The scope that the call takes.
    pub needed: Scope,
}

impl AuthError {
    /// The caller as log lines name it.
    fn log_source<'a>(&'a self, address: Option<&'a str>) -> LogSource<'a> {
        match (self.token_name.as_str(), address) {
            ("", Some(address)) => LogSource::Address(address),
            ("", None) => LogSource::Anyone,
            (name, _) => LogSource::Token(name),
        }
    }
}

/// Counts and logs a refusal. `address` is the caller's.
pub(super) fn note(error: &AuthError, address: Option<&str>, now: Instant) {
    FAILURES.increment(error.failure);
    let (kind, source) = (error.failure.log_kind(), error.log_source(address));
    if may_log(kind, source, now) {
        let (reason, token_name) = (error.failure.value(), error.token_name.as_str());
        tracing::warn!(reason, token_name, "{kind}");
    }
}
