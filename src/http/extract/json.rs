//! Reads JSON text without building a tree of it: checks it, and takes some members of an object.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{domain::for_each_member, http::problem::Problem};

/// A JSON value that was checked and is not kept, except for the name of its type: "a number".
///
/// serde's `IgnoredAny` would accept numbers that no reader can hold, broken escapes and any depth,
/// which fail only when the stored text is read again.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct CheckedJson(pub(in crate::http) &'static str);

/// A JSON value of which only a text is kept.
#[derive(Clone, Debug)]
pub(in crate::http) enum JsonValue<'a> {
    Text(Cow<'a, str>),
    Other(CheckedJson),
}

impl JsonValue<'_> {
    /// Returns the text, or the name of another type.
    pub(in crate::http) fn text(&self) -> Result<&str, &'static str> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Other(CheckedJson(type_name)) => Err(type_name),
        }
    }

    /// Returns the text of the field `name`; `null` is the same as no field.
    pub(in crate::http) fn optional_text(&self, name: &str) -> Result<Option<&str>, Problem> {
        match self.text() {
            Ok(text) => Ok(Some(text)),
            Err("null") => Ok(None),
            Err(type_name) => Err(Problem::wrong_type(name, "a string", type_name)),
        }
    }
}

impl<'de> Deserialize<'de> for CheckedJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CheckedVisitor)
    }
}

impl<'de> Deserialize<'de> for JsonValue<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonValueVisitor)
    }
}

pub(in crate::http) struct CheckedVisitor;

impl<'de> Visitor<'de> for CheckedVisitor {
    type Value = CheckedJson;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<CheckedJson, E> {
        Ok(CheckedJson("null"))
    }

    fn visit_bool<E>(self, _: bool) -> Result<CheckedJson, E> {
        Ok(CheckedJson("a boolean"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<CheckedJson, E> {
        Ok(CheckedJson("a number"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<CheckedJson, E> {
        Ok(CheckedJson("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<CheckedJson, E> {
        Ok(CheckedJson("a number"))
    }

    fn visit_str<E>(self, _: &str) -> Result<CheckedJson, E> {
        Ok(CheckedJson("a string"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<CheckedJson, A::Error> {
        while elements.next_element::<CheckedJson>()?.is_some() {}
        Ok(CheckedJson("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<CheckedJson, A::Error> {
        while members.next_entry::<CheckedJson, CheckedJson>()?.is_some() {}
        Ok(CheckedJson("an object"))
    }
}

/// The first elements of an array up to `MAX`, and the number of all. Those beyond take no memory.
#[derive(Debug)]
pub(in crate::http) struct FirstElements<T, const MAX: usize> {
    pub(in crate::http) first: Vec<T>,
    pub(in crate::http) count: usize,
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for FirstElements<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FirstElementsVisitor(PhantomData))
    }
}

struct FirstElementsVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for FirstElementsVisitor<T, MAX> {
    type Value = FirstElements<T, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut found = FirstElements { first: Vec::new(), count: 0 };
        while found.count < MAX {
            let Some(element) = elements.next_element()? else { return Ok(found) };
            found.first.push(element);
            found.count += 1;
        }
        while elements.next_element::<T>()?.is_some() {
            found.count += 1;
        }
        Ok(found)
    }
}

struct JsonValueVisitor;

impl<'de> Visitor<'de> for JsonValueVisitor {
    type Value = JsonValue<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        CheckedVisitor.expecting(f)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<JsonValue<'de>, E> {
        Ok(JsonValue::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<JsonValue<'de>, E> {
        Ok(JsonValue::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E: Error>(self) -> Result<JsonValue<'de>, E> {
        CheckedVisitor.visit_unit().map(JsonValue::Other)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<JsonValue<'de>, E> {
        CheckedVisitor.visit_bool(value).map(JsonValue::Other)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<JsonValue<'de>, E> {
        CheckedVisitor.visit_u64(value).map(JsonValue::Other)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<JsonValue<'de>, E> {
        CheckedVisitor.visit_i64(value).map(JsonValue::Other)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<JsonValue<'de>, E> {
        CheckedVisitor.visit_f64(value).map(JsonValue::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<JsonValue<'de>, A::Error> {
        CheckedVisitor.visit_seq(elements).map(JsonValue::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<JsonValue<'de>, A::Error> {
        CheckedVisitor.visit_map(members).map(JsonValue::Other)
    }
}

/// Returns the members of an object that `names` names, each as its text; if a name occurs twice,
/// the last one counts, as everywhere. `None` if `value` is no object.
pub(in crate::http) fn members<'a, const N: usize>(
    value: &'a RawValue,
    names: [&str; N],
) -> Option<[Option<&'a RawValue>; N]> {
    let mut found = [None; N];
    for_each_member(value.get(), |name, member| {
        if let Some(index) = names.iter().position(|known| *known == name) {
            found[index] = Some(member);
        }
    })
    .ok()?;
    Some(found)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_last_of_two_members_counts() {
        let found = members(raw(r#"{"a": 1, "b": null, "\u0061": 2}"#), ["a", "b", "c"]).unwrap();
        let found = found.map(|member| member.map(RawValue::get));
        assert_eq!(found, [Some("2"), Some("null"), None]);
        assert!(members(raw("[1]"), ["a"]).is_none());
    }

    #[test]
    fn a_value_that_a_tree_can_not_hold_is_refused() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        for text in ["1e999", r#""\ud800""#, r#"{"a": "\udc00"}"#, "[1,]", "{} {}", &deep] {
            let tree = serde_json::from_str::<Value>(text).unwrap_err().to_string();
            let checked = serde_json::from_str::<CheckedJson>(text).unwrap_err().to_string();
            assert_eq!(checked, tree, "{text}");
        }
    }
}
