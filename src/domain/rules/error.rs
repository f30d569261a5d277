//! Why a rule is refused, with its place.

/// The error of a rule: where it is, and what to write there.
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

    /// Puts a place before the one that is known.
    pub(super) fn inside(self, place: &str) -> Self {
        Self::new(place, self.to_string())
    }
}

/// Maximum number of characters of a text that an error repeats.
const SHOWN_CHARACTERS: usize = 60;

/// Returns a text in quotes as an error repeats it.
pub(super) fn quoted(text: &str) -> String {
    if text.chars().count() <= SHOWN_CHARACTERS {
        return format!("\"{}\"", text.escape_debug());
    }
    let begin: String = text.chars().take(SHOWN_CHARACTERS).collect();
    format!("\"{}…\"", begin.escape_debug())
}
