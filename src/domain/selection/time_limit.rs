//! A limit in time: a point in time, or an age.

use std::{fmt, str::FromStr};

use crate::domain::Timestamp;

/// A limit for a time, in one of two forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeLimit {
    /// A point in time.
    At(Timestamp),
    /// An age in seconds, relative to the time of the request.
    Age(u32),
}

/// The error for a text that is neither a time nor an age.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a time such as 2026-11-22T14:21:22Z, or an age such as 90m, 24h or 7d")]
pub struct InvalidTimeLimit;

impl TimeLimit {
    /// Returns the point in time at `now`.
    pub fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Age(seconds) => now.minus_seconds(seconds.into()),
        }
    }
}

impl FromStr for TimeLimit {
    type Err = InvalidTimeLimit;

    fn from_str(text: &str) -> Result<Self, InvalidTimeLimit> {
        let unit = match text.as_bytes().last() {
            Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 3_600,
            Some(b'd') => 86_400,
            // In a query, an unescaped `+` of the offset is read as a space.
            _ => {
                let time = Timestamp::parse_rfc3339(&text.replace(' ', "+"));
                return time.map(Self::At).map_err(|_| InvalidTimeLimit);
            }
        };
        let number = &text[..text.len() - 1];
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidTimeLimit);
        }
        let number: u32 = number.parse().map_err(|_| InvalidTimeLimit)?;
        number.checked_mul(unit).map(Self::Age).ok_or(InvalidTimeLimit)
    }
}

impl fmt::Display for TimeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(time) => time.fmt(f),
            Self::Age(seconds) => write!(f, "{seconds}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_and_ages_are_read() {
        let time = Timestamp::parse_rfc3339("2026-11-22T14:21:22Z").unwrap();
        let limit = |text: &str| text.parse::<TimeLimit>();
        assert_eq!(limit("2026-11-22T14:21:22Z"), Ok(TimeLimit::At(time)));
        assert_eq!(limit("2026-11-22T15:21:22 01:00"), Ok(TimeLimit::At(time)), "unescaped");
        assert_eq!(limit("90m"), Ok(TimeLimit::Age(5_400)));
        assert_eq!(limit("7d").unwrap().at(time), time.minus_seconds(604_800));
        for wrong in ["", "h", "1w", "-1h", "+1h", "1.5h", "99999999999s", "4000000000d", "é"] {
            assert_eq!(limit(wrong), Err(InvalidTimeLimit), "{wrong}");
        }
    }
}
