//! The progress of a replay, for the log: while it runs, and when the outage is over.

use std::time::Duration;

use tokio::time::Instant;

use crate::counter::health::Replayed;

/// Interval between log lines about the progress of a long replay.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// The numbers of operations that were replayed since the last outage.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    replayed: Replayed,
    page_begun_at: Option<Instant>,
    /// The time at which the first page with a settled operation began.
    begun_at: Option<Instant>,
    logged_at: Option<Instant>,
}

impl Progress {
    /// Notes that the replay of a page begins.
    pub(crate) fn begin_page(&mut self) {
        self.page_begun_at = Some(Instant::now());
    }

    /// Notes how many operations of the page were settled.
    pub(crate) fn note(&mut self, applied: usize, rejected: usize) {
        let page_begun_at = self.page_begun_at.unwrap_or_else(Instant::now);
        let first = *self.begun_at.get_or_insert(page_begun_at);
        self.replayed.applied += applied;
        self.replayed.rejected += rejected;
        self.replayed.took = first.elapsed();
    }

    /// Logs how many operations wait, unless that was logged recently.
    pub(crate) fn log(&mut self, waiting: usize) {
        let Some(begun_at) = self.begun_at else { return };
        if self.logged_at.unwrap_or(begun_at).elapsed() > LOG_INTERVAL {
            self.logged_at = Some(Instant::now());
            tracing::info!(waiting, "replaying: {waiting} operations wait");
        }
    }

    pub(crate) fn replayed(&self) -> Replayed {
        self.replayed
    }

    /// Resets the progress, because the outage is over.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}
