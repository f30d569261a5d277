//! The canonical form and the key, byte for byte: deployments hold years of such keys.

use anomaly_counter::domain::Signature;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

fn signature(value: Value) -> Signature {
    let Value::Object(fields) = value else { panic!("no object: {value}") };
    Signature::from_fields(&fields).unwrap()
}

#[test]
fn every_vector_gives_its_key() {
    let vectors: Vec<Value> =
        serde_json::from_str(include_str!("data/signature_keys.json")).unwrap();
    assert!(vectors.len() >= 19, "the vectors are not all there");
    for vector in vectors {
        let key = signature(vector["signature"].clone()).key().to_string();
        assert_eq!(key, vector["key"], "{}", vector["case"]);
    }
}

/// Builds the canonical form in another way: from UTF-16 code units, literally as in the contract.
fn independent_form(fields: &[(&str, &str)]) -> String {
    let mut sorted = fields.to_vec();
    sorted.sort();
    let members: Vec<String> = sorted
        .into_iter()
        .map(|(name, value)| {
            let escaped: String = value
                .encode_utf16()
                .map(|unit| match unit {
                    0x22 => r#"\""#.to_owned(),
                    0x5c => r"\\".to_owned(),
                    0x08 => r"\b".to_owned(),
                    0x09 => r"\t".to_owned(),
                    0x0a => r"\n".to_owned(),
                    0x0c => r"\f".to_owned(),
                    0x0d => r"\r".to_owned(),
                    0x20..=0x7e => char::from(unit as u8).to_string(),
                    _ => format!(r"\u{unit:04x}"),
                })
                .collect();
            format!(r#""{name}": "{escaped}""#)
        })
        .collect();
    format!("{{{}}}", members.join(", "))
}

proptest! {
    #[test]
    fn the_canonical_form_is_that_of_the_contract(
        alert_name in any::<String>(),
        service in any::<String>(),
        namespace in "\\PC*",
        error_type in "[\u{0}-\u{ff}]*",
    ) {
        let values = [&alert_name, &service, &namespace, &error_type];
        prop_assume!(values.iter().any(|value| !value.is_empty()));
        let parsed = signature(json!({
            "alert_name": alert_name,
            "service": service,
            "namespace": namespace,
            "error_type": error_type,
        }));
        let expected = independent_form(&[
            ("alert_name", &alert_name),
            ("service", &service),
            ("namespace", &namespace),
            ("error_type", &error_type),
        ]);
        prop_assert_eq!(parsed.canonical_json(), expected.clone());
        prop_assert!(expected.is_ascii());
        let back: Value = serde_json::from_str(&expected).unwrap();
        prop_assert_eq!(back["alert_name"].as_str(), Some(alert_name.as_str()));

        let digest = Sha256::digest(&expected);
        let key: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        prop_assert_eq!(parsed.key().to_string(), key);
    }
}

#[test]
fn an_alias_that_does_not_identify_is_metadata() {
    let Value::Object(fields) =
        json!({"alert_name": "A", "alertname": "B", "job": "s", "pod": "p"})
    else {
        unreachable!()
    };
    let other = Signature::other_fields(&fields);
    assert_eq!(Value::Object(other), json!({"alertname": "B", "pod": "p"}));
    assert_eq!(Signature::other_fields(&Map::new()), Map::new());
}
