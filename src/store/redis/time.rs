//! Times in the key layout: scores are Unix seconds, texts are ISO 8601. An older writer wrote
//! texts in local time without a zone.

use std::fmt;

use chrono::{Local, NaiveDateTime, SecondsFormat, TimeZone as _, Utc};

use crate::domain::Timestamp;

const MICROS_PER_SECOND: i64 = 1_000_000;

/// A time that prints as Unix seconds with six decimals. It is sent as a text: Redis then rounds
/// equal times to the same double, wherever they come from. A difference of doubles would miss a
/// window's edge by a bit.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnixSeconds(pub(super) Timestamp);

impl fmt::Display for UnixSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        let sign = if micros < 0 { "-" } else { "" };
        let (seconds, rest) = (micros.abs() / MICROS_PER_SECOND, micros.abs() % MICROS_PER_SECOND);
        write!(f, "{sign}{seconds}.{rest:06}")
    }
}

/// Returns the time of a score, to the nearest microsecond (a double of this size is more precise).
pub(super) fn from_unix_seconds(score: f64) -> Timestamp {
    // The cast saturates, and the constructor clamps.
    Timestamp::from_micros((score * MICROS_PER_SECOND as f64).round() as i64)
}

/// Returns the time of a score if it is exact to the microsecond; `None` if it is finer, which only
/// a foreign writer's is.
pub(super) fn from_exact_unix_seconds(score: f64) -> Option<Timestamp> {
    let time = from_unix_seconds(score);
    // The quotient is rounded to the nearest double, as the text is.
    let is_exact = time.as_micros() as f64 / MICROS_PER_SECOND as f64 == score;
    (is_exact && time.as_micros().abs() < 1 << f64::MANTISSA_DIGITS).then_some(time)
}

/// Returns ISO 8601 with `+00:00`: Python's `datetime.fromisoformat` accepts `Z` only since 3.11.
pub(super) fn to_iso8601(time: Timestamp) -> String {
    time.to_datetime().to_rfc3339_opts(SecondsFormat::Micros, false)
}

/// Parses ISO 8601. A time without a zone is in the time zone of this machine, as Python's
/// `datetime.now().isoformat()` writes it.
pub(super) fn from_iso8601(text: &str) -> Option<Timestamp> {
    if let Ok(time) = Timestamp::parse_rfc3339(text) {
        return Some(time);
    }
    let naive = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"]
        .into_iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())?;
    // In the hour that is repeated when summer time ends, the first time is taken. A time that is
    // skipped when it begins is taken as UTC rather than lost.
    let local = Local.from_local_datetime(&naive).earliest();
    Some(local.map_or_else(|| naive.and_utc(), |time| time.with_timezone(&Utc)).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_time_survives_its_way_through_a_score(micros in 0..4_102_444_800_000_000_i64) {
            let time = Timestamp::from_micros(micros);
            let score: f64 = UnixSeconds(time).to_string().parse().unwrap();
            prop_assert_eq!(from_unix_seconds(score), time);
            prop_assert_eq!(from_exact_unix_seconds(score), Some(time));
            prop_assert_eq!(from_exact_unix_seconds(score.next_up()), None);
        }
    }

    #[test]
    fn times_before_the_epoch_keep_their_sign() {
        assert_eq!(UnixSeconds(Timestamp::from_micros(-1_500_000)).to_string(), "-1.500000");
    }

    #[test]
    fn iso_times_with_and_without_a_zone_are_read() {
        let utc = Timestamp::parse_rfc3339("2026-03-29T15:55:38.123456Z").unwrap();
        assert_eq!(from_iso8601("2026-03-29T23:55:38.123456+08:00"), Some(utc));
        assert_eq!(from_iso8601(&to_iso8601(utc)), Some(utc));
        let local = utc.to_datetime().with_timezone(&Local).naive_local();
        let naive = local.format("%Y-%m-%dT%H:%M:%S%.6f").to_string();
        assert_eq!(from_iso8601(&naive), Some(utc));
        assert_eq!(from_iso8601("yesterday"), None);
    }
}
