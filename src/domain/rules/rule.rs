//! One rule.

use std::fmt;

use super::{
    counts::ExtraWindow,
    error::{RuleError, quoted},
    levels::Levels,
    matcher::Matcher,
    source::{RuleSource, SourceValue},
};
use crate::domain::{Signature, Thresholds};

/// Maximum number of matchers of a rule.
const MAX_MATCHERS: usize = 8;
/// Maximum number of characters of a rule's name.
const MAX_NAME_CHARACTERS: usize = 64;

/// The name of the rule that is always last.
pub(super) const DEFAULT_NAME: &str = "default";

/// A rule: the anomalies that it matches, and the counts at which they reach each level.
#[derive(Clone, Debug)]
pub struct Rule {
    name: String,
    matchers: Vec<Matcher>,
    levels: Levels,
    extra_windows: Vec<ExtraWindow>,
}

impl Rule {
    fn new(name: String, matchers: Vec<Matcher>, levels: Levels) -> Self {
        let extra_windows = levels.extra_windows();
        Self { name, matchers, levels, extra_windows }
    }

    /// Creates the rule `default`.
    pub(super) fn of_thresholds(thresholds: Thresholds) -> Self {
        Self::new(DEFAULT_NAME.to_owned(), Vec::new(), thresholds.into())
    }

    /// Reads the rule of this number, counted from 1. `default` are the levels of a rule that has
    /// none of its own.
    ///
    /// # Errors
    /// The error says what is wrong with the rule, and where.
    pub(super) fn parse(
        number: usize,
        source: &RuleSource,
        default: &Levels,
    ) -> Result<Self, RuleError> {
        let name = match source.0.get("name") {
            Some(SourceValue::Text(name)) => name.as_str(),
            _ => "",
        };
        let place = match name {
            "" => format!("rule {number}"),
            name => format!("rule {number} {}", quoted(name)),
        };
        Self::read(name, source, default).map_err(|error| error.inside(&place))
    }

    fn read(name: &str, source: &RuleSource, default: &Levels) -> Result<Self, RuleError> {
        for key in source.0.keys() {
            if !["name", "match", "levels"].contains(&key.as_str()) {
                let what = "is not a known key: the keys are name, match and levels";
                return Err(RuleError::new(quoted(key), what));
            }
        }
        if !is_name(name) {
            let what = format!(
                "write 1 to {MAX_NAME_CHARACTERS} characters of A-Z, a-z, 0-9, space, dot, \
                 underscore and hyphen"
            );
            return Err(RuleError::new("name", what));
        }
        if name == DEFAULT_NAME {
            let what = "write another name: [thresholds] defines the rule \"default\"";
            return Err(RuleError::new("name", what));
        }
        let matchers = read_matchers(source.0.get("match"))?;
        let levels = Levels::parse(source.0.get("levels"))?;
        Ok(Self::new(name.to_owned(), matchers, levels.unwrap_or_else(|| default.clone())))
    }

    /// Returns the name, which is unique in a set.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the matchers, all of which must hold.
    pub fn matchers(&self) -> &[Matcher] {
        &self.matchers
    }

    /// Returns the conditions of each level.
    pub fn levels(&self) -> &Levels {
        &self.levels
    }

    /// Returns the additional windows that it counts in.
    pub fn extra_windows(&self) -> &[ExtraWindow] {
        &self.extra_windows
    }

    /// Returns true if it has a matcher for a field, given by its index among
    /// [`Signature::FIELDS`].
    pub fn looks_at(&self, field: usize) -> bool {
        self.matchers.iter().any(|matcher| matcher.field() == field)
    }

    /// Returns true if all matchers for a field hold for a value of it. A rule matches if this is
    /// true for every field.
    pub fn permits(&self, field: usize, text: &str) -> bool {
        self.matchers.iter().all(|matcher| matcher.field() != field || matcher.holds_for(text))
    }

    /// Returns the first matcher that does not hold; `None` if the rule matches.
    pub fn mismatch(&self, signature: &Signature) -> Option<&Matcher> {
        self.matchers.iter().find(|matcher| !matcher.holds(signature))
    }
}

fn is_name(name: &str) -> bool {
    let is_permitted = |byte: u8| byte.is_ascii_alphanumeric() || b" ._-".contains(&byte);
    (1..=MAX_NAME_CHARACTERS).contains(&name.len()) && name.bytes().all(is_permitted)
}

fn read_matchers(source: Option<&SourceValue>) -> Result<Vec<Matcher>, RuleError> {
    let shape = "write a list of matchers, such as ['namespace=\"batch\"']";
    let elements = match source {
        None => return Ok(Vec::new()),
        Some(SourceValue::List(elements)) => elements,
        Some(_) => return Err(RuleError::new("match", shape)),
    };
    if elements.len() > MAX_MATCHERS {
        let what = format!("there are {}: write at most {MAX_MATCHERS}", elements.len());
        return Err(RuleError::new("match", what));
    }
    let read = |element: &SourceValue| {
        let SourceValue::Text(text) = element else { return Err(RuleError::new("match", shape)) };
        Matcher::parse(text).map_err(|what| RuleError::new(format!("match {}", quoted(text)), what))
    };
    elements.iter().map(read).collect()
}

/// Writes the rule in one line, without its number.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let matchers: Vec<String> = self.matchers.iter().map(ToString::to_string).collect();
        let matchers = match matchers.is_empty() {
            true => "everything".to_owned(),
            false => matchers.join(", "),
        };
        write!(f, "\"{}\" ({matchers}) -> {}", self.name, self.levels)
    }
}
