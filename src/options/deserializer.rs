//! Deserializes gathered values. serde's own words for what it expects are Rust's ("a nonzero
//! u16"), and the `config` crate's deserializer lets booleans and fractions pass for whole numbers:
//! here each kind of value is checked with the words of the error at hand.

use std::vec;

use config::{Map, Value, ValueKind};
use serde::{
    Deserializer,
    de::{DeserializeSeed, IntoDeserializer as _, MapAccess, SeqAccess, Visitor},
    forward_to_deserialize_any,
};

use super::{
    error::{OptionError, shown_text},
    origin,
};

/// A value with its key.
pub(super) struct ValueDeserializer {
    key: String,
    value: Value,
}

impl ValueDeserializer {
    pub(super) fn root(value: Value) -> Self {
        Self { key: String::new(), value }
    }

    fn error(&self, expected: &str) -> OptionError {
        let error = OptionError::not_as_expected(&self.shown(), expected);
        error.at(self.key.clone(), origins(&self.key, &self.value))
    }

    /// The value as an error repeats it. What may hold a secret is not repeated, so this is not
    /// for the keys that take any text.
    fn shown(&self) -> String {
        match &self.value.kind {
            ValueKind::Nil => "nothing".to_owned(),
            ValueKind::String(text) => shown_text(text),
            ValueKind::Table(_) => "a section".to_owned(),
            ValueKind::Array(_) => "a list".to_owned(),
            _ => self.value.to_string(),
        }
    }

    /// The error of a value of another kind, which is not repeated.
    fn other_kind(&self, expected: &str) -> OptionError {
        let kind = match &self.value.kind {
            ValueKind::Nil => "nothing",
            ValueKind::Boolean(_) => "true or false",
            ValueKind::String(_) => "a text",
            ValueKind::Table(_) => "a section",
            ValueKind::Array(_) => "a list",
            _ => "a number",
        };
        let error = OptionError::not_as_expected(kind, expected);
        error.at(self.key.clone(), origins(&self.key, &self.value))
    }

    /// A whole number, also as a text, which is what the environment has.
    fn whole_number(&self) -> Option<i128> {
        match &self.value.kind {
            ValueKind::I64(number) => Some((*number).into()),
            ValueKind::U64(number) => Some((*number).into()),
            ValueKind::I128(number) => Some(*number),
            ValueKind::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    fn number(&self) -> Option<f64> {
        match &self.value.kind {
            ValueKind::Float(number) => Some(*number),
            ValueKind::String(text) => text.trim().parse().ok(),
            // Exact far beyond what any option allows.
            _ => self.whole_number().map(|number| number as f64),
        }
    }

    fn boolean(&self) -> Option<bool> {
        match &self.value.kind {
            ValueKind::Boolean(boolean) => Some(*boolean),
            ValueKind::String(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Some(true),
                "false" | "no" | "off" | "0" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Returns the origins of a value or, of a section, of what is set in it; without what is built in.
fn origins(key: &str, value: &Value) -> Vec<String> {
    let mut found = match &value.kind {
        ValueKind::Table(members) => {
            let of_member = |(name, member): (&String, &Value)| origins(&joined(key, name), member);
            members.iter().flat_map(of_member).collect()
        }
        _ => Vec::from_iter(origin(key, value)),
    };
    if found.is_empty() {
        found.extend(origin(key, value));
    }
    found.sort();
    found.dedup();
    found
}

fn joined(key: &str, name: &str) -> String {
    if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") }
}

macro_rules! whole_numbers {
    ($($method:ident $visit:ident $number:ty),+ $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, OptionError> {
            let number = self.whole_number().and_then(|number| <$number>::try_from(number).ok());
            let accepts_zero = match number {
                // A visitor refuses no number but zero.
                Some(number) => match visitor.$visit::<OptionError>(number) {
                    Ok(value) => return Ok(value),
                    Err(_) => false,
                },
                None => visitor.$visit::<OptionError>(0).is_ok(),
            };
            let least = if accepts_zero { <$number>::MIN } else { 1 };
            let bounds = if <$number>::BITS < 64 {
                format!("from {least} to {}", <$number>::MAX)
            } else {
                format!("from {least}")
            };
            Err(self.error(&format!("a whole number {bounds}")))
        })+
    };
}

impl<'de> Deserializer<'de> for ValueDeserializer {
    type Error = OptionError;

    whole_numbers!(
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
    );

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, OptionError> {
        match &self.value.kind {
            ValueKind::Nil => visitor.visit_unit(),
            ValueKind::Boolean(boolean) => visitor.visit_bool(*boolean),
            ValueKind::I64(number) => visitor.visit_i64(*number),
            ValueKind::U64(number) => visitor.visit_u64(*number),
            ValueKind::I128(number) => visitor.visit_i128(*number),
            ValueKind::U128(number) => visitor.visit_u128(*number),
            ValueKind::Float(number) => visitor.visit_f64(*number),
            ValueKind::String(_) => self.deserialize_string(visitor),
            ValueKind::Table(_) => self.deserialize_map(visitor),
            ValueKind::Array(_) => self.deserialize_seq(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, OptionError> {
        match self.boolean() {
            Some(boolean) => visitor.visit_bool(boolean),
            None => Err(self.error("true or false")),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, OptionError> {
        match self.number() {
            Some(number) => visitor.visit_f64(number),
            None => Err(self.error("a number")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, OptionError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, OptionError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, OptionError> {
        match self.value.kind {
            ValueKind::String(text) => visitor.visit_string(text),
            _ => Err(self.other_kind("a text in quotes")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, OptionError> {
        match self.value.kind {
            ValueKind::Nil => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, OptionError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, OptionError> {
        let Self { key, value } = self;
        match value.kind {
            ValueKind::Array(elements) => {
                visitor.visit_seq(Elements { key, index: 0, rest: elements.into_iter() })
            }
            _ => Err(Self { key, value }.other_kind("a list, [in brackets]")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, OptionError> {
        let ValueKind::Table(members) = &self.value.kind else {
            return Err(self.other_kind(&format!("a section, [{}]", self.key)));
        };
        // In an order of which the first error does not depend on chance.
        let mut sorted: Vec<_> = members.clone().into_iter().collect();
        sorted.sort_by(|(name, _), (other, _)| name.cmp(other));
        let rest = sorted.into_iter();
        let read = visitor.visit_map(Members { key: &self.key, rest, value: None });
        read.map_err(|error| match error.member().map(str::to_owned) {
            Some(name) => {
                let origins = of_member_or_all(&self.key, members, &name, &self.value);
                error.at(joined(&self.key, &name), origins)
            }
            None => error.at(self.key.clone(), origins(&self.key, &self.value)),
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, OptionError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, OptionError> {
        let text = match &self.value.kind {
            ValueKind::String(text) => text.clone(),
            _ => self.shown(),
        };
        visitor.visit_enum(text.into_deserializer())
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// Returns the origins of a member or, of one that is missing, of the section.
fn of_member_or_all(
    key: &str,
    members: &Map<String, Value>,
    name: &str,
    section: &Value,
) -> Vec<String> {
    match members.get(name) {
        Some(member) => origins(&joined(key, name), member),
        None => origins(key, section),
    }
}

/// The members of a section.
struct Members<'a> {
    key: &'a str,
    rest: vec::IntoIter<(String, Value)>,
    value: Option<ValueDeserializer>,
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = OptionError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, OptionError> {
        let Some((name, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some(ValueDeserializer { key: joined(self.key, &name), value });
        seed.deserialize(name.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, OptionError> {
        match self.value.take() {
            Some(value) => with_place(seed, value),
            None => Err(serde::de::Error::custom("a value was read before its key")),
        }
    }
}

/// The elements of a list.
struct Elements {
    key: String,
    index: usize,
    rest: vec::IntoIter<Value>,
}

impl<'de> SeqAccess<'de> for Elements {
    type Error = OptionError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, OptionError> {
        let Some(value) = self.rest.next() else { return Ok(None) };
        let key = format!("{}[{}]", self.key, self.index);
        self.index += 1;
        with_place(seed, ValueDeserializer { key, value }).map(Some)
    }
}

/// Reads a value. What its type finds wrong with it is said with its place.
fn with_place<'de, S: DeserializeSeed<'de>>(
    seed: S,
    value: ValueDeserializer,
) -> Result<S::Value, OptionError> {
    let (key, origins) = (value.key.clone(), origins(&value.key, &value.value));
    seed.deserialize(value).map_err(|error| error.at(key, origins))
}
