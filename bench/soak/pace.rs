//! A steady pace: a number of turns a second, evenly spread.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Maximum delay of a turn. Later ones are skipped: to catch up on all of them would be a storm.
const MOST_LATE: Duration = Duration::from_secs(1);

/// The time of the next turn.
#[derive(Debug)]
pub(crate) struct Pace {
    next: Instant,
    interval: Duration,
}

impl Pace {
    pub(crate) fn per_second(turns: f64) -> Self {
        Self { next: Instant::now(), interval: Duration::from_secs_f64(1.0 / turns) }
    }

    /// Waits for the next turn, unless it is late.
    pub(crate) fn wait(&mut self) {
        let now = Instant::now();
        thread::sleep(self.next.saturating_duration_since(now));
        self.next = self.next.max(now.checked_sub(MOST_LATE).unwrap_or(now)) + self.interval;
    }
}
