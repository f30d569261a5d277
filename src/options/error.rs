//! The error of an option, in the words of the file that has it.

use std::{fmt, io, path::Path};

use config::ConfigError;
use serde::de;

/// Why options can't be used: which key, where its value came from, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionError {
    /// The key with its section, and the origins of its value; absent until they are known.
    place: Option<Place>,
    /// A key below the place.
    member: Option<String>,
    what: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    key: String,
    origins: Vec<String>,
}

impl std::error::Error for OptionError {}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Place { key, origins }) = &self.place else { return f.write_str(&self.what) };
        if !key.is_empty() {
            write!(f, "`{key}`")?;
        }
        if !origins.is_empty() {
            write!(f, " ({})", origins.join(", "))?;
        }
        // Some texts have the key as their subject, others are sentences of their own.
        let continues = ["is ", "has "].iter().any(|begin| self.what.starts_with(begin));
        write!(f, "{}{}", if continues { " " } else { ": " }, self.what)
    }
}

impl OptionError {
    fn new(what: impl Into<String>) -> Self {
        Self { place: None, member: None, what: what.into() }
    }

    /// The error of a value that is shown and is not `expected`.
    pub(super) fn not_as_expected(shown: &str, expected: &str) -> Self {
        Self::new(format!("is {shown}: it must be {expected}"))
    }

    pub(super) fn unreadable(file: &Path, error: &io::Error) -> Self {
        Self::new(format!("the file {} can't be read: {error}", file.display()))
    }

    /// The error of a file that is not TOML.
    pub(super) fn of_gathering(error: ConfigError) -> Self {
        let ConfigError::FileParse { uri, cause } = error else {
            return Self::new(without_excerpt(&error.to_string()));
        };
        let text = without_excerpt(&cause.to_string());
        let text = text.strip_prefix("TOML parse error at ").unwrap_or(&text);
        let file = uri.as_deref().unwrap_or("the text");
        Self::new(format!("{file} is not TOML: {text}"))
    }

    /// The key below its place that the error is about, if any.
    pub(super) fn member(&self) -> Option<&str> {
        self.member.as_deref()
    }

    /// Adds the place, unless a place inside of it is known.
    pub(super) fn at(mut self, key: String, origins: Vec<String>) -> Self {
        if self.place.is_none() {
            self.place = Some(Place { key, origins });
        }
        self
    }
}

/// Returns the text without the line of the file that it shows, which may hold a password.
fn without_excerpt(text: &str) -> String {
    let is_excerpt = |line: &str| {
        line.trim_start()
            .trim_start_matches(|character: char| character.is_ascii_digit())
            .trim_start()
            .starts_with('|')
    };
    let lines: Vec<&str> = text.lines().filter(|line| !is_excerpt(line)).map(str::trim).collect();
    lines.join(": ").trim_end_matches([':', ' ']).to_owned()
}

/// Returns names as a sentence lists them.
fn listed(names: &[&str], quote: char, last: &str) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("{quote}{name}{quote}")).collect();
    match names.as_slice() {
        [] => "none".to_owned(),
        [name] => name.clone(),
        [names @ .., name] => format!("{} {last} {name}", names.join(", ")),
    }
}

impl de::Error for OptionError {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::new(text.to_string())
    }

    fn invalid_type(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("has the wrong type: it must be {expected}"))
    }

    fn invalid_value(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("is out of range: it must be {expected}"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let allowed = listed(expected, '"', "or");
        Self::not_as_expected(&shown_text(variant), &allowed)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let known = listed(expected, '`', "and");
        let what = format!("is not a known key: the keys here are {known}");
        Self { member: Some(field.to_owned()), ..Self::new(what) }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { member: Some(field.to_owned()), ..Self::new("is missing") }
    }
}

/// Maximum number of characters of a value that an error repeats.
const SHOWN_CHARACTERS: usize = 60;

/// Returns a text as an error repeats it.
pub(super) fn shown_text(text: &str) -> String {
    if text.chars().count() <= SHOWN_CHARACTERS {
        return format!("{text:?}");
    }
    let begin: String = text.chars().take(SHOWN_CHARACTERS).collect();
    format!("{:?}", begin + "…")
}
