//! Who was turned away and why: counted, and told to the log without the token.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::token::Scope;
use crate::telemetry::{self, Denial};

/// A flood of wrong tokens is one line in so long.
const TOLD_INTERVAL: Duration = Duration::from_secs(1);

/// Why a caller is turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// No token came with the request.
    Missing,
    /// What came is no token of ours, or the signature of a delivery is not right.
    Unknown,
    /// The token has expired.
    Expired {
        /// Whose it is.
        name: String,
    },
    /// The token is not good for this.
    Forbidden {
        /// Whose it is.
        name: String,
        /// What it would take.
        needed: Scope,
    },
}

impl AuthError {
    fn reason(&self) -> Denial {
        match self {
            Self::Missing => Denial::Missing,
            Self::Unknown => Denial::Unknown,
            Self::Expired { .. } => Denial::Expired,
            Self::Forbidden { .. } => Denial::Forbidden,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Missing | Self::Unknown => "",
            Self::Expired { name } | Self::Forbidden { name, .. } => name,
        }
    }
}

/// When the log was last told, and of how many it was not told since.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<(Option<Instant>, u64)>);

impl Failures {
    pub(super) fn note(&self, denied: &AuthError) {
        telemetry::auth_failure(denied.reason());
        let mut told = self.0.lock();
        let (told_at, untold) = *told;
        if told_at.is_some_and(|at| at.elapsed() < TOLD_INTERVAL) {
            told.1 += 1;
            return;
        }
        *told = (Some(Instant::now()), 0);
        drop(told);
        let (reason, token_name) = (denied.reason().as_str(), denied.name());
        tracing::warn!(reason, token_name, untold, "a caller is turned away: {reason} token");
    }
}
