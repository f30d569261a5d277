//! The members of a posted object that a mapping reads.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Value, value::RawValue};

use crate::domain::{InvalidSignature, Signature, for_each_member};

use super::{fields::Field, webhook};

/// The call that an object was posted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostedTo {
    /// `POST /anomalies`: the object is an occurrence.
    Anomalies,
    /// The webhook: the object is the labels of an alert.
    Webhook,
}

/// The members of a posted object that a mapping reads: the text of each, or the name of its type
/// if it is not a text.
#[derive(Debug)]
pub struct PostedFields<'a> {
    pub(super) to: PostedTo,
    members: BTreeMap<Cow<'a, str>, Result<String, &'static str>>,
}

impl<'a> PostedFields<'a> {
    /// Reads the members of a JSON object whose names are `wanted`. If a name occurs several times,
    /// the last member counts.
    pub(super) fn of(
        to: PostedTo,
        object: &'a str,
        wanted: impl Fn(&str) -> bool,
    ) -> serde_json::Result<Self> {
        let mut members = BTreeMap::new();
        for_each_member(object, |name, value| {
            if !wanted(&name) {
                return;
            }
            match read(to, value) {
                Some(value) => drop(members.insert(name, value)),
                None => drop(members.remove(&name)),
            }
        })?;
        Ok(Self { to, members })
    }

    /// Returns a member: its text, or the name of its type.
    fn get(&self, name: &str) -> Option<Result<&str, &'static str>> {
        let found = self.members.get(name)?;
        Some(found.as_deref().map_err(|type_name| *type_name))
    }

    /// Returns the text of a member as a source of a mapping: its first
    /// [`Signature::MAX_CHARACTERS`]. It is empty if there is no text, and for a label that a
    /// template left without a value.
    pub(super) fn text(&self, name: &str) -> &str {
        let text = self.get(name).and_then(Result::ok).map(Signature::cut).unwrap_or_default();
        match self.to {
            PostedTo::Anomalies => text,
            PostedTo::Webhook => webhook::filled(text),
        }
    }

    /// Returns the four fields by the rules of `POST /anomalies` without a mapping. Those of an
    /// alert are cut to the maximum length.
    pub(super) fn values(&self) -> Result<[String; 4], InvalidSignature> {
        let values = Signature::values_from(|name| match self.to {
            PostedTo::Anomalies => self.get(name),
            PostedTo::Webhook => Some(self.get(name)?.map(Signature::cut)),
        })?;
        Ok(values.map(str::to_owned))
    }

    /// Returns the name under which a field was posted.
    pub(super) fn name_of(&self, field: Field) -> Option<&'static str> {
        field.names().find(|name| self.members.contains_key(*name))
    }

    /// Returns the names of labels that can identify the anomaly and have more than
    /// [`Signature::MAX_CHARACTERS`].
    pub fn cut_labels(&self) -> Vec<&'static str> {
        let is_long = |name: &&'static str| {
            let text = self.get(name).and_then(Result::ok).unwrap_or_default();
            Signature::cut(text).len() < text.len()
        };
        let mut names = Signature::too_long(|name| self.get(name));
        names.extend(webhook::exported_labels().filter(is_long));
        names
    }
}

/// Reads a value. A label that is a number or a boolean counts as its text; a label that is null
/// counts as absent.
fn read(to: PostedTo, value: &RawValue) -> Option<Result<String, &'static str>> {
    let is_label = to == PostedTo::Webhook;
    Some(match type_of(value) {
        "a string" => serde_json::from_str(value.get()).map_err(|_| "a text that can't be read"),
        "null" if is_label => return None,
        "a number" | "a boolean" if is_label => {
            let value = serde_json::from_str::<Value>(value.get());
            value.map(|value| value.to_string()).map_err(|_| "a number that can't be read")
        }
        type_name => Err(type_name),
    })
}

fn type_of(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'n') => "null",
        Some(b't' | b'f') => "a boolean",
        Some(b'[') => "an array",
        Some(b'{') => "an object",
        _ => "a number",
    }
}
