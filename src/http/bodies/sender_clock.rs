//! Senders whose clocks are behind. Their occurrences count too early: before a mark of a permanent
//! fix that they follow, and outside of windows that they belong to.
//!
//! A single time that is old on arrival proves nothing: an alert may have fired for long before its
//! first delivery, and the times of a late delivery are old too. But occurrences that *count* have
//! mostly just begun, so that a sender whose clock is right sends something less than a minute old
//! now and then. Therefore a clock is considered behind after [`LATE_CALLS`] calls in a row whose
//! newest times were all old by about the same amount. The ages of alerts that have fired for long,
//! as a new instance receives them, differ by more. A sender that always delivers minutes late
//! looks the same, and the warning says so: its occurrences count too early as well.
//!
//! Only times that the sender gives are considered, of occurrences that count from the call on:
//! neither re-sent alerts nor those that wait in an outage.

use std::{num::NonZeroUsize, sync::LazyLock};

use lru::LruCache;
use parking_lot::Mutex;

use crate::{
    auth::Caller,
    counter::{Answered, Counted, CounterError, OccurrenceOutcome},
    domain::Timestamp,
    store::RecordOutcome,
    telemetry,
};

/// Maximum age of a time on arrival with which a clock is considered right, in seconds.
const TOLERANCE_SECONDS: i64 = 60;
/// Number of calls in a row after which a clock is considered behind. Where groups of alerts are
/// sent every five minutes, one in five brings something that is younger than a minute.
const LATE_CALLS: u32 = 10;
/// Maximum difference of the ages of those calls, in seconds: the usual `group_interval` and
/// `group_wait` of Alertmanager, and a tolerance.
const SPREAD_SECONDS: i64 = 360;
/// Age from which a time proves nothing about a clock, in seconds: the error of a wrong time zone,
/// and a day.
const FARTHEST_SECONDS: i64 = 48 * 3_600;
/// Seconds between two warnings about a sender.
const WARNING_SECONDS: i64 = 86_400;
/// Maximum number of senders that are remembered at a time. Their names are those of tokens, or
/// addresses.
const SENDERS: NonZeroUsize = NonZeroUsize::new(256).expect("it is not 0");

static CLOCKS: LazyLock<Mutex<SenderClocks>> = LazyLock::new(Mutex::default);

/// Notes the times of a call's occurrences, which arrive at `now`, each with its result.
pub(in crate::http) fn note_times<'a>(
    caller: &Caller,
    now: Timestamp,
    results: impl Iterator<Item = (Timestamp, &'a Result<Answered<Counted>, CounterError>)>,
) {
    // An occurrence without a time has exactly that of its arrival.
    let newest =
        results.filter(|(at, result)| *at != now && counts(result)).map(|(at, _)| at).max();
    let Some(newest) = newest else { return };
    let (sender, age) = (caller.log_source(), seconds_between(newest, now));
    let Some(late) = CLOCKS.lock().note(sender.name(), now, age) else { return };
    telemetry::sender_behind();
    tracing::warn!(
        sender = sender.name(),
        seconds = late,
        "the times of a sender are always at least {late} seconds old on arrival: its clock is \
         slow (run NTP there), or it sends late. Its occurrences are counted at too early a time"
    );
}

/// Returns whether an occurrence counts from its call on.
fn counts(result: &Result<Answered<Counted>, CounterError>) -> bool {
    let outcome = result.as_ref().map(|answered| answered.value.outcome);
    matches!(outcome, Ok(OccurrenceOutcome::Settled(RecordOutcome::Counted)))
}

fn seconds_between(earlier: Timestamp, later: Timestamp) -> i64 {
    (later.as_micros() - earlier.as_micros()) / 1_000_000
}

/// The senders that were late; the one whose last late call is oldest is forgotten first.
#[derive(Debug)]
struct SenderClocks(LruCache<String, LateRun>);

/// Calls of a sender in a row that were late.
#[derive(Clone, Copy, Debug, Default)]
struct LateRun {
    calls: u32,
    least: i64,
    most: i64,
    warned_at: Option<Timestamp>,
}

impl Default for SenderClocks {
    fn default() -> Self {
        Self(LruCache::new(SENDERS))
    }
}

impl SenderClocks {
    /// Notes that the newest time of a call was `age` seconds old. Returns the minimum delay of the
    /// sender in seconds, if a warning about it is due.
    fn note(&mut self, sender: &str, now: Timestamp, age: i64) -> Option<i64> {
        if age > FARTHEST_SECONDS {
            return None;
        }
        if age <= TOLERANCE_SECONDS {
            if let Some(run) = self.0.peek_mut(sender) {
                run.calls = 0;
            }
            return None;
        }
        let run = self.0.get_or_insert_mut_ref(sender, LateRun::default);
        let (least, most) = (run.least.min(age), run.most.max(age));
        if run.calls == 0 || most - least > SPREAD_SECONDS {
            (run.calls, run.least, run.most) = (1, age, age);
        } else {
            (run.calls, run.least, run.most) = (run.calls.saturating_add(1), least, most);
        }
        let is_due = run.warned_at.is_none_or(|at| seconds_between(at, now) >= WARNING_SECONDS);
        if run.calls < LATE_CALLS || !is_due {
            return None;
        }
        run.warned_at = Some(now);
        Some(run.least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_774_799_738_000_000);

    /// Returns the warnings about a sender whose calls come every second, with these ages.
    fn warnings(ages: impl IntoIterator<Item = i64>) -> Vec<i64> {
        let mut clocks = SenderClocks::default();
        let seconds = 0..;
        let calls = seconds.zip(ages);
        calls.filter_map(|(n, age)| clocks.note("a", NOW.plus_seconds(n), age)).collect()
    }

    #[test]
    fn a_sender_whose_times_are_all_equally_late_is_reported_once_a_day() {
        for behind in [61, 120, 8 * 3_600, 27 * 3_600] {
            let ages = |calls: i64| (0..calls).map(move |n| behind + n * 37 % 300);
            assert!(warnings(ages(9)).is_empty());
            assert_eq!(warnings(ages(1_000)), [behind]);
            assert_eq!(warnings(ages(86_420)).len(), 2);
        }
    }

    #[test]
    fn a_sender_that_is_in_time_now_and_then_has_a_right_clock() {
        let ages = |n: i64| if n % 10 == 9 { 45 } else { 300 };
        assert!(warnings((0..1_000).map(ages)).is_empty());
        assert!(warnings((0..1_000).map(|n| 60 - n % 90)).is_empty(), "or ahead");
    }

    #[test]
    fn alerts_that_have_fired_for_long_prove_no_wrong_clock() {
        assert!(warnings((1..1_000).map(|n| n * 97 % 1_440 * 60)).is_empty());
        assert!(warnings((1..1_000).map(|_| 45 * 86_400)).is_empty());
    }

    #[test]
    fn the_senders_are_bounded() {
        let mut clocks = SenderClocks::default();
        for n in 0..10_000 {
            clocks.note(&format!("2001:db8::{n:x}"), NOW, 100);
        }
        assert_eq!(clocks.0.len(), SENDERS.get());
    }
}
