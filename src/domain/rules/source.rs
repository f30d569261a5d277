//! A rule as it is written in a file, before it is checked. It may have any shape, so that every
//! fault is reported in the same form.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};

/// A rule with all keys that were written for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSource(pub(super) BTreeMap<String, SourceValue>);

/// A value of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceValue {
    /// A string.
    Text(String),
    /// A list of values.
    List(Vec<Self>),
    /// A table of values by name.
    Table(BTreeMap<String, Self>),
    /// A value of any other type.
    Other,
}

impl<'de> Deserialize<'de> for RuleSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match SourceValue::deserialize(deserializer)? {
            SourceValue::Table(members) => Ok(Self(members)),
            _ => Err(D::Error::custom("a rule is a table: write [[rule]]")),
        }
    }
}

impl<'de> Deserialize<'de> for SourceValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = SourceValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of a rule")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<SourceValue, E> {
        Ok(SourceValue::Text(text.to_owned()))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<SourceValue, E> {
        Ok(SourceValue::Other)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<SourceValue, E> {
        Ok(SourceValue::Other)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<SourceValue, E> {
        Ok(SourceValue::Other)
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<SourceValue, E> {
        Ok(SourceValue::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<SourceValue, E> {
        Ok(SourceValue::Other)
    }

    fn visit_unit<E: Error>(self) -> Result<SourceValue, E> {
        Ok(SourceValue::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<SourceValue, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element()? {
            list.push(element);
        }
        Ok(SourceValue::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<SourceValue, A::Error> {
        let mut table = BTreeMap::new();
        while let Some((name, value)) = members.next_entry()? {
            table.insert(name, value);
        }
        Ok(SourceValue::Table(table))
    }
}
