//! A set of levels, which may include the level of an anomaly that has reached none.

use std::{fmt, str::FromStr};

use serde::Deserialize;

use crate::domain::EscalationLevel;

/// A set of levels, which may include "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct LevelSet(u8);

/// The error for a text that is not the name of a level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be one of REPEAT, ESCALATE, PERMANENT_FIX, none, not {0:?}")]
pub struct InvalidLevel(String);

/// The name for the level of an anomaly that has reached none.
const NONE: &str = "none";

impl LevelSet {
    /// All levels, from none upwards.
    pub const EACH: [Option<EscalationLevel>; 4] = [
        None,
        Some(EscalationLevel::Repeat),
        Some(EscalationLevel::Escalate),
        Some(EscalationLevel::PermanentFix),
    ];

    /// Adds a level to the set.
    pub fn insert(&mut self, level: Option<EscalationLevel>) {
        self.0 |= Self::bit(level);
    }

    /// Adds all levels of another set.
    pub fn extend(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Returns true if a level is in the set.
    pub fn contains(self, level: Option<EscalationLevel>) -> bool {
        self.0 & Self::bit(level) != 0
    }

    /// Returns true if a lower level is in the set.
    pub fn contains_below(self, level: Option<EscalationLevel>) -> bool {
        self.0 & (Self::bit(level) - 1) != 0
    }

    /// Returns the name of a level in lists.
    pub fn name(level: Option<EscalationLevel>) -> &'static str {
        level.map_or(NONE, EscalationLevel::as_str)
    }

    /// Returns the index of a level in [`LevelSet::EACH`].
    pub const fn index(level: Option<EscalationLevel>) -> usize {
        match level {
            None => 0,
            Some(EscalationLevel::Repeat) => 1,
            Some(EscalationLevel::Escalate) => 2,
            Some(EscalationLevel::PermanentFix) => 3,
        }
    }

    const fn bit(level: Option<EscalationLevel>) -> u8 {
        1 << Self::index(level)
    }
}

impl TryFrom<String> for LevelSet {
    type Error = InvalidLevel;

    fn try_from(text: String) -> Result<Self, InvalidLevel> {
        text.parse()
    }
}

impl FromStr for LevelSet {
    type Err = InvalidLevel;

    /// Reads names separated by commas.
    fn from_str(text: &str) -> Result<Self, InvalidLevel> {
        let mut levels = Self::default();
        for name in text.split(',') {
            let level = Self::EACH.into_iter().find(|level| Self::name(*level) == name);
            levels.insert(level.ok_or_else(|| InvalidLevel(name.to_owned()))?);
        }
        Ok(levels)
    }
}

impl fmt::Display for LevelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> =
            Self::EACH.into_iter().filter(|level| self.contains(*level)).map(Self::name).collect();
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_by_their_names() {
        let levels: LevelSet = "ESCALATE,none".parse().unwrap();
        assert!(levels.contains(None) && levels.contains(Some(EscalationLevel::Escalate)));
        assert!(!levels.contains(Some(EscalationLevel::Repeat)));
        assert_eq!(levels.to_string(), "none,ESCALATE");
        assert!(levels.contains_below(Some(EscalationLevel::Repeat)));
        assert!(!levels.contains_below(None));
        for wrong in ["", "escalate", "ESCALATE,", "None"] {
            assert!(wrong.parse::<LevelSet>().is_err(), "{wrong}");
        }
    }
}
