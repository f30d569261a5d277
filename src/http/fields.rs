//! Takes the fields of a JSON object one by one, and says of each fault which field has it.

use serde_json::{Map, Value};

use super::problem::{Problem, ProblemKind};
use crate::domain::{AnomalyKey, json_type_name};

/// A JSON object's fields that have not been taken yet.
#[derive(Debug)]
pub(super) struct Fields {
    /// What the object is, for the texts of problems: "a repair".
    what: &'static str,
    left: Map<String, Value>,
    taken: Vec<&'static str>,
}

impl Fields {
    pub(super) fn of(what: &'static str, value: Value) -> Result<Self, Problem> {
        let Value::Object(left) = value else {
            return Err(Problem::new(
                ProblemKind::InvalidField,
                format!("{what} must be a JSON object, not {}", json_type_name(&value)),
            ));
        };
        Ok(Self { what, left, taken: Vec::new() })
    }

    pub(super) fn required_text(&mut self, name: &'static str) -> Result<String, Problem> {
        self.optional_text(name)?.ok_or_else(|| Problem::field(name, "is missing"))
    }

    /// A text; `null` is the same as none.
    pub(super) fn optional_text(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        match self.take(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong_type(name, "a string", &other)),
        }
    }

    pub(super) fn required_bool(&mut self, name: &'static str) -> Result<bool, Problem> {
        match self.take(name) {
            Some(Value::Bool(value)) => Ok(value),
            None => Err(Problem::field(name, "is missing")),
            Some(other) => Err(wrong_type(name, "true or false", &other)),
        }
    }

    pub(super) fn anomaly_key(&mut self) -> Result<AnomalyKey, Problem> {
        let name = "anomaly_key";
        parse_key(&self.required_text(name)?).map_err(|problem| problem.at_field(name))
    }

    /// The fields that nobody has taken.
    pub(super) fn rest(self) -> Map<String, Value> {
        self.left
    }

    /// Makes sure that there are no others.
    pub(super) fn finish(self) -> Result<(), Problem> {
        let Some(unknown) = self.left.keys().next() else {
            return Ok(());
        };
        let fault = format!("is not a field of {}: it takes {}", self.what, self.taken.join(", "));
        Err(Problem::field(unknown, fault))
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.taken.push(name);
        // The order of the rest is kept: it is stored as posted.
        self.left.shift_remove(name)
    }
}

/// Reads a key from a path or a field.
pub(super) fn parse_key(text: &str) -> Result<AnomalyKey, Problem> {
    text.parse().map_err(|error| {
        // A key is short; what is not is no key, and need not be repeated at length.
        let shown: String = text.chars().take(40).collect();
        Problem::new(ProblemKind::InvalidKey, format!("{shown:?} {error}"))
    })
}

/// A field of the wrong JSON type.
pub(super) fn wrong_type(name: &str, expected: &str, found: &Value) -> Problem {
    Problem::field(name, format!("must be {expected}, not {}", json_type_name(found)))
}
