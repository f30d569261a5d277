//! Reads a flat JSON object into a type. The deserializer is not serde_json's, whose error is a
//! text that does not say which field it is about.

use std::fmt::Display;

use serde::{
    Deserializer,
    de::{
        DeserializeOwned, DeserializeSeed, Error, Expected, IntoDeserializer as _, MapAccess,
        Unexpected, Visitor,
    },
    forward_to_deserialize_any,
};
use serde_json::{Map, Value, map};

use crate::{
    domain::json_type_name,
    http::problem::{Problem, ProblemKind},
};

/// Reads `value` as a `noun`, which has its article: "a repair".
pub(super) fn read_object<T: DeserializeOwned>(noun: &str, value: Value) -> Result<T, Problem> {
    let Value::Object(fields) = value else {
        let detail = format!("{noun} must be a JSON object, not {}", json_type_name(&value));
        return Err(Problem::new(ProblemKind::InvalidField, detail));
    };
    T::deserialize(Fields(fields)).map_err(|error| {
        error.into_problem(|known| format!("is not a field of {noun}: the fields are {known}"))
    })
}

/// The field at fault, and its fault.
#[derive(Debug)]
pub(super) struct FieldError {
    name: Option<String>,
    fault: Fault,
}

#[derive(Debug)]
enum Fault {
    /// The names of the known fields.
    Unknown(&'static [&'static str]),
    /// A text that follows the name of the field.
    Text(String),
}

impl FieldError {
    fn new(fault: impl Into<String>) -> Self {
        Self { name: None, fault: Fault::Text(fault.into()) }
    }

    /// Names the field if the error does not name it yet.
    pub(super) fn at(mut self, name: &str) -> Self {
        self.name.get_or_insert_with(|| name.to_owned());
        self
    }

    /// Converts the error. `unknown` words the fault of a field that is not among the known ones.
    pub(super) fn into_problem(self, unknown: impl FnOnce(&str) -> String) -> Problem {
        let fault = match self.fault {
            Fault::Unknown(known) => unknown(&known.join(", ")),
            Fault::Text(fault) => fault,
        };
        match self.name {
            Some(name) => Problem::field(&name, fault),
            None => Problem::new(ProblemKind::InvalidField, fault),
        }
    }
}

impl Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for FieldError {}

impl Error for FieldError {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = match expected.to_string() {
            boolean if boolean == "a boolean" => "true or false".to_owned(),
            expected => expected,
        };
        Self::new(format!("must be {expected}, not {}", type_name(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("must be {expected}, not {found}"))
    }

    fn unknown_variant(found: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("must be one of {}, not {found:?}", expected.join(", ")))
    }

    fn unknown_field(name: &str, expected: &'static [&'static str]) -> Self {
        Self { name: Some(name.to_owned()), fault: Fault::Unknown(expected) }
    }

    fn missing_field(name: &'static str) -> Self {
        Self::new("is missing").at(name)
    }
}

/// Returns the name of a type, the same as `json_type_name` does.
fn type_name(found: Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
        Unexpected::Seq => "an array",
        Unexpected::Map => "an object",
        _ => "a string",
    }
}

/// An object whose members are scalars.
struct Fields(Map<String, Value>);

impl<'de> Deserializer<'de> for Fields {
    type Error = FieldError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_map(Members { left: self.0.into_iter(), current: None })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
        ignored_any
    }
}

struct Members {
    left: map::IntoIter,
    current: Option<(String, Value)>,
}

impl<'de> MapAccess<'de> for Members {
    type Error = FieldError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, FieldError> {
        self.current = self.left.next();
        let Some((name, _)) = &self.current else { return Ok(None) };
        seed.deserialize(name.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, FieldError> {
        let (name, value) = self.current.take().unwrap_or_default();
        seed.deserialize(Scalar(value)).map_err(|error| error.at(&name))
    }
}

struct Scalar(Value);

impl<'de> Deserializer<'de> for Scalar {
    type Error = FieldError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => {
                if let Some(value) = number.as_u64() {
                    visitor.visit_u64(value)
                } else if let Some(value) = number.as_i64() {
                    visitor.visit_i64(value)
                } else {
                    visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN))
                }
            }
            Value::String(text) => visitor.visit_string(text),
            Value::Array(_) => Err(Error::invalid_type(Unexpected::Seq, &visitor)),
            Value::Object(_) => Err(Error::invalid_type(Unexpected::Map, &visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Report {
        action: String,
        success: bool,
        event_id: Option<String>,
    }

    fn read(value: Value) -> Result<Report, Value> {
        read_object("a report", value).map_err(|problem| serde_json::to_value(problem).unwrap())
    }

    #[track_caller]
    fn check_fault(value: Value, field: &str, detail: &str) {
        let problem = read(value).unwrap_err();
        assert_eq!(problem["field"], field);
        assert_eq!(problem["detail"], detail);
        assert_eq!(problem["status"], 422);
    }

    #[test]
    fn null_is_the_same_as_no_field_where_the_field_is_optional() {
        let report = Report { action: "a".to_owned(), success: true, event_id: None };
        assert_eq!(read(json!({"action": "a", "success": true})), Ok(report));
        let null = json!({"action": "a", "success": true, "event_id": null});
        assert_eq!(read(null).unwrap().event_id, None);
        let given = json!({"action": "a", "success": true, "event_id": "e"});
        assert_eq!(read(given).unwrap().event_id.as_deref(), Some("e"));
    }

    #[test]
    fn a_fault_names_its_field() {
        check_fault(json!({"success": true}), "action", "`action` is missing");
        let null = json!({"action": null, "success": true});
        check_fault(null, "action", "`action` must be a string, not null");
        let text = json!({"action": "a", "success": "yes"});
        check_fault(text, "success", "`success` must be true or false, not a string");
        let array = json!({"action": "a", "success": true, "event_id": [1]});
        check_fault(array, "event_id", "`event_id` must be a string, not an array");
        let typo = json!({"action": "a", "sucess": true});
        let detail =
            "`sucess` is not a field of a report: the fields are action, success, event_id";
        check_fault(typo, "sucess", detail);
    }

    #[test]
    fn a_value_that_is_no_object_is_named_by_its_type() {
        let problem = read(json!([])).unwrap_err();
        assert_eq!(problem["detail"], "a report must be a JSON object, not an array");
        assert_eq!(problem["field"], Value::Null);
    }
}
