//! So many turns a second, evenly.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Who is later than that has lost the turns between: making up for all of them would be a storm.
const MOST_LATE: Duration = Duration::from_secs(1);

/// When the next turn is.
#[derive(Debug)]
pub(crate) struct Pace {
    next: Instant,
    interval: Duration,
}

impl Pace {
    pub(crate) fn per_second(turns: f64) -> Self {
        Self { next: Instant::now(), interval: Duration::from_secs_f64(1.0 / turns) }
    }

    /// Waits for the next turn; not at all where it is late.
    pub(crate) fn wait(&mut self) {
        let now = Instant::now();
        thread::sleep(self.next.saturating_duration_since(now));
        self.next = self.next.max(now.checked_sub(MOST_LATE).unwrap_or(now)) + self.interval;
    }
}
