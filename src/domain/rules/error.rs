//! The errors of rules, with their positions.

/// The error of a rule: its position, and what to write there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct RuleError {
    place: String,
    what: String,
}

impl RuleError {
    pub(super) fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }

    /// Puts an outer position before the known one.
    pub(super) fn inside(self, place: &str) -> Self {
        Self::new(place, self.to_string())
    }
}

/// Maximum number of characters of a text that an error quotes.
const SHOWN_CHARACTERS: usize = 60;

/// Returns a text in quotes, as errors show it.
pub(super) fn quoted(text: &str) -> String {
    if text.chars().count() <= SHOWN_CHARACTERS {
        return format!("\"{}\"", text.escape_debug());
    }
    let begin: String = text.chars().take(SHOWN_CHARACTERS).collect();
    format!("\"{}…\"", begin.escape_debug())
}
