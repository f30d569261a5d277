//! Limits the log lines that callers cause, so that no caller can fill the log or hide another: for
//! each kind and caller, the first lines of a minute are written, and a summary counts the others.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::LazyLock,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Maximum number of lines of one kind and caller that are written in a window.
const LINES: u64 = 5;
const WINDOW: Duration = Duration::from_secs(60);

/// Maximum number of addresses whose lines of one kind are counted separately. All others share one
/// count, because a stranger can have any number of addresses.
const ADDRESSES: usize = 16;

static LIMITER: LazyLock<LogLimiter> = LazyLock::new(LogLimiter::default);

/// The caller who causes a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogSource<'a> {
    /// The holder of the token of this name. Their number is limited by the configuration.
    Token(&'a str),
    /// A caller without a token, by the address.
    Address(&'a str),
    /// The caller is unknown.
    Anyone,
}

impl LogSource<'_> {
    /// The name or the address.
    pub fn name(&self) -> &str {
        match self {
            Self::Token(name) | Self::Address(name) => name,
            Self::Anyone => OTHERS,
        }
    }
}

const OTHERS: &str = "others";

/// Returns whether a line of this kind may be written. A kind is the message of the line without
/// its figures; the summary repeats it.
pub fn may_log(kind: &'static str, source: LogSource<'_>, now: Instant) -> bool {
    LIMITER.may_log(kind, source, now)
}

/// Writes the summaries of the windows that have ended. Must be called every few seconds.
pub fn summarise_log(now: Instant) {
    LIMITER.summarise(|row| row.is_over(now));
}

/// Writes all summaries. Must be called when the service stops.
pub fn summarise_log_at_end() {
    LIMITER.summarise(|_| true);
}

/// Counts the lines of each kind and caller.
#[derive(Debug, Default)]
struct LogLimiter(Mutex<HashMap<RowKey, Row>>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RowKey {
    kind: &'static str,
    source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Source {
    Token(Box<str>),
    Address(Box<str>),
    Others,
}

#[derive(Debug)]
struct Row {
    began_at: Instant,
    written: u64,
    left_out: u64,
}

impl Row {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began_at) >= WINDOW
    }
}

impl LogLimiter {
    fn may_log(&self, kind: &'static str, source: LogSource<'_>, now: Instant) -> bool {
        let mut rows = self.0.lock();
        let key = RowKey { kind, source: own_source(&rows, kind, source) };
        let ended = match rows.entry(key) {
            Entry::Occupied(mut row) if !row.get().is_over(now) => {
                let row = row.get_mut();
                let may_log = row.written < LINES;
                *(if may_log { &mut row.written } else { &mut row.left_out }) += 1;
                return may_log;
            }
            Entry::Occupied(mut row) => {
                let ended = row.insert(Row { began_at: now, written: 1, left_out: 0 });
                Some((row.key().clone(), ended))
            }
            Entry::Vacant(row) => {
                row.insert(Row { began_at: now, written: 1, left_out: 0 });
                None
            }
        };
        drop(rows);
        if let Some((key, row)) = ended {
            write_summary(&key, &row);
        }
        true
    }

    /// Writes the summaries of the rows that have ended, and removes these rows.
    fn summarise(&self, has_ended: impl Fn(&Row) -> bool) {
        let ended: Vec<_> = self.0.lock().extract_if(|_, row| has_ended(row)).collect();
        for (key, row) in ended {
            write_summary(&key, &row);
        }
    }
}

/// The source under which a line is counted.
fn own_source(rows: &HashMap<RowKey, Row>, kind: &'static str, source: LogSource<'_>) -> Source {
    let address = match source {
        LogSource::Token(name) => return Source::Token(name.into()),
        LogSource::Anyone => return Source::Others,
        LogSource::Address(address) => Source::Address(address.into()),
    };
    let of_address = |key: &RowKey| key.kind == kind && matches!(key.source, Source::Address(_));
    let has_room = || rows.keys().filter(|key| of_address(key)).count() < ADDRESSES;
    let key = RowKey { kind, source: address };
    if rows.contains_key(&key) || has_room() { key.source } else { Source::Others }
}

fn write_summary(key: &RowKey, row: &Row) {
    let RowKey { kind, source } = key;
    let left_out = row.left_out;
    if left_out == 0 {
        return;
    }
    let source = match source {
        Source::Token(name) | Source::Address(name) => name,
        Source::Others => OTHERS,
    };
    tracing::warn!(
        kind,
        source,
        left_out,
        "{left_out} more lines about {source} were suppressed: {kind}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: &str = "a call is refused";

    fn written(limiter: &LogLimiter, source: LogSource<'_>, lines: u64, now: Instant) -> u64 {
        (0..lines).filter(|_| limiter.may_log(KIND, source, now)).count() as u64
    }

    fn left_out(limiter: &LogLimiter, source: &Source) -> Option<u64> {
        let key = RowKey { kind: KIND, source: source.clone() };
        limiter.0.lock().get(&key).map(|row| row.left_out)
    }

    #[test]
    fn the_first_lines_of_a_minute_are_written_and_the_others_are_counted() {
        let (limiter, now) = (LogLimiter::default(), Instant::now());
        let stranger = LogSource::Address("192.0.2.1");
        assert_eq!(written(&limiter, stranger, 100, now), LINES);
        assert_eq!(left_out(&limiter, &Source::Address("192.0.2.1".into())), Some(100 - LINES));
        assert_eq!(written(&limiter, stranger, 100, now + WINDOW), LINES);
        assert!(limiter.may_log("another kind", stranger, now));
    }

    #[test]
    fn a_noisy_stranger_hides_nobody() {
        let (limiter, now) = (LogLimiter::default(), Instant::now());
        for n in 0..10_000 {
            limiter.may_log(KIND, LogSource::Address(&format!("2001:db8::{n:x}")), now);
        }
        // Its memory is bounded: the addresses beyond those share one row.
        assert_eq!(limiter.0.lock().len(), ADDRESSES + 1);
        let shared = 10_000 - ADDRESSES as u64 - LINES;
        assert_eq!(left_out(&limiter, &Source::Others), Some(shared));
        assert_eq!(written(&limiter, LogSource::Token("prometheus"), 100, now), LINES);
    }

    #[test]
    fn a_row_is_forgotten_with_its_summary() {
        let (limiter, now) = (LogLimiter::default(), Instant::now());
        written(&limiter, LogSource::Anyone, 100, now);
        limiter.summarise(|row| row.is_over(now));
        assert_eq!(limiter.0.lock().len(), 1);
        limiter.summarise(|row| row.is_over(now + WINDOW));
        assert!(limiter.0.lock().is_empty());
    }
}
