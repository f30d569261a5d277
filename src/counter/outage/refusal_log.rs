//! Logs the writes that the store refuses for good: the first ones of a minute one by one, and then
//! how many there were. An outage may end with many thousands of them.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::domain::Operation;

/// Maximum number of lines in a window.
const LINES: u64 = 10;
const WINDOW: Duration = Duration::from_secs(60);

/// The lines of the current window.
#[derive(Debug, Default)]
pub(crate) struct RefusalLog(Mutex<Option<Window>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    began_at: Instant,
    refused: u64,
}

impl RefusalLog {
    /// Logs a refused write, unless there were enough lines.
    pub(crate) fn note(&self, now: Instant, operation: &Operation, reason: &str) {
        self.report(now);
        if self.may_log(now) {
            let (kind, key) = (operation.kind(), operation.key());
            tracing::error!(%key, reason, "the store refuses a {kind} of anomaly {key}");
        }
    }

    /// Logs how many writes were left out, once the window is over. To be called about once a
    /// second.
    pub(crate) fn report(&self, now: Instant) {
        if let Some(left_out) = self.end_window(now).filter(|left_out| *left_out > 0) {
            tracing::error!(
                left_out,
                "the store has refused {left_out} more writes: see `spool list`"
            );
        }
    }

    fn may_log(&self, now: Instant) -> bool {
        let mut window = self.0.lock();
        let window = window.get_or_insert(Window { began_at: now, refused: 0 });
        window.refused += 1;
        window.refused <= LINES
    }

    /// Ends the window if it is over. Returns how many writes it left out.
    fn end_window(&self, now: Instant) -> Option<u64> {
        let is_over = |window: &mut Window| now - window.began_at >= WINDOW;
        let ended = self.0.lock().take_if(is_over)?;
        Some(ended.refused.saturating_sub(LINES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_refusals_of_a_minute_are_logged_and_the_others_are_counted() {
        let (log, begin) = (RefusalLog::default(), Instant::now());
        let logged = |now| (0..1_000).filter(|_| log.may_log(now)).count() as u64;
        assert_eq!(logged(begin), LINES);
        assert_eq!(log.end_window(begin + WINDOW / 2), None);
        assert_eq!(logged(begin + WINDOW / 2), 0);
        assert_eq!(log.end_window(begin + WINDOW), Some(2_000 - LINES));
        assert_eq!(log.end_window(begin + WINDOW), None);
        assert_eq!(logged(begin + WINDOW), LINES);
    }
}
