//! The JSON object that is stored with an anomaly: the fields of its first occurrence as posted. It
//! is copied from the posted text, because building and printing a tree for each occurrence would
//! be slow; and only when it is needed, because most occurrences are of known anomalies.

use std::{borrow::Cow, fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    Signature,
    metadata::{AnomalyConfig, without_largest},
};

/// The fields of a posted object that describe the occurrence and not its anomaly.
const OCCURRENCE_FIELDS: [&str; 2] = ["event_id", "occurred_at"];

const ANNOTATIONS: &str = "annotations";

/// The name of the member that holds the members that a mapping has replaced, each as it was
/// posted. If the caller has posted a member of this name, it is among them.
const AS_POSTED: &str = "as_posted";

/// An identifying field whose value a mapping has replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplacedField {
    /// The canonical name, under which it is stored.
    pub name: &'static str,
    /// The name of the member that it was posted as; `None` if there was none.
    pub posted_as: Option<&'static str>,
    /// The new value.
    pub value: String,
}

/// The JSON object that is stored with an anomaly.
#[derive(Clone)]
pub struct SignatureJson(Text);

#[derive(Clone)]
enum Text {
    /// A text in its stored form.
    Stored(Arc<str>),
    /// An occurrence as it was posted: a valid JSON object.
    Posted(Arc<str>),
}

impl SignatureJson {
    /// Creates the stored form of a posted occurrence. `object` must be a valid JSON object.
    pub fn of_posted(object: &str, config: AnomalyConfig) -> Self {
        let posted = Self(Text::Posted(object.into()));
        // The stored form is not longer than the posted one.
        if object.len() <= config.max_metadata_bytes { posted } else { posted.bounded(config) }
    }

    /// Creates the stored form of a posted occurrence in which a mapping has replaced fields. Read
    /// back, it has the mapped fields. `object` must be a valid JSON object.
    pub fn of_mapped(object: &str, replaced: &[ReplacedField], config: AnomalyConfig) -> Self {
        let mut stored = "{".to_owned();
        let is_kept = |name: &str| !OCCURRENCE_FIELDS.contains(&name);
        copy_mapped(object, &mut stored, is_kept, &[], replaced);
        stored.push('}');
        Self(Text::Stored(stored.into())).bounded(config)
    }

    /// Creates the stored form of an alert's labels and annotations. Both must be valid JSON
    /// objects. Labels whose names are in `cut` are cut as by [`Signature::cut`].
    pub fn of_alert(
        labels: &RawValue,
        annotations: Option<&RawValue>,
        cut: &[&str],
        replaced: &[ReplacedField],
        config: AnomalyConfig,
    ) -> Self {
        let is_kept = |name: &str| annotations.is_none() || name != ANNOTATIONS;
        let mut stored = "{".to_owned();
        copy_mapped(labels.get(), &mut stored, is_kept, cut, replaced);
        if let Some(annotations) = annotations {
            copy_name(Cow::Borrowed(ANNOTATIONS), &mut stored);
            copy_value(annotations, &mut stored);
        }
        stored.push('}');
        Self(Text::Stored(stored.into())).bounded(config)
    }

    /// Leaves members out of an object that is too large.
    fn bounded(self, config: AnomalyConfig) -> Self {
        let stored = self.to_stored();
        if stored.len() <= config.max_metadata_bytes {
            return Self(Text::Stored(stored));
        }
        Self(Text::Stored(without_largest(&stored, config.max_metadata_bytes).into()))
    }

    /// Returns the memory that its text takes, in bytes.
    pub fn bytes(&self) -> usize {
        match &self.0 {
            Text::Stored(text) | Text::Posted(text) => text.len(),
        }
    }

    /// Returns the stored text: the fields as they were posted, without white space outside
    /// strings.
    pub fn to_stored(&self) -> Arc<str> {
        let posted = match &self.0 {
            Text::Stored(stored) => return Arc::clone(stored),
            Text::Posted(posted) => posted,
        };
        let mut stored = String::with_capacity(posted.len());
        stored.push('{');
        copy_members(posted, &mut stored, |name| !OCCURRENCE_FIELDS.contains(&name), &[]);
        stored.push('}');
        stored.into()
    }
}

impl Signature {
    /// Reads the identifying fields of a stored object; `None` if it has no valid ones.
    pub fn from_stored(object: &str) -> Option<Self> {
        // Few objects have more than four: a list is faster than a map.
        let mut fields: Vec<(Cow<'_, str>, Option<String>)> = Vec::with_capacity(4);
        for_each_member(object, |name, value| {
            if Self::is_identifying(&name) {
                // If names are equal, the last one counts, as in a map.
                fields.retain(|(other, _)| *other != name);
                fields.push((name, serde_json::from_str(value.get()).ok()));
            }
        })
        .ok()?;
        Self::from_lookup(|name| {
            let (_, text) = fields.iter().find(|(other, _)| other == name)?;
            Some(text.as_deref().ok_or("another type"))
        })
        .ok()
    }
}

impl<T: Into<Arc<str>>> From<T> for SignatureJson {
    /// Creates it from a text in stored form.
    fn from(stored: T) -> Self {
        Self(Text::Stored(stored.into()))
    }
}

impl fmt::Debug for SignatureJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_stored().fmt(f)
    }
}

impl PartialEq for SignatureJson {
    fn eq(&self, other: &Self) -> bool {
        self.to_stored() == other.to_stored()
    }
}

impl Eq for SignatureJson {}

impl Serialize for SignatureJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_stored().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SignatureJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Arc::<str>::deserialize(deserializer).map(Self::from)
    }
}

/// Appends members as [`copy_members`] does, with the mapped values of the `replaced` fields and
/// the members that they replace.
fn copy_mapped(
    object: &str,
    copy: &mut String,
    kept: impl Fn(&str) -> bool,
    cut: &[&str],
    replaced: &[ReplacedField],
) {
    if replaced.is_empty() {
        copy_members(object, copy, kept, cut);
        return;
    }
    let is_replaced = |name: &str| {
        name == AS_POSTED || replaced.iter().any(|field| field.posted_as == Some(name))
    };
    copy_members(object, copy, |name| kept(name) && !is_replaced(name), cut);
    for ReplacedField { name, value, .. } in replaced {
        copy_name(Cow::Borrowed(name), copy);
        copy.push_str(&json_text(value));
    }
    copy_name(Cow::Borrowed(AS_POSTED), copy);
    copy.push('{');
    copy_members(object, copy, |name| kept(name) && is_replaced(name), cut);
    copy.push('}');
}

/// Appends the members of an object whose names are `kept`, each as it was posted except for white
/// space outside strings. Those whose names are in `cut` are cut to the maximum length of an
/// identifying field.
fn copy_members(object: &str, copy: &mut String, kept: impl Fn(&str) -> bool, cut: &[&str]) {
    let copied = for_each_member(object, |name, value| {
        if !kept(&name) {
            return;
        }
        let text = cut.contains(&&*name).then(|| serde_json::from_str::<String>(value.get()));
        copy_name(name, copy);
        match text {
            Some(Ok(text)) => copy.push_str(&json_text(Signature::cut(&text))),
            _ => copy_value(value, copy),
        }
    });
    debug_assert!(copied.is_ok(), "it was checked to be a JSON object: {object}");
}

fn copy_name(name: Cow<'_, str>, copy: &mut String) {
    if !copy.ends_with('{') {
        copy.push(',');
    }
    match name {
        // A name that is borrowed from the posted text has no escapes, and needs none.
        Cow::Borrowed(name) => {
            copy.push('"');
            copy.push_str(name);
            copy.push('"');
        }
        Cow::Owned(name) => copy.push_str(&json_text(&name)),
    }
    copy.push(':');
}

fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Appends a value as it was posted, except for white space outside strings.
fn copy_value(value: &RawValue, copy: &mut String) {
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

/// Returns the length of the string at the beginning of `text` in bytes, including its quotes.
fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    });
    end.map_or(text.len(), |end| end + 2)
}

/// Calls `visit` with each member of a JSON object: its name without escapes, and its value as
/// text.
///
/// # Errors
/// Fails if `object` is not a JSON object.
pub fn for_each_member<'a>(
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

/// The name of a member, borrowed if it has no escapes: serde's own `Cow` is never borrowed.
#[derive(Debug)]
pub struct MemberName<'a>(pub Cow<'a, str>);

impl<'de> Deserialize<'de> for MemberName<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl<'de> Visitor<'de> for NameVisitor {
            type Value = MemberName<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<MemberName<'de>, E> {
                Ok(MemberName(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<MemberName<'de>, E> {
                Ok(MemberName(Cow::Owned(name.to_owned())))
            }
        }

        deserializer.deserialize_str(NameVisitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

    const UNBOUNDED: AnomalyConfig = AnomalyConfig { max_metadata_bytes: usize::MAX };

    fn stored(posted: &str) -> String {
        SignatureJson::of_posted(posted, UNBOUNDED).to_stored().to_string()
    }

    #[test]
    fn members_are_stored_as_posted_without_white_space() {
        let posted = r#" { "a" : 1.50 , "event\u005fid": "x", "b" : [ 1 , "x  \" y" , { } ],
            "c\"d": "caf\u00e9 \/", "e": 12345678901234567890123, "occurred_at": null } "#;
        let expected =
            r#"{"a":1.50,"b":[1,"x  \" y",{}],"c\"d":"caf\u00e9 \/","e":12345678901234567890123}"#;
        assert_eq!(stored(posted), expected);
        assert_eq!(stored("{}"), "{}");
        assert_eq!(stored(r#"{"event_id": "a", "event_id": "b"}"#), "{}");
    }

    #[test]
    fn annotations_are_stored_beside_the_labels() {
        let raw = |text| serde_json::from_str::<&RawValue>(text).unwrap();
        let labels = raw(r#"{"alertname": "A", "annotations": "label", "event_id": "label"}"#);
        let alert = |annotations| {
            SignatureJson::of_alert(labels, annotations, &[], &[], UNBOUNDED).to_stored()
        };
        assert_eq!(
            &*alert(Some(raw(r#"{"summary": "s"}"#))),
            r#"{"alertname":"A","event_id":"label","annotations":{"summary":"s"}}"#
        );
        let alone = r#"{"alertname":"A","annotations":"label","event_id":"label"}"#;
        assert_eq!(&*alert(None), alone);
    }

    #[test]
    fn what_a_mapping_replaces_is_stored_beside_the_fields_as_mapped() {
        let replaced = |name, posted_as, value: &str| ReplacedField {
            name,
            posted_as,
            value: value.to_owned(),
        };
        let posted = r#"{"alertname":"A","service":"","job":"exporter","service":"kps","x":1,
            "event_id":"e","as_posted":{"service":"own"}}"#;
        let fields =
            [replaced("service", Some("service"), "c\"art"), replaced("namespace", None, "shop")];
        let stored = SignatureJson::of_mapped(posted, &fields, UNBOUNDED).to_stored();
        let expected = concat!(
            r#"{"alertname":"A","job":"exporter","x":1,"service":"c\"art","namespace":"shop","#,
            r#""as_posted":{"service":"","service":"kps","as_posted":{"service":"own"}}}"#,
        );
        assert_eq!(&*stored, expected);

        let labels: &RawValue =
            serde_json::from_str(r#"{"alertname":"A","job":"exporter"}"#).unwrap();
        let annotations = serde_json::from_str::<&RawValue>(r#"{"summary":"s"}"#).unwrap();
        let fields = [replaced("service", Some("job"), "cart")];
        let stored =
            SignatureJson::of_alert(labels, Some(annotations), &[], &fields, UNBOUNDED).to_stored();
        let expected = concat!(
            r#"{"alertname":"A","service":"cart","as_posted":{"job":"exporter"},"#,
            r#""annotations":{"summary":"s"}}"#,
        );
        assert_eq!(&*stored, expected);
    }

    #[test]
    fn the_identifying_fields_of_a_stored_object_are_those_of_its_tree() {
        for stored in [
            r#"{"alert_name":"A","service":"s","namespace":"n","error_type":"e","x":1}"#,
            r#"{"alertname":"A","job":"j","reason":"r\u0041"}"#,
            r#"{"alertname":"A","alert_name":""}"#,
            r#"{"alert_name":1}"#,
            r#"{"alert_name":1,"alertname":"A"}"#,
            r#"{"alert_name":"A","alertname":1}"#,
            r#"{"alert_name":"A","alert_name":"B"}"#,
            r#"{"x":"A"}"#,
            "{}",
        ] {
            let tree: Map<String, Value> = serde_json::from_str(stored).unwrap();
            let expected = Signature::from_fields(&tree).ok();
            assert_eq!(Signature::from_stored(stored), expected, "{stored}");
        }
        assert_eq!(Signature::from_stored("[]"), None);
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
            let copy = stored(&print(&object).unwrap());
            prop_assert_eq!(copy, object.to_string());
        }
    }
}
