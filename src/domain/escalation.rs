//! The levels that say when to stop repairing, by the count of the last 24 hours.

use serde::{Deserialize, Serialize};

/// The response that the number of recurrences calls for. Ordered by urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EscalationLevel {
    /// The anomaly has come back: the repair treats only the symptom.
    Repeat,
    /// A person should look, and automatic repairs stop.
    Escalate,
    /// Fix the cause: nothing else helps.
    PermanentFix,
}

impl EscalationLevel {
    /// All levels, lowest first.
    pub const ALL: [Self; 3] = [Self::Repeat, Self::Escalate, Self::PermanentFix];

    /// Returns the name in the JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Repeat => "REPEAT",
            Self::Escalate => "ESCALATE",
            Self::PermanentFix => "PERMANENT_FIX",
        }
    }
}

/// A level, and a condition that reaches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Band {
    /// The level that the condition reaches.
    pub level: EscalationLevel,
    /// The condition, such as `3 in 24h`.
    pub condition: String,
}

/// The number of occurrences in 24 hours at which each level begins; the numbers rise strictly,
/// from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ThresholdsConfig")]
pub struct Thresholds {
    repeat: u64,
    escalate: u64,
    permanent_fix: u64,
}

/// The error for numbers that do not strictly rise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "thresholds must rise strictly, from 1: repeat < escalate < permanent_fix, but they are \
     {repeat}, {escalate}, {permanent_fix}"
)]
pub struct InvalidThresholds {
    repeat: u64,
    escalate: u64,
    permanent_fix: u64,
}

/// The section `thresholds` of the configuration, before it is checked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ThresholdsConfig {
    repeat: u64,
    escalate: u64,
    permanent_fix: u64,
}

impl TryFrom<ThresholdsConfig> for Thresholds {
    type Error = InvalidThresholds;

    fn try_from(config: ThresholdsConfig) -> Result<Self, InvalidThresholds> {
        Self::new(config.repeat, config.escalate, config.permanent_fix)
    }
}

impl Thresholds {
    /// Creates thresholds from three counts.
    ///
    /// # Errors
    /// Fails if they do not rise strictly, or if the first is 0.
    pub fn new(repeat: u64, escalate: u64, permanent_fix: u64) -> Result<Self, InvalidThresholds> {
        if 1 <= repeat && repeat < escalate && escalate < permanent_fix {
            Ok(Self { repeat, escalate, permanent_fix })
        } else {
            Err(InvalidThresholds { repeat, escalate, permanent_fix })
        }
    }

    /// Returns the counts at which the levels begin, lowest level first.
    pub const fn counts(self) -> [u64; 3] {
        [self.repeat, self.escalate, self.permanent_fix]
    }

    /// Returns the level that `count_24h` occurrences reach, if any.
    pub fn level(self, count_24h: u64) -> Option<EscalationLevel> {
        if count_24h >= self.permanent_fix {
            Some(EscalationLevel::PermanentFix)
        } else if count_24h >= self.escalate {
            Some(EscalationLevel::Escalate)
        } else if count_24h >= self.repeat {
            Some(EscalationLevel::Repeat)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_begins_at_its_threshold() {
        let thresholds = Thresholds::new(3, 5, 10).unwrap();
        let levels: Vec<_> = [2, 3, 4, 5, 9, 10, u64::MAX].map(|n| thresholds.level(n)).into();
        use EscalationLevel::{Escalate, PermanentFix, Repeat};
        assert_eq!(
            levels,
            [
                None,
                Some(Repeat),
                Some(Repeat),
                Some(Escalate),
                Some(Escalate),
                Some(PermanentFix),
                Some(PermanentFix)
            ]
        );
    }

    #[test]
    fn thresholds_that_do_not_strictly_rise_are_refused() {
        for (a, b, c) in [(0, 1, 2), (3, 3, 10), (3, 10, 5), (5, 3, 10)] {
            assert!(Thresholds::new(a, b, c).is_err(), "{a} {b} {c}");
        }
    }
}
