//! A regular expression from the configuration: the syntax of RE2, anchored at both ends, and
//! bounded in length and size. Matching takes time linear in the text, for every pattern.

use regex::{Captures, Regex, RegexBuilder};

/// A regular expression that matches whole texts.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

/// The reason why a text is not a [`Pattern`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// It has too many characters.
    #[error("has more than {} characters: write a shorter one", Pattern::MAX_CHARACTERS)]
    TooLong,
    /// It takes too much memory.
    #[error(
        "needs more than {} KiB when compiled: use smaller repetitions",
        Pattern::MAX_COMPILED_BYTES / 1_024
    )]
    TooLarge,
    /// It is not a regular expression.
    #[error("is not a regular expression of RE2: {what}, at character {character}")]
    Syntax {
        /// The fault, such as "unclosed group".
        what: String,
        /// The position of the fault; the first character is 1.
        character: usize,
    },
    /// It is not valid inside a group.
    #[error("can't be anchored: remove the flag x")]
    NotAnchored,
}

impl Pattern {
    /// Maximum number of characters of a pattern.
    pub const MAX_CHARACTERS: usize = 1_024;

    /// Maximum size of the compiled pattern, and separately of the memory for matching, in bytes.
    pub const MAX_COMPILED_BYTES: usize = 256 * 1_024;

    /// Compiles a pattern. As in Prometheus, it is anchored, and `.` matches a line feed too.
    ///
    /// # Errors
    /// Fails if the text is too long or not a regular expression, or if the compiled pattern is too
    /// large.
    pub fn new(text: &str) -> Result<Self, InvalidPattern> {
        if text.chars().nth(Self::MAX_CHARACTERS).is_some() {
            return Err(InvalidPattern::TooLong);
        }
        // Parsed alone first: a text such as `a)(b` would pass inside the group.
        regex_syntax::parse(text).map_err(|error| syntax_error(text, &error))?;
        let regex = RegexBuilder::new(&format!("^(?s:{text})$"))
            .size_limit(Self::MAX_COMPILED_BYTES)
            .dfa_size_limit(Self::MAX_COMPILED_BYTES)
            .build()
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(_) => InvalidPattern::TooLarge,
                _ => InvalidPattern::NotAnchored,
            })?;
        Ok(Self { text: text.to_owned(), regex })
    }

    /// Returns the pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns true if the pattern matches the whole of `text`.
    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// Returns the groups if the pattern matches the whole of `text`.
    pub fn captures<'t>(&self, text: &'t str) -> Option<Captures<'t>> {
        self.regex.captures(text)
    }
}

fn syntax_error(text: &str, error: &regex_syntax::Error) -> InvalidPattern {
    let (what, offset) = match error {
        regex_syntax::Error::Parse(error) => (error.kind().to_string(), error.span().start.offset),
        regex_syntax::Error::Translate(error) => {
            (error.kind().to_string(), error.span().start.offset)
        }
        other => (other.to_string(), 0),
    };
    let before = text.get(..offset).unwrap_or_default();
    InvalidPattern::Syntax { what, character: before.chars().count() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_texts_only() {
        let pattern = Pattern::new("a|b.c").unwrap();
        assert!(pattern.matches("a") && pattern.matches("b\nc"));
        for other in ["", "ab", "ba", "b.cd", "a\n"] {
            assert!(!pattern.matches(other), "{other:?}");
        }
        assert!(Pattern::new("").unwrap().matches(""));
    }

    #[test]
    fn a_fault_is_told_with_its_place() {
        for (text, says) in [
            ("é(b", "unclosed group, at character 2"),
            ("a)(b", "unopened group, at character 2"),
            ("(?=x)", "look-around"),
            (r"\p{Nothing}", "Unicode property not found, at character 1"),
            ("(?x)a # b", "remove the flag x"),
            (&"a".repeat(1_025), "more than 1024 characters"),
            (r"(?:\w{50}){50}", "more than 256 KiB"),
        ] {
            let error = Pattern::new(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
