//! The name of a rule, as a filter of lists.

use serde::Deserialize;

/// Maximum number of characters of a rule's name.
const MAX_CHARACTERS: usize = 64;

/// The name of a rule, which need not be in force.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct RuleName(String);

/// The error for a text that can't be the name of a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be the name of a rule, of 1 to 64 characters")]
pub struct InvalidRuleName;

impl RuleName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RuleName {
    type Error = InvalidRuleName;

    fn try_from(name: String) -> Result<Self, InvalidRuleName> {
        match (1..=MAX_CHARACTERS).contains(&name.chars().count()) {
            true => Ok(Self(name)),
            false => Err(InvalidRuleName),
        }
    }
}
