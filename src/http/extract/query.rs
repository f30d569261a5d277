//! Reads query parameters into a type: an unknown parameter, a wrong type or a value out of range
//! is a problem that names the parameter and the form that it takes.

use std::{borrow::Cow, collections::VecDeque, fmt::Display, str::FromStr};

use axum::{extract::FromRequestParts, http::request::Parts};
use percent_encoding::percent_decode;
use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeOwned, DeserializeSeed, Error, IntoDeserializer, MapAccess, Visitor,
        value::SeqDeserializer,
    },
    forward_to_deserialize_any,
};

use super::fields::FieldError;
use crate::http::problem::Problem;

/// The parameters of a query. A field of type `Vec` takes a parameter that is repeated; all others
/// are refused if they are repeated. A type with `deny_unknown_fields` refuses unknown ones.
#[derive(Debug)]
pub(in crate::http) struct Query<T>(pub(in crate::http) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        read(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

fn read<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let mut parameters = Parameters::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let not_utf8 = |name: &str| Problem::field(name, "must be UTF-8, percent-encoded");
        let name = decoded(name).map_err(|lossy| not_utf8(&lossy))?;
        let value = decoded(value).map_err(|_| not_utf8(&name))?;
        match parameters.left.iter_mut().find(|(other, _)| *other == name) {
            Some((_, values)) => values.push(value),
            None => parameters.left.push_back((name, vec![value])),
        }
    }
    T::deserialize(parameters).map_err(|error| {
        error.into_problem(|known| match known {
            "" => "is unknown: this call has no parameters".to_owned(),
            known => format!("is unknown: use {known}"),
        })
    })
}

/// Decodes a name or a value of a form, in which `+` is a blank. If it is not UTF-8, fails with
/// U+FFFD in place of what is not.
fn decoded(text: &str) -> Result<String, String> {
    let spaced = text.replace('+', " ");
    let bytes: Vec<u8> = percent_decode(spaced.as_bytes()).collect();
    String::from_utf8(bytes).map_err(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Refuses all parameters of a call that has none: who gives one expects an effect of it.
pub(in crate::http) fn refuse_parameters(query: &str) -> Result<(), Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct NoParameters {}

    read::<NoParameters>(query).map(|NoParameters {}| ())
}

/// Reads an optional parameter by the `FromStr` of its type, whose error says which form it takes.
/// For `#[serde(default, deserialize_with = "parsed")]`.
pub(in crate::http) fn parsed<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let text = Cow::<str>::deserialize(deserializer)?;
    text.parse().map(Some).map_err(D::Error::custom)
}

#[derive(Default)]
struct Parameters {
    left: VecDeque<(String, Vec<String>)>,
    current: Option<(String, Vec<String>)>,
}

impl<'de> Deserializer<'de> for Parameters {
    type Error = FieldError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_map(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
        ignored_any
    }
}

impl<'de> MapAccess<'de> for Parameters {
    type Error = FieldError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, FieldError> {
        self.current = self.left.pop_front();
        let Some((name, _)) = &self.current else { return Ok(None) };
        seed.deserialize(name.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, FieldError> {
        let (name, values) = self.current.take().unwrap_or_default();
        seed.deserialize(Values(values)).map_err(|error| error.at(&name))
    }
}

/// The values of one parameter: at least one.
struct Values(Vec<String>);

impl Values {
    fn single(mut self) -> Result<String, FieldError> {
        match (self.0.pop(), self.0.is_empty()) {
            (Some(value), true) => Ok(value),
            _ => Err(FieldError::custom("is given more than once: give it once")),
        }
    }

    fn number<T: FromStr>(self, form: &str) -> Result<T, FieldError> {
        let text = self.single()?;
        text.parse().map_err(|_| FieldError::custom(format!("must be {form}, not {text:?}")))
    }
}

impl<'de> IntoDeserializer<'de, FieldError> for Values {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Values {
    type Error = FieldError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_str(&self.single()?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        let values = self.0.into_iter().map(|value| Values(vec![value]));
        visitor.visit_seq(SeqDeserializer::new(values))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        visitor.visit_enum(self.single()?.as_str().into_deserializer())
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_bool(self.number("true or false")?)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_u32(self.number("a whole number")?)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_u64(self.number("a whole number")?)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_f64(self.number("a number")?)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u128 f32 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Sort {
        Key,
        Age,
    }

    #[derive(Debug, PartialEq)]
    struct Limit(u8);

    impl FromStr for Limit {
        type Err = &'static str;

        fn from_str(text: &str) -> Result<Self, Self::Err> {
            let limit = text.parse().ok().filter(|limit| (1..=200).contains(limit));
            limit.map(Self).ok_or("must be a number from 1 to 200")
        }
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct List {
        service: Vec<String>,
        fixed: Option<bool>,
        min_count: Option<u64>,
        sort: Option<Sort>,
        #[serde(deserialize_with = "parsed")]
        limit: Option<Limit>,
    }

    #[track_caller]
    fn check_fault(query: &str, field: &str, detail: &str) {
        let problem = read::<List>(query).map_err(|problem| serde_json::to_value(problem).unwrap());
        let problem = problem.unwrap_err();
        assert_eq!(problem["field"], field);
        assert_eq!(problem["detail"], detail);
        assert_eq!(problem["status"], 422);
    }

    #[test]
    fn parameters_are_read_by_their_types() {
        assert_eq!(read::<List>("").unwrap(), List::default());
        let query = "service=a+b&fixed=true&&min_count=7&service=b%26%2B%c3%a9&sort=age&limit=200";
        let list = List {
            service: vec!["a b".to_owned(), "b&+\u{e9}".to_owned()],
            fixed: Some(true),
            min_count: Some(7),
            sort: Some(Sort::Age),
            limit: Some(Limit(200)),
        };
        assert_eq!(read::<List>(query).unwrap(), list);
    }

    #[test]
    fn a_call_without_parameters_refuses_them() {
        assert!(refuse_parameters("").is_ok() && refuse_parameters("&").is_ok());
        let problem = refuse_parameters("reason=x").unwrap_err();
        assert_eq!(problem.to_string(), "`reason` is unknown: this call has no parameters");
    }

    #[test]
    fn a_fault_names_the_parameter_and_the_form_that_it_takes() {
        let unknown = "`limits` is unknown: use service, fixed, min_count, sort, limit";
        check_fault("limits=1", "limits", unknown);
        check_fault("fixed=yes", "fixed", "`fixed` must be true or false, not \"yes\"");
        check_fault("min_count=-1", "min_count", "`min_count` must be a whole number, not \"-1\"");
        check_fault("sort=name", "sort", "`sort` must be one of key, age, not \"name\"");
        check_fault("limit=0", "limit", "`limit` must be a number from 1 to 200");
        check_fault("limit=x", "limit", "`limit` must be a number from 1 to 200");
        check_fault("service=a&service=%ff", "service", "`service` must be UTF-8, percent-encoded");
        check_fault("%ff=a", "\u{fffd}", "`\u{fffd}` must be UTF-8, percent-encoded");
        let twice = "`fixed` is given more than once: give it once";
        check_fault("fixed=true&fixed=false", "fixed", twice);
    }
}
