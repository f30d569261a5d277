//! Relabelling, with the names and the semantics of Prometheus. See
//! <https://prometheus.io/docs/prometheus/latest/configuration/configuration/#relabel_config>.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::domain::{InvalidPattern, Pattern, Signature};

use super::fields::{Field, Fields, StepKind};

/// Maximum number of source labels of a rule.
const MAX_SOURCES: usize = 16;

/// Maximum number of characters in each text of a rule.
const MAX_CHARACTERS: usize = Signature::MAX_CHARACTERS;

const SEPARATOR: &str = ";";
const REGEX: &str = "(.*)";
const REPLACEMENT: &str = "$1";
const REPLACE: &str = "replace";
const LOWERCASE: &str = "lowercase";

/// A rule of `key.relabel` as it is configured.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RelabelOptions {
    /// The labels whose values are joined: the four fields by their canonical names with their
    /// current values, and all others as they were posted. A missing label is empty.
    #[serde(default)]
    source_labels: Vec<String>,
    /// The text between the values.
    separator: Option<String>,
    /// The expression that must match the whole joined text.
    regex: Option<String>,
    /// The field that is set.
    target_label: Option<String>,
    /// The new value, which may refer to groups of the expression.
    replacement: Option<String>,
    /// The action: `replace` or `lowercase`.
    action: Option<String>,
}

/// The fault of a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRelabel {
    /// The action is not one of the two.
    #[error("`action` is {0:?}: write \"replace\" or \"lowercase\"")]
    Action(String),
    /// The target is not one of the four fields.
    #[error(
        "`target_label` is {0:?}: write \"alert_name\", \"service\", \"namespace\" or \
         \"error_type\""
    )]
    Target(String),
    /// The target is missing.
    #[error(
        "`target_label` is missing: write \"alert_name\", \"service\", \"namespace\" or \
         \"error_type\""
    )]
    NoTarget,
    /// The action `lowercase` has no source.
    #[error("`source_labels` is empty: name the labels whose values become lower-case")]
    NoSource,
    /// There are too many sources.
    #[error("`source_labels` has more than {MAX_SOURCES} names: write fewer")]
    TooManySources,
    /// The name of a source is empty.
    #[error("`source_labels` has an empty name: write the name of a label")]
    EmptySource,
    /// A text is too long.
    #[error("`{0}` has more than {MAX_CHARACTERS} characters: write a shorter text")]
    TooLong(&'static str),
    /// An option has no effect with this action.
    #[error("`{0}` has no effect with the action \"lowercase\": remove it")]
    Unused(&'static str),
    /// The expression can't be used.
    #[error("`regex` {0}")]
    Regex(#[from] InvalidPattern),
}

/// A rule of `key.relabel`.
#[derive(Clone, Debug)]
pub(super) struct Relabel {
    sources: Vec<String>,
    separator: String,
    target: Field,
    action: Action,
}

#[derive(Clone, Debug)]
enum Action {
    Replace { regex: Pattern, replacement: String },
    Lowercase,
}

impl TryFrom<RelabelOptions> for Relabel {
    type Error = InvalidRelabel;

    fn try_from(options: RelabelOptions) -> Result<Self, InvalidRelabel> {
        let RelabelOptions { source_labels, separator, regex, target_label, replacement, action } =
            options;
        let target = target_label.ok_or(InvalidRelabel::NoTarget)?;
        let target = Field::of_name(&target).ok_or(InvalidRelabel::Target(target))?;
        if source_labels.len() > MAX_SOURCES {
            return Err(InvalidRelabel::TooManySources);
        }
        if source_labels.iter().any(String::is_empty) {
            return Err(InvalidRelabel::EmptySource);
        }
        let separator = separator.unwrap_or_else(|| SEPARATOR.to_owned());
        let replacement = replacement.unwrap_or_else(|| REPLACEMENT.to_owned());
        let regex = regex.unwrap_or_else(|| REGEX.to_owned());
        let texts = [("separator", &separator), ("replacement", &replacement)];
        let sources = source_labels.iter().map(|name| ("source_labels", name));
        for (name, text) in texts.into_iter().chain(sources) {
            if text.chars().nth(MAX_CHARACTERS).is_some() {
                return Err(InvalidRelabel::TooLong(name));
            }
        }
        let action = match action.as_deref() {
            None | Some(REPLACE) => Action::Replace { regex: Pattern::new(&regex)?, replacement },
            Some(LOWERCASE) if source_labels.is_empty() => return Err(InvalidRelabel::NoSource),
            Some(LOWERCASE) if regex != REGEX => return Err(InvalidRelabel::Unused("regex")),
            Some(LOWERCASE) if replacement != REPLACEMENT => {
                return Err(InvalidRelabel::Unused("replacement"));
            }
            Some(LOWERCASE) => Action::Lowercase,
            Some(other) => return Err(InvalidRelabel::Action(other.to_owned())),
        };
        Ok(Self { sources: source_labels, separator, target, action })
    }
}

impl Relabel {
    /// Returns the names of its sources.
    pub(super) fn sources(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(String::as_str)
    }

    /// Applies the rule. `posted` returns the posted text of a label, or an empty one.
    pub(super) fn apply<'p>(
        &self,
        number: usize,
        fields: &mut Fields<'_>,
        posted: impl Fn(&str) -> &'p str,
    ) {
        let values = self.sources().map(|name| match Field::of_name(name) {
            Some(field) => fields.get(field),
            None => posted(name),
        });
        let joined = values.collect::<Vec<_>>().join(&self.separator);
        let value = match &self.action {
            Action::Lowercase => joined.to_lowercase(),
            Action::Replace { regex, replacement } => {
                let Some(groups) = regex.captures(&joined) else { return };
                let mut value = String::new();
                groups.expand(replacement, &mut value);
                value
            }
        };
        fields.set(self.target, &value, || StepKind::Relabel(number));
    }

    /// Returns its whole content, for the checksum.
    pub(super) fn to_json(&self) -> Value {
        let action = match &self.action {
            Action::Replace { regex, replacement } => {
                json!([REPLACE, regex.as_str(), replacement])
            }
            Action::Lowercase => json!([LOWERCASE]),
        };
        json!([self.sources, self.separator, self.target.name(), action])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(options: Value) -> Result<Relabel, InvalidRelabel> {
        serde_json::from_value::<RelabelOptions>(options).unwrap().try_into()
    }

    fn applied(options: Value, namespace: &str) -> String {
        let values = ["A", "api", namespace, ""].map(str::to_owned);
        let mut fields = Fields::new(values, None);
        let posted = |name: &str| if name == "cluster" { "EU1" } else { "" };
        rule(options).unwrap().apply(1, &mut fields, posted);
        fields.get(Field::Namespace).to_owned()
    }

    #[test]
    fn a_rule_does_what_it_does_in_prometheus() {
        for (options, namespace, expected) in [
            // The defaults copy the value.
            (json!({"source_labels": ["service"]}), "shop", "api"),
            (
                json!({"source_labels": ["cluster", "namespace"], "separator": "/",
                    "regex": "(.+)/(.+)", "replacement": "$1/$2"}),
                "shop",
                "EU1/shop",
            ),
            // The expression does not match the whole text.
            (
                json!({"source_labels": ["cluster", "namespace"], "separator": "/",
                    "regex": "(.+)/(.+)", "replacement": "$1/$2"}),
                "",
                "",
            ),
            (json!({"source_labels": ["namespace"], "regex": "sho"}), "shop", "shop"),
            // A missing source is empty, and the separator remains.
            (json!({"source_labels": ["missing", "cluster"]}), "shop", ";EU1"),
            (
                json!({"source_labels": ["namespace"], "regex": "(?P<a>s).*",
                "replacement": "${a}1-$a1-$$-$9"}),
                "shop",
                "s1--$-",
            ),
            // An empty result empties the field.
            (json!({"source_labels": ["namespace"], "regex": ".*", "replacement": ""}), "shop", ""),
            (json!({"replacement": "fixed"}), "shop", "fixed"),
            (json!({"source_labels": ["cluster"], "action": "lowercase"}), "shop", "eu1"),
            (
                json!({"source_labels": ["namespace"], "regex": "(?i)SHOP", "replacement": "x"}),
                "shop",
                "x",
            ),
        ] {
            let mut options = options;
            options["target_label"] = "namespace".into();
            assert_eq!(applied(options.clone(), namespace), expected, "{options}");
        }
    }

    #[test]
    fn a_result_that_is_too_long_is_cut() {
        let options = json!({"source_labels": ["namespace"], "target_label": "namespace",
            "replacement": "$1$1"});
        let long = "\u{e9}".repeat(1_000);
        assert_eq!(applied(options, &long), "\u{e9}".repeat(1_024));
    }

    #[test]
    fn a_wrong_rule_is_refused_with_what_to_write() {
        let with = |options: Value| {
            let mut whole = json!({"target_label": "service", "source_labels": ["a"]});
            whole.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
            whole
        };
        for (options, says) in [
            (json!({"source_labels": ["a"]}), "`target_label` is missing: write \"alert_name\""),
            (with(json!({"target_label": "job"})), "`target_label` is \"job\": write"),
            (with(json!({"action": "drop"})), "`action` is \"drop\": write \"replace\" or"),
            (with(json!({"action": "Replace"})), "`action` is \"Replace\""),
            (with(json!({"regex": "(a"})), "`regex` is not a regular expression of RE2: unclosed"),
            (with(json!({"source_labels": vec!["a"; 17]})), "more than 16 names"),
            (with(json!({"source_labels": [""]})), "empty name"),
            (with(json!({"separator": "x".repeat(1_025)})), "`separator` has more than 1024"),
            (with(json!({"action": "lowercase", "regex": "a"})), "`regex` has no effect"),
            (with(json!({"action": "lowercase", "replacement": "a"})), "`replacement` has no"),
            (with(json!({"action": "lowercase", "source_labels": []})), "is empty: name the"),
        ] {
            let error = rule(options.clone()).unwrap_err().to_string();
            assert!(error.contains(says), "{options}: {error}");
        }
    }
}
