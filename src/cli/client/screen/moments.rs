//! Times and ages for people.

use chrono::Local;

use crate::domain::Timestamp;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Returns the time between two moments, in the largest unit of which there are at least two, or as
/// one second, minute or hour.
pub(in crate::cli::client) fn age(now: Timestamp, then: Timestamp) -> String {
    let seconds = (now.as_micros() - then.as_micros()) / 1_000_000;
    match seconds {
        // The local clock may be slightly behind the service's clock.
        ..=0 => "now".to_owned(),
        1..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => format!("{} min", seconds / MINUTE),
        HOUR..172_800 => format!("{} h", seconds / HOUR),
        _ => format!("{} d", seconds / DAY),
    }
}

/// Returns a length of time in one unit, rounded.
pub(in crate::cli::client) fn span(seconds: i64) -> String {
    match seconds {
        ..5_400 => format!("{} min", (seconds + 30) / 60),
        5_400..172_800 => format!("{} h", (seconds + 1_800) / 3_600),
        _ => format!("{} d", (seconds + 43_200) / 86_400),
    }
}

/// Returns a time in the reader's time zone, which it names.
pub(in crate::cli::client) fn local_time(time: Timestamp) -> String {
    let local = time.to_datetime().with_timezone(&Local);
    match local.offset().local_minus_utc() {
        0 => local.format("%Y-%m-%d %H:%M:%S UTC").to_string(),
        _ => local.format("%Y-%m-%d %H:%M:%S %:z").to_string(),
    }
}

/// Returns the last multiple of `seconds` before a time, counted from midnight of the reader's time
/// zone.
pub(in crate::cli::client) fn local_multiple(time: Timestamp, seconds: i64) -> Timestamp {
    let offset = time.to_datetime().with_timezone(&Local).offset().local_minus_utc();
    let local = time.as_micros().div_euclid(1_000_000) + i64::from(offset);
    Timestamp::from_micros((local - local.rem_euclid(seconds) - i64::from(offset)) * 1_000_000)
}

/// Returns the hour and minute of a time, or its day, in the reader's time zone.
pub(in crate::cli::client) fn short_time(time: Timestamp, is_day: bool) -> String {
    let local = time.to_datetime().with_timezone(&Local);
    local.format(if is_day { "%b %-d" } else { "%H:%M" }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_one_unit() {
        let now = Timestamp::from_micros(1_700_000_000_000_000);
        for (seconds, expected) in [
            (-5, "now"),
            (0, "now"),
            (1, "1 s"),
            (59, "59 s"),
            (60, "1 min"),
            (2_999, "49 min"),
            (3_600, "1 h"),
            (172_799, "47 h"),
            (172_800, "2 d"),
            (30 * 86_400, "30 d"),
        ] {
            assert_eq!(age(now, now.minus_seconds(seconds)), expected);
        }
    }

    #[test]
    fn a_span_is_rounded() {
        let shown = [300, 3_600, 3_590, 86_395, 604_801, 2_592_000].map(span);
        assert_eq!(shown, ["5 min", "60 min", "60 min", "24 h", "7 d", "30 d"]);
    }
}
