//! A point in time, with microseconds. chrono does the calendar.

use std::fmt;

use chrono::{DateTime, Datelike as _, Timelike as _, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Microseconds since the Unix epoch (UTC), within the years 1 to 9999, so that each has an
/// RFC 3339 form.
///
/// In JSON, it has that form (`2026-11-22T14:21:22.587413Z`); in binary formats, it is the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The error for a text that is not a time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not an RFC 3339 time such as 2026-11-22T14:21:22Z")]
pub struct InvalidTimestamp;

const MICROS_PER_SECOND: i64 = 1_000_000;

impl Timestamp {
    /// 0001-01-01T00:00:00Z.
    pub const MIN: Self = Self(-62_135_596_800 * MICROS_PER_SECOND);
    /// 9999-12-31T23:59:59.999999Z.
    pub const MAX: Self = Self(253_402_300_800 * MICROS_PER_SECOND - 1);

    /// Returns the time `micros` microseconds after the epoch, limited to the years 1 to 9999.
    pub const fn from_micros(micros: i64) -> Self {
        // Written out, because `clamp` is not const.
        if micros < Self::MIN.0 {
            Self::MIN
        } else if micros > Self::MAX.0 {
            Self::MAX
        } else {
            Self(micros)
        }
    }

    /// Returns the microseconds since the epoch.
    pub fn as_micros(self) -> i64 {
        self.0
    }

    /// Parses RFC 3339 with any offset. Digits after the microseconds are cut off.
    ///
    /// # Errors
    /// Fails if the text does not have that form.
    pub fn parse_rfc3339(text: &str) -> Result<Self, InvalidTimestamp> {
        let time = DateTime::parse_from_rfc3339(text).map_err(|_| InvalidTimestamp)?;
        Ok(Self::from_micros(time.timestamp_micros()))
    }

    /// Returns the time `seconds` before this one.
    pub fn minus_seconds(self, seconds: i64) -> Self {
        self.plus_seconds(-seconds)
    }

    /// Returns the time `seconds` after this one.
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Self::from_micros(self.0.saturating_add(seconds.saturating_mul(MICROS_PER_SECOND)))
    }

    /// Returns the same instant for chrono.
    pub fn to_datetime(self) -> DateTime<Utc> {
        // The permitted range lies within chrono's, so the default is never used.
        DateTime::from_timestamp_micros(self.0).unwrap_or_default()
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        Self::from_micros(time.timestamp_micros())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // chrono's own formatting takes several times as long, and an answer has two times.
        let time = self.to_datetime();
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let year = u32::try_from(time.year()).unwrap_or_default();
        put_digits(&mut text[0..4], year);
        put_digits(&mut text[5..7], time.month());
        put_digits(&mut text[8..10], time.day());
        put_digits(&mut text[11..13], time.hour());
        put_digits(&mut text[14..16], time.minute());
        put_digits(&mut text[17..19], time.second());
        put_digits(&mut text[20..26], time.timestamp_subsec_micros());
        f.write_str(str::from_utf8(&text).unwrap_or_default())
    }
}

/// Writes a number with leading zeros.
fn put_digits(text: &mut [u8], number: u32) {
    let mut rest = number;
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_i64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            Self::parse_rfc3339(&text).map_err(D::Error::custom)
        } else {
            i64::deserialize(deserializer).map(Self::from_micros)
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::SecondsFormat;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_prints_utc_with_microseconds_and_z() {
        let time = Timestamp::parse_rfc3339("2026-11-22T22:21:22.5874139+08:00").unwrap();
        assert_eq!(time.to_string(), "2026-11-22T14:21:22.587413Z");
    }

    proptest! {
        #[test]
        fn it_prints_what_chrono_prints(micros in Timestamp::MIN.0..=Timestamp::MAX.0) {
            let time = Timestamp::from_micros(micros);
            let printed = time.to_datetime().to_rfc3339_opts(SecondsFormat::Micros, true);
            prop_assert_eq!(time.to_string(), printed);
        }
    }

    #[test]
    fn the_ends_of_its_range_have_a_printed_form() {
        assert_eq!(Timestamp::from_micros(i64::MIN).to_string(), "0001-01-01T00:00:00.000000Z");
        assert_eq!(Timestamp::from_micros(i64::MAX).to_string(), "9999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn a_time_without_an_offset_is_refused() {
        assert_eq!(Timestamp::parse_rfc3339("2026-11-22T14:21:22"), Err(InvalidTimestamp));
    }
}
