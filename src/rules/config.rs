//! The section `rules` of the configuration.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::domain::{InvalidSpan, RETENTION, RuleSource, parse_span};

/// The section `rules` of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RulesConfig {
    /// A TOML file with rules, each under `[[rule]]`, read again on SIGHUP.
    pub file: Option<PathBuf>,
    /// The time for which a level must not have been held before a step to it is new: minutes,
    /// hours or days, up to 30 days; 0 makes every step new.
    pub rearm: Rearm,
    /// The rules, if there is no file.
    pub rule: Vec<RuleSource>,
}

/// The time after which a step to a level is new again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rearm {
    seconds: u32,
    text: String,
}

impl Rearm {
    /// Returns the time in seconds.
    pub fn seconds(&self) -> u32 {
        self.seconds
    }
}

impl fmt::Display for Rearm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Rearm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bounds = "a whole number with m, h or d, from \"0h\" to \"30d\"";
        let seconds = match parse_span(&text) {
            Ok(seconds) => seconds,
            Err(InvalidSpan::NoUnit) => {
                return Err(D::Error::custom(format!("has no unit: write \"{text}h\"")));
            }
            Err(InvalidSpan::NoSpan) => {
                return Err(D::Error::custom(format!("is {text:?}: it must be {bounds}")));
            }
        };
        let most = RETENTION.length_seconds().unsigned_abs();
        match u32::try_from(seconds) {
            Ok(seconds) if u64::from(seconds) <= most => Ok(Self { seconds, text }),
            _ => Err(D::Error::custom(format!("is {text:?}: it must be {bounds}"))),
        }
    }
}
