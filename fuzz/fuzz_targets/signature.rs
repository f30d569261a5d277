//! Reads any object as an anomaly's signature: the canonical form is printable ASCII that reads
//! back as the same four fields, and an alias is used only if the canonical name is absent.
#![no_main]

use anomaly_counter::domain::{AnomalyKey, InvalidSignature, Signature};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

const FIELDS: [(&str, &str); 4] = [
    ("alert_name", "alertname"),
    ("service", "job"),
    ("namespace", "namespace"),
    ("error_type", "reason"),
];

/// Returns the identifying fields, each with the name under which it was posted.
fn identifying(posted: &Map<String, Value>) -> [(&'static str, Option<&Value>); 4] {
    FIELDS.map(|(name, alias)| match posted.get(name) {
        Some(value) => (name, Some(value)),
        None => (alias, posted.get(alias)),
    })
}

fn check_accepted(posted: &Map<String, Value>, signature: &Signature) {
    for ((_, read), (_, value)) in signature.named_fields().into_iter().zip(identifying(posted)) {
        assert_eq!(read, value.map_or("", |value| value.as_str().expect("a string")));
    }

    let canonical = signature.canonical_json();
    assert!(canonical.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{canonical:?}");
    let back: Map<String, Value> = serde_json::from_str(&canonical).expect("it is JSON");
    let names: Vec<&str> = back.keys().map(String::as_str).collect();
    assert_eq!(names, ["alert_name", "error_type", "namespace", "service"]);
    assert_eq!(Signature::from_fields(&back).as_ref(), Ok(signature));

    let key = signature.key().to_string();
    assert!(key.len() == 16 && key.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
    assert_eq!(key.parse::<AnomalyKey>(), Ok(signature.key()));
}

fn check_refused(posted: &Map<String, Value>, error: InvalidSignature) {
    let mut given = identifying(posted).into_iter();
    match error {
        InvalidSignature::NotAString { field, .. } => {
            assert!(
                given.any(|(name, value)| name == field && !value.expect("posted").is_string())
            );
        }
        InvalidSignature::TooLong { field } => {
            let is_long = |value: &Value| {
                value.as_str().is_some_and(|text| text.chars().count() > Signature::MAX_CHARACTERS)
            };
            assert!(given.any(|(name, value)| name == field && value.is_some_and(is_long)));
        }
        InvalidSignature::Empty => {
            assert!(given.all(|(_, value)| value.is_none_or(|value| value == "")));
        }
    }
}

/// Checks that each field either identifies the anomaly or is among its other fields.
fn check_others(posted: &Map<String, Value>) {
    let others = Signature::other_fields(posted);
    let identifying: Vec<&str> = identifying(posted).map(|(name, _)| name).to_vec();
    for (name, value) in posted {
        let expected = (!identifying.contains(&name.as_str())).then_some(value);
        assert_eq!(others.get(name), expected, "{name:?}");
    }
    assert!(others.len() <= posted.len());
}

fuzz_target!(|body: &[u8]| {
    let Ok(posted) = serde_json::from_slice::<Map<String, Value>>(body) else { return };
    match Signature::from_fields(&posted) {
        Ok(signature) => check_accepted(&posted, &signature),
        Err(error) => check_refused(&posted, error),
    }
    check_others(&posted);
});
