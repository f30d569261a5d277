//! Refused callers: counted, and logged without their tokens.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::token::Scope;
use crate::telemetry::{self, Counters, Label};

/// A flood of wrong tokens is one line of the log in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

static FAILURES: LazyLock<Counters<AuthFailure>> = LazyLock::new(telemetry::auth_failures);

/// Registers the metrics of this module. To be called after the recorder is installed.
pub fn register_metrics() {
    LazyLock::force(&FAILURES);
}

/// The reason why a caller is refused.
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

/// A caller is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthError {
    /// The reason.
    pub failure: AuthFailure,
    /// The name of the token; empty where no token is known.
    pub token_name: String,
    /// The scope that the call takes.
    pub needed: Scope,
}

/// The time of the last line of the log, and the number of failures without a line since.
#[derive(Debug, Default)]
pub(super) struct FailureLog(Mutex<(Option<Instant>, u64)>);

impl FailureLog {
    pub(super) fn note(&self, error: &AuthError) {
        FAILURES.increment(error.failure);
        let mut state = self.0.lock();
        let (logged_at, untold) = *state;
        if logged_at.is_some_and(|at| at.elapsed() < LOG_INTERVAL) {
            state.1 += 1;
            return;
        }
        *state = (Some(Instant::now()), 0);
        drop(state);
        let (reason, token_name) = (error.failure.value(), error.token_name.as_str());
        tracing::warn!(reason, token_name, untold, "a caller is turned away: {reason} token");
    }
}
