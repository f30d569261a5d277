//! Lengths of time as options have them: `"13h"`.

use serde::{Deserialize, Deserializer, de::Error as _};

/// A length of time, from a second to 35 days: a whole number and its unit (`s`, `m`, `h` or `d`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period {
    seconds: i64,
}

const UNITS: [(char, i64); 4] = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];

const LONGEST_SECONDS: i64 = 35 * 86_400;

impl Period {
    /// Parses a text; `None` if it is not of that form, or out of bounds.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let (_, seconds_each) = UNITS.into_iter().find(|(name, _)| unit == name.to_string())?;
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let seconds = number.parse::<i64>().ok()?.checked_mul(seconds_each)?;
        (1..=LONGEST_SECONDS).contains(&seconds).then_some(Self { seconds })
    }

    /// Returns its seconds.
    pub fn seconds(self) -> i64 {
        self.seconds
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            D::Error::custom("must be a whole number with s, m, h or d, such as \"13h\", up to 35d")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_a_whole_number_with_its_unit() {
        let seconds = |text| Period::parse(text).map(Period::seconds);
        for (text, expected) in [("1s", 1), ("10m", 600), ("13h", 46_800), ("35d", 3_024_000)] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for wrong in ["", "h", "13", "0h", "36d", "1.5h", "-1h", "+1h", "1 h", "1w", "1H", "1é"] {
            assert_eq!(seconds(wrong), None, "{wrong:?}");
        }
    }
}
