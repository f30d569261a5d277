//! Who was turned away and why: counted, and told to the log without the token.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::token::Scope;

/// A flood of wrong tokens is one line in so long.
const TOLD_INTERVAL: Duration = Duration::from_secs(1);

/// Why a caller is turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
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

impl Denied {
    /// The reasons, as metrics name them.
    pub const REASONS: [&'static str; 4] = ["missing", "unknown", "expired", "forbidden"];

    /// One of [`Denied::REASONS`].
    pub const fn reason(&self) -> &'static str {
        Self::REASONS[self.place()]
    }

    const fn place(&self) -> usize {
        match self {
            Self::Missing => 0,
            Self::Unknown => 1,
            Self::Expired { .. } => 2,
            Self::Forbidden { .. } => 3,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Missing | Self::Unknown => "",
            Self::Expired { name } | Self::Forbidden { name, .. } => name,
        }
    }
}

/// How many were turned away since the start.
#[derive(Debug, Default)]
pub struct Failures {
    counts: [AtomicU64; Denied::REASONS.len()],
    /// When the log was last told, and how many it was not told of since.
    told: Mutex<(Option<Instant>, u64)>,
}

impl Failures {
    /// How many were turned away for one of [`Denied::REASONS`].
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Denied::REASONS
            .into_iter()
            .zip(self.counts.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    pub(super) fn note(&self, denied: &Denied) {
        self.counts[denied.place()].fetch_add(1, Ordering::Relaxed);
        let mut told = self.told.lock();
        let (told_at, untold) = *told;
        if told_at.is_some_and(|at| at.elapsed() < TOLD_INTERVAL) {
            *told = (told_at, untold + 1);
            return;
        }
        *told = (Some(Instant::now()), 0);
        drop(told);
        let (reason, token_name) = (denied.reason(), denied.name());
        tracing::warn!(reason, token_name, untold, "a caller is turned away: {reason} token");
    }
}
