//! Matchers in Alertmanager's syntax: `namespace="batch"`, `alert_name=~"KubeJob.*"`. Regular
//! expressions are anchored at both ends, and take linear time.

use std::fmt;

use super::error::quoted;
use crate::domain::{Pattern, Signature};

/// Maximum number of characters of a matcher's value.
const MAX_VALUE_CHARACTERS: usize = Pattern::MAX_CHARACTERS;

/// A condition on one of the four identifying fields. A missing field is an empty text.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// The index of the field among [`Signature::FIELDS`].
    field: usize,
    operator: Operator,
    value: String,
    /// Present for the operators with a regular expression.
    pattern: Option<Pattern>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Matches,
    MatchesNot,
}

impl Operator {
    /// All operators, in the order in which they are searched for: `=~` begins with `=`.
    const ALL: [(Self, &str); 4] = [
        (Self::Matches, "=~"),
        (Self::MatchesNot, "!~"),
        (Self::NotEqual, "!="),
        (Self::Equal, "="),
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Matches => "=~",
            Self::MatchesNot => "!~",
        }
    }
}

impl Matcher {
    /// Parses a matcher.
    ///
    /// # Errors
    /// The error says what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = || {
            "write a field, one of = != =~ !~, and a value in double quotes, such as \
             namespace=\"batch\""
                .to_owned()
        };
        let trimmed = text.trim();
        let name_end = trimmed.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let (name, rest) = trimmed.split_at(name_end.ok_or_else(form)?);
        let rest = rest.trim_start();
        let found = Operator::ALL.iter().find_map(|(operator, text)| {
            rest.strip_prefix(text).map(|rest| (*operator, rest.trim_start()))
        });
        let (operator, rest) = found.ok_or_else(form)?;
        let field = field_of(name)?;
        let inside = rest.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let value = unescaped(inside.ok_or_else(form)?).ok_or_else(|| {
            "write a double quote inside the value as \\\" and a backslash at its end as \\\\"
                .to_owned()
        })?;
        if value.chars().count() > MAX_VALUE_CHARACTERS {
            return Err(format!("write at most {MAX_VALUE_CHARACTERS} characters"));
        }
        let compiled = || Pattern::new(&value).map_err(|error| format!("the value {error}"));
        let pattern = match operator {
            Operator::Matches | Operator::MatchesNot => Some(compiled()?),
            Operator::Equal | Operator::NotEqual => None,
        };
        Ok(Self { field, operator, value, pattern })
    }

    /// Returns true if it holds for the fields of an anomaly.
    pub fn holds(&self, signature: &Signature) -> bool {
        self.holds_for(signature.named_fields()[self.field].1)
    }

    /// Returns the index of its field among [`Signature::FIELDS`].
    pub(super) fn field(&self) -> usize {
        self.field
    }

    /// Returns true if it holds for a value of its field.
    pub(super) fn holds_for(&self, text: &str) -> bool {
        match &self.pattern {
            Some(pattern) => pattern.matches(text) == (self.operator == Operator::Matches),
            None => (text == self.value) == (self.operator == Operator::Equal),
        }
    }
}

/// Returns the index of a field by its name or alias.
fn field_of(name: &str) -> Result<usize, String> {
    let is_named = |(field, alias): &(&str, Option<&str>)| *field == name || *alias == Some(name);
    Signature::FIELDS.iter().position(is_named).ok_or_else(|| {
        format!(
            "{} is not a field: the fields are alert_name (or alertname), service (or job), \
             namespace and error_type (or reason)",
            quoted(name)
        )
    })
}

/// Returns the text between the quotes, read as Alertmanager does: an unknown escape stays as it
/// is, so that `\d` needs no second backslash. `None` if a quote is not escaped, or if the last one
/// is.
fn unescaped(text: &str) -> Option<String> {
    let mut value = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return None,
            '\\' => match characters.next()? {
                'n' => value.push('\n'),
                escaped @ ('"' | '\\') => value.push(escaped),
                other => value.extend(['\\', other]),
            },
            _ => value.push(character),
        }
    }
    Some(value)
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let (name, operator) = (Signature::FIELDS[self.field].0, self.operator.as_str());
        write!(f, "{name}{operator}\"{value}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(alert_name: &str, namespace: &str) -> Signature {
        Signature::from_lookup(|name| match name {
            "alertname" => Some(Ok(alert_name)),
            "namespace" => Some(Ok(namespace)),
            _ => None,
        })
        .unwrap()
    }

    fn holds(matcher: &str, alert_name: &str, namespace: &str) -> bool {
        Matcher::parse(matcher).unwrap().holds(&signature(alert_name, namespace))
    }

    #[test]
    fn each_operator_compares_one_field() {
        for (matcher, expected) in [
            ("namespace=\"batch\"", true),
            ("namespace=\"bat\"", false),
            ("namespace != \"batch\"", false),
            (" alertname =~ \"KubeJob.*\" ", true),
            ("alert_name=~\"Job\"", false),
            ("alert_name!~\"Job\"", true),
            ("service=\"\"", true),
            ("job!=\"\"", false),
            ("reason=~\"|OOM.*\"", true),
            ("namespace=~\"batch|dev\"", true),
            ("namespace=~\"bat|tch\"", false),
        ] {
            assert_eq!(holds(matcher, "KubeJobFailed", "batch"), expected, "{matcher}");
        }
    }

    #[test]
    fn escapes_are_those_of_alertmanager() {
        assert!(holds(r#"namespace="a\"b\\c""#, "A", r#"a"b\c"#));
        assert!(holds(r#"namespace=~"v\d+""#, "A", "v12"));
        assert!(holds(r#"namespace=~"a\\.b""#, "A", "a.b"));
        assert!(!holds(r#"namespace=~"a\\.b""#, "A", "axb"));
        assert!(holds("namespace=\"a\\nb\"", "A", "a\nb"));
    }

    #[test]
    fn it_prints_what_it_parses() {
        for text in ["namespace=~\"a\\\\.b\"", "alert_name!=\"x\\\"y\"", "service=\"a\\nb\""] {
            assert_eq!(Matcher::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Matcher::parse("job = \"x\"").unwrap().to_string(), "service=\"x\"");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_refused_or_prints_as_one_that_means_the_same(
            name in "service|job|namespace|pod|",
            operator in "=|!=|=~|!~|==|",
            value in r#"[\\"a-c.*+?(){}|\[\]^$0-9\n-]{0,12}"#,
        ) {
            if let Ok(matcher) = Matcher::parse(&format!("{name} {operator}\"{value}\"")) {
                let again = Matcher::parse(&matcher.to_string()).unwrap();
                proptest::prop_assert_eq!(&again.value, &matcher.value);
                proptest::prop_assert_eq!(again.operator, matcher.operator);
                proptest::prop_assert_eq!(again.field, matcher.field);
            }
        }
    }

    #[test]
    fn what_is_no_matcher_is_refused_with_what_to_write() {
        let long = format!("namespace=\"{}\"", "x".repeat(1_025));
        for (text, words) in [
            ("", "double quotes"),
            ("namespace", "double quotes"),
            ("namespace=batch", "double quotes"),
            ("namespace=\"batch", "double quotes"),
            ("namespace==\"batch\"", "double quotes"),
            ("namespace=\"a\"b\"", "\\\""),
            ("namespace=\"a\\\"", "\\\\"),
            ("pod=\"x\"", "\"pod\" is not a field"),
            ("NAMESPACE=\"x\"", "is not a field"),
            ("namespace=~\"é(\"", "at character 2"),
            ("namespace=~\"a)|(b\"", "at character 2"),
            ("namespace=~\"(?<!a)b\"", "at character 1"),
            ("namespace=~\"\\w{900}{90}\"", "256 KiB"),
            ("namespace=~\"(?x)a # b\"", "remove the flag x"),
            (long.as_str(), "at most 1024 characters"),
        ] {
            let error = Matcher::parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
