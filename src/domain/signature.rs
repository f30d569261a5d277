//! The signature of an anomaly: four of the fields that a caller posts, and the key computed from
//! them. The canonical form is fixed byte for byte, because deployments hold years of keys computed
//! from it.

use std::fmt::Write as _;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::AnomalyKey;

/// The four identifying fields, with aliases resolved. At least one is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    alert_name: String,
    service: String,
    namespace: String,
    error_type: String,
}

/// The reason why an object has no signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSignature {
    /// An identifying field is not a string.
    #[error("`{field}` must be a string, not {found}")]
    NotAString {
        /// The name under which the field was posted.
        field: &'static str,
        /// The JSON type of its value.
        found: &'static str,
    },
    /// An identifying field is too long.
    #[error(
        "`{field}` has more than {} characters: give a shorter name",
        Signature::MAX_CHARACTERS
    )]
    TooLong {
        /// The name under which the field was posted.
        field: &'static str,
    },
    /// All four fields are missing or empty.
    #[error(
        "the signature is empty: give at least one of `alert_name` (or `alertname`), `service` (or \
         `job`), `namespace`, `error_type` (or `reason`)"
    )]
    Empty,
}

/// A canonical name, and its alias in Prometheus' labels.
const ALERT_NAME: (&str, Option<&str>) = ("alert_name", Some("alertname"));
const SERVICE: (&str, Option<&str>) = ("service", Some("job"));
const NAMESPACE: (&str, Option<&str>) = ("namespace", None);
const ERROR_TYPE: (&str, Option<&str>) = ("error_type", Some("reason"));

impl Signature {
    /// The identifying fields: the name of each, and its alias in Prometheus' labels.
    pub const FIELDS: [(&'static str, Option<&'static str>); 4] =
        [ALERT_NAME, SERVICE, NAMESPACE, ERROR_TYPE];

    /// Maximum number of characters of an identifying field of a new occurrence. Older occurrences
    /// may have longer fields.
    pub const MAX_CHARACTERS: usize = 1_024;

    /// Reads the identifying fields of `fields` and ignores all others.
    ///
    /// # Errors
    /// Fails if one of them is not a string, or if all are empty.
    pub fn from_fields(fields: &Map<String, Value>) -> Result<Self, InvalidSignature> {
        Self::from_lookup(|name| {
            let value = fields.get(name)?;
            Some(value.as_str().ok_or_else(|| json_type_name(value)))
        })
    }

    /// Returns the key of a new occurrence's signature. The fields are read as by
    /// [`Signature::from_lookup`], but not copied.
    ///
    /// # Errors
    /// Fails as [`Signature::from_lookup`] does, and if a field has more than
    /// [`Signature::MAX_CHARACTERS`].
    pub fn key_of_new<'a>(
        lookup: impl Fn(&'static str) -> Option<Result<&'a str, &'static str>>,
    ) -> Result<AnomalyKey, InvalidSignature> {
        if let Some(field) = Self::too_long(&lookup).first() {
            return Err(InvalidSignature::TooLong { field });
        }
        let values = Self::values_from(lookup)?;
        if values.iter().all(|value| value.is_empty()) {
            return Err(InvalidSignature::Empty);
        }
        Ok(key_of(values))
    }

    /// Returns the names of the identifying fields that have more than
    /// [`Signature::MAX_CHARACTERS`].
    pub fn too_long<'a>(
        lookup: impl Fn(&'static str) -> Option<Result<&'a str, &'static str>>,
    ) -> Vec<&'static str> {
        let posted = |(name, alias): (&'static str, Option<&'static str>)| {
            let mut names = std::iter::once(name).chain(alias);
            names.find_map(|name| lookup(name).map(|found| (name, found)))
        };
        let fields = Self::FIELDS.into_iter().filter_map(posted);
        let too_long =
            fields.filter(|(_, found)| found.is_ok_and(|text| Self::cut(text).len() < text.len()));
        too_long.map(|(name, _)| name).collect()
    }

    /// Returns the first [`Signature::MAX_CHARACTERS`] of a text.
    pub fn cut(text: &str) -> &str {
        if text.len() <= Self::MAX_CHARACTERS {
            return text;
        }
        let end = text.char_indices().nth(Self::MAX_CHARACTERS);
        end.map_or(text, |(end, _)| &text[..end])
    }

    /// Reads the identifying fields by their names and aliases. `lookup` returns a field's text, or
    /// the name of another JSON type.
    ///
    /// # Errors
    /// Fails as [`Signature::from_fields`] does.
    pub fn from_lookup<'a>(
        lookup: impl Fn(&'static str) -> Option<Result<&'a str, &'static str>>,
    ) -> Result<Self, InvalidSignature> {
        Self::of_values(Self::values_from(lookup)?.map(str::to_owned))
    }

    /// Reads the values of the identifying fields as [`Signature::from_lookup`] does. They are in
    /// the order of [`Signature::FIELDS`], and may all be empty.
    ///
    /// # Errors
    /// Fails if one of them is not a string.
    pub fn values_from<'a>(
        lookup: impl Fn(&'static str) -> Option<Result<&'a str, &'static str>>,
    ) -> Result<[&'a str; 4], InvalidSignature> {
        let read = |(name, alias): (&'static str, Option<&'static str>)| {
            // If both are present, the name counts, even if its value is empty.
            let mut names = std::iter::once(name).chain(alias);
            let Some((field, found)) =
                names.find_map(|name| lookup(name).map(|found| (name, found)))
            else {
                return Ok("");
            };
            let not_a_string = |found| InvalidSignature::NotAString { field, found };
            found.map_err(not_a_string)
        };
        Ok([read(ALERT_NAME)?, read(SERVICE)?, read(NAMESPACE)?, read(ERROR_TYPE)?])
    }

    /// Creates a signature from the values of the identifying fields, in the order of
    /// [`Signature::FIELDS`].
    ///
    /// # Errors
    /// Fails if all are empty.
    pub fn of_values(values: [String; 4]) -> Result<Self, InvalidSignature> {
        if values.iter().all(String::is_empty) {
            return Err(InvalidSignature::Empty);
        }
        let [alert_name, service, namespace, error_type] = values;
        Ok(Self { alert_name, service, namespace, error_type })
    }

    /// Returns true for the name or the alias of an identifying field.
    pub fn is_identifying(name: &str) -> bool {
        Self::FIELDS.iter().any(|(field, alias)| *field == name || *alias == Some(name))
    }

    /// Returns the four fields with their canonical names.
    pub fn named_fields(&self) -> [(&'static str, &str); 4] {
        [
            (ALERT_NAME.0, &self.alert_name),
            (SERVICE.0, &self.service),
            (NAMESPACE.0, &self.namespace),
            (ERROR_TYPE.0, &self.error_type),
        ]
    }

    /// Returns the `fields` that do not identify the anomaly.
    pub fn other_fields(fields: &Map<String, Value>) -> Map<String, Value> {
        let identifying: Vec<&str> =
            Self::FIELDS.into_iter().filter_map(|names| present(fields, names)).collect();
        fields
            .iter()
            .filter(|(name, _)| !identifying.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// Returns the text that is hashed: the output of Python's
    /// `json.dumps(fields, sort_keys=True)`.
    pub fn canonical_json(&self) -> String {
        let mut json = String::new();
        canonical_pieces(self.values(), |piece| json.push_str(piece));
        json
    }

    /// Returns the anomaly's key: the first eight bytes of the SHA-256 of the canonical form.
    pub fn key(&self) -> AnomalyKey {
        key_of(self.values())
    }

    fn values(&self) -> [&str; 4] {
        self.named_fields().map(|(_, value)| value)
    }
}

/// Passes the canonical form to `take` in pieces. `values` are in the order of
/// [`Signature::FIELDS`].
fn canonical_pieces(values: [&str; 4], mut take: impl FnMut(&str)) {
    let [alert_name, service, namespace, error_type] = values;
    let sorted = [
        ("{\"alert_name\": \"", alert_name),
        ("\", \"error_type\": \"", error_type),
        ("\", \"namespace\": \"", namespace),
        ("\", \"service\": \"", service),
    ];
    for (lead, value) in sorted {
        take(lead);
        if value.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
            // Nearly all values need no escapes, and are passed without a copy.
            take(value);
        } else {
            let mut escaped = String::with_capacity(2 * value.len());
            push_escaped(&mut escaped, value);
            take(&escaped);
        }
    }
    take("\"}");
}

fn key_of(values: [&str; 4]) -> AnomalyKey {
    let mut hash = Sha256::new();
    canonical_pieces(values, |piece| hash.update(piece));
    let digest = hash.finalize();
    let mut head = [0; 8];
    head.copy_from_slice(&digest[..8]);
    AnomalyKey::from_bits(u64::from_be_bytes(head))
}

/// Returns the name under which a field was posted: the canonical one wins, even if its value is
/// empty.
fn present(
    fields: &Map<String, Value>,
    (name, alias): (&'static str, Option<&'static str>),
) -> Option<&'static str> {
    std::iter::once(name).chain(alias).find(|name| fields.contains_key(*name))
}

/// Returns the type of a JSON value with its article: "a number".
pub fn json_type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Escapes everything except printable ASCII, as Python's `ensure_ascii` does (DEL is escaped, `/`
/// is not).
fn push_escaped(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a String cannot fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
}
