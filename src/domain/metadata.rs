//! Bounds the object that is stored with an anomaly: if it is too large, members are left out.

use std::{borrow::Cow, cmp::Reverse};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Signature, for_each_member};

/// The section `anomaly` of the configuration.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnomalyConfig {
    /// Maximum size of the object that is stored with an anomaly, in bytes. The identifying fields
    /// are kept whatever their size.
    pub max_metadata_bytes: usize,
}

/// Objects whose members are left out one by one.
const CONTAINERS: [&str; 2] = ["labels", "annotations"];

/// The member that shows that others were left out.
const TRUNCATED: &str = "metadata_truncated";
const TRUNCATED_MEMBER: &str = "\"metadata_truncated\":true";

/// A member of the object or, with those of a container, of an object in it.
struct Member<'a> {
    name: Cow<'a, str>,
    value: Value<'a>,
    is_kept: bool,
}

enum Value<'a> {
    /// A value as it is stored.
    Text(&'a str),
    Container(Vec<Member<'a>>),
}

impl<'a> Member<'a> {
    fn new(name: Cow<'a, str>, value: &'a RawValue) -> Self {
        Self { name, value: Value::Text(value.get()), is_kept: true }
    }

    /// Returns the number of bytes that are saved by leaving it out, without the members of a
    /// container.
    fn bytes(&self) -> usize {
        let value = match &self.value {
            Value::Text(text) => text.len(),
            Value::Container(_) => "{}".len(),
        };
        json_text(&self.name).len() + ":".len() + value + ",".len()
    }
}

/// Returns a stored object reduced to `max_bytes`, if that is possible: members are left out, the
/// largest first. The identifying fields stay. `stored` must be a JSON object without white space
/// outside strings.
pub(super) fn without_largest(stored: &str, max_bytes: usize) -> String {
    let mut members = members_of(stored);
    members.retain(|member| member.name != TRUNCATED);
    let stays = members_that_stay(&members);
    // The sizes of members, each with the member's index.
    let mut by_size = Vec::new();
    let mut bytes = "{}".len() + TRUNCATED_MEMBER.len();
    for (index, member) in members.iter_mut().enumerate() {
        if stays.contains(&index) && CONTAINERS.contains(&&*member.name) {
            open_container(member);
        }
        bytes += member.bytes();
        match &member.value {
            Value::Container(inner) => {
                let sizes = inner.iter().map(Member::bytes).enumerate();
                by_size.extend(sizes.map(|(place, size)| (size, index, Some(place))));
                bytes += inner.iter().map(Member::bytes).sum::<usize>();
            }
            Value::Text(_) if stays.contains(&index) => {}
            Value::Text(_) => by_size.push((member.bytes(), index, None)),
        }
    }
    by_size.sort_by_key(|(size, ..)| Reverse(*size));
    for (size, index, place) in by_size {
        if bytes <= max_bytes {
            break;
        }
        bytes -= size;
        match (&mut members[index].value, place) {
            (Value::Container(inner), Some(place)) => inner[place].is_kept = false,
            _ => members[index].is_kept = false,
        }
    }
    let mut object = String::with_capacity(bytes);
    object.push('{');
    push_members(&members, &mut object);
    if !object.ends_with('{') {
        object.push(',');
    }
    object.push_str(TRUNCATED_MEMBER);
    object.push('}');
    object
}

/// Returns the indexes of the identifying fields and of the containers. If a name occurs several
/// times, the last member counts.
fn members_that_stay(members: &[Member<'_>]) -> Vec<usize> {
    let last = |name: &str| members.iter().rposition(|member| member.name == name);
    let identifying = Signature::FIELDS
        .into_iter()
        .filter_map(|(name, alias)| last(name).or_else(|| last(alias?)));
    let is_object = |index: &usize| match &members[*index].value {
        Value::Text(text) => text.starts_with('{'),
        Value::Container(_) => true,
    };
    identifying.chain(CONTAINERS.into_iter().filter_map(last).filter(is_object)).collect()
}

fn members_of(object: &str) -> Vec<Member<'_>> {
    let mut members = Vec::new();
    let read = for_each_member(object, |name, value| members.push(Member::new(name, value)));
    debug_assert!(read.is_ok(), "it was checked to be a JSON object: {object}");
    members
}

fn open_container(member: &mut Member<'_>) {
    if let Value::Text(text) = member.value {
        member.value = Value::Container(members_of(text));
    }
}

fn push_members(members: &[Member<'_>], object: &mut String) {
    for member in members.iter().filter(|member| member.is_kept) {
        if !object.ends_with('{') {
            object.push(',');
        }
        object.push_str(&json_text(&member.name));
        object.push(':');
        match &member.value {
            Value::Text(text) => object.push_str(text),
            Value::Container(inner) => {
                object.push('{');
                push_members(inner, object);
                object.push('}');
            }
        }
    }
}

fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

    fn bounded(object: &Value, max_bytes: usize) -> Value {
        serde_json::from_str(&without_largest(&object.to_string(), max_bytes)).unwrap()
    }

    #[test]
    fn members_of_labels_and_annotations_are_left_out_one_by_one() {
        let object = json!({
            "alertname": "A", "other": "x".repeat(50),
            "labels": {"a": "x".repeat(40), "b": "y"},
            "annotations": {"c": "x".repeat(60), "d": {"e": "x".repeat(70)}},
        });
        let expected = json!({
            "alertname": "A", "labels": {"b": "y"}, "annotations": {}, "metadata_truncated": true,
        });
        assert_eq!(bounded(&object, 100), expected);
        let expected = json!({
            "alertname": "A", "other": "x".repeat(50), "labels": {"a": "x".repeat(40), "b": "y"},
            "annotations": {}, "metadata_truncated": true,
        });
        assert_eq!(bounded(&object, 220), expected);
    }

    #[test]
    fn of_several_members_of_one_name_the_last_stays() {
        let object = format!(r#"{{"job":"a"{}}}"#, r#","labels":{},"job":"b""#.repeat(50));
        let expected = r#"{"labels":{},"job":"b","metadata_truncated":true}"#;
        assert_eq!(without_largest(&object, 50), expected);
    }

    #[test]
    fn an_identifying_field_stays_whatever_it_takes() {
        let object = json!({"alert_name": "a".repeat(90), "alertname": "b", "reason": "c"});
        let expected =
            json!({"alert_name": "a".repeat(90), "reason": "c", "metadata_truncated": true});
        assert_eq!(bounded(&object, 10), expected);
        // A member of this name that the caller posted is not an identifying field.
        let object = json!({"metadata_truncated": false, "job": "j", "text": "x".repeat(90)});
        assert_eq!(bounded(&object, 60), json!({"job": "j", "metadata_truncated": true}));
    }

    proptest! {
        #[test]
        fn it_fits_or_nothing_else_can_be_left_out(
            fields in prop::collection::btree_map(".{0,8}", ".{0,40}", 0..12),
            labels in prop::collection::btree_map(".{0,8}", ".{0,40}", 0..12),
            max_bytes in 0..400_usize,
        ) {
            let mut object: Map<String, Value> =
                fields.into_iter().map(|(name, text)| (name, text.into())).collect();
            object.insert("labels".to_owned(), json!(labels));
            object.insert("service".to_owned(), "s".into());
            let object = Value::from(object);
            let text = without_largest(&object.to_string(), max_bytes);
            let kept: Map<String, Value> = serde_json::from_str(&text).unwrap();
            let least = r#"{"labels":{},"service":"s","metadata_truncated":true}"#.len();
            prop_assert!(text.len() <= max_bytes.max(least), "{}", text);
            for (name, value) in kept.iter().filter(|(name, _)| *name != TRUNCATED) {
                let posted = &object[name];
                let labels = posted.as_object().filter(|_| name == "labels");
                prop_assert!(value == posted || labels.is_some(), "{}", name);
            }
        }
    }
}
