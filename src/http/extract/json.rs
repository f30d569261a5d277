//! Reads JSON text without building a tree of it: checks it, takes some members of an object, and
//! copies others as they were posted.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::http::problem::Problem;

/// A JSON value that was checked and is not kept; it has the name of its type: "a number".
///
/// serde's `IgnoredAny` would pass over numbers that no reader can hold, over broken escapes and
/// over any depth, which fail only when the stored text is read again.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct CheckedJson(pub(in crate::http) &'static str);

/// A JSON value of which only a text is kept.
#[derive(Clone, Debug)]
pub(in crate::http) enum JsonValue<'a> {
    Text(Cow<'a, str>),
    Other(CheckedJson),
}

impl JsonValue<'_> {
    /// The text, or the name of another type.
    pub(in crate::http) fn text(&self) -> Result<&str, &'static str> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Other(CheckedJson(type_name)) => Err(type_name),
        }
    }

    /// The text of the field `name`; `null` is the same as no field.
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

/// The name of a member, without its escapes.
pub(in crate::http) struct MemberName<'a>(pub(in crate::http) Cow<'a, str>);

impl<'de> Deserialize<'de> for MemberName<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match JsonValue::deserialize(deserializer)? {
            JsonValue::Text(name) => Ok(Self(name)),
            JsonValue::Other(_) => Err(D::Error::custom("the name of a member is a string")),
        }
    }
}

/// Returns the members of an object that `names` names, each as its text; where a name is there
/// twice, the last one counts, as everywhere. `None` where `value` is no object.
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

/// Appends those members of an object whose names are `kept`, each as it was posted but for the
/// white space outside of texts. `object` was checked before.
pub(in crate::http) fn copy_members(
    object: &str,
    copy: &mut String,
    kept: impl Fn(&str) -> bool,
) -> serde_json::Result<()> {
    for_each_member(object, |name, value| {
        if !kept(&name) {
            return;
        }
        if !copy.ends_with('{') {
            copy.push(',');
        }
        match name {
            // It has no escapes, and needs none.
            Cow::Borrowed(name) => {
                copy.push('"');
                copy.push_str(name);
                copy.push('"');
            }
            Cow::Owned(name) => copy.push_str(&serde_json::Value::from(name).to_string()),
        }
        copy.push(':');
        copy_value(value, copy);
    })
}

/// Appends a value as it was posted but for the white space outside of texts.
pub(in crate::http) fn copy_value(value: &RawValue, copy: &mut String) {
    let text = value.get();
    if !text.starts_with(['{', '[']) {
        copy.push_str(text);
        return;
    }
    let mut rest = text;
    while let Some(quote) = rest.find('"') {
        let (before, from_quote) = rest.split_at(quote);
        copy.extend(before.split_ascii_whitespace());
        let (string, after) = from_quote.split_at(string_length(from_quote));
        copy.push_str(string);
        rest = after;
    }
    copy.extend(rest.split_ascii_whitespace());
}

/// The length of the string that `text` begins with, in bytes, with its quotes.
fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    });
    end.map_or(text.len(), |end| end + 2)
}

fn for_each_member<'a>(
    object: &'a str,
    visit: impl FnMut(Cow<'a, str>, &'a RawValue),
) -> serde_json::Result<()> {
    struct EachMember<F>(F);

    impl<'de, F: FnMut(Cow<'de, str>, &'de RawValue)> Visitor<'de> for EachMember<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
            while let Some((MemberName(name), value)) = members.next_entry()? {
                (self.0)(name, value);
            }
            Ok(())
        }
    }

    serde_json::Deserializer::from_str(object).deserialize_map(EachMember(visit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    fn copied(object: &str, dropped: &str) -> String {
        let mut copy = "{".to_owned();
        copy_members(object, &mut copy, |name| name != dropped).unwrap();
        copy + "}"
    }

    #[test]
    fn members_are_copied_as_posted_without_white_space() {
        let object = r#" { "a" : 1.50 , "drop\u0070ed": {"x": [1]}, "b" : [ 1 , "x  \" y" , { } ],
            "c\"d": "caf\u00e9 \/", "e": 12345678901234567890123 } "#;
        let expected =
            r#"{"a":1.50,"b":[1,"x  \" y",{}],"c\"d":"caf\u00e9 \/","e":12345678901234567890123}"#;
        assert_eq!(copied(object, "dropped"), expected);
        assert_eq!(copied("{}", ""), "{}");
        assert_eq!(copied(r#"{"dropped": 1, "dropped": 2}"#, "dropped"), "{}");
    }

    #[test]
    fn the_last_of_two_members_counts() {
        let found = members(raw(r#"{"a": 1, "b": null, "\u0061": 2}"#), ["a", "b", "c"]).unwrap();
        let found = found.map(|member| member.map(RawValue::get));
        assert_eq!(found, [Some("2"), Some("null"), None]);
        assert!(members(raw("[1]"), ["a"]).is_none());
    }

    #[test]
    fn what_a_tree_can_not_hold_is_no_checked_json() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        for text in ["1e999", r#""\ud800""#, r#"{"a": "\udc00"}"#, "[1,]", "{} {}", &deep] {
            let tree = serde_json::from_str::<Value>(text).unwrap_err().to_string();
            let checked = serde_json::from_str::<CheckedJson>(text).unwrap_err().to_string();
            assert_eq!(checked, tree, "{text}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..4)
                    .prop_map(|members| members.into_iter().collect::<Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_copy_has_the_same_members_in_the_same_order(value in any_json(), pretty: bool) {
            let object = json!({"first": value, "last": 1});
            let print = if pretty { serde_json::to_string_pretty } else { serde_json::to_string };
            let copy = copied(&print(&object).unwrap(), "");
            prop_assert_eq!(copy, object.to_string());
        }
    }
}
