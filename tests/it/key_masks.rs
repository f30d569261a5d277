//! Masks against models that go through a text word by word, or letter by letter.

use std::ops::RangeInclusive;

use anomaly_counter::domain::{KeyMapping, PostedTo};
use proptest::prelude::*;
use serde_json::json;

use crate::key_properties::{ALPHABET, any_text, is_made_of, mapped, mapping};

/// Splits a text into runs of letters and digits, and the text between them.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for c in text.chars() {
        let goes_on =
            |word: &&mut String| c.is_alphanumeric() && word.chars().all(char::is_alphanumeric);
        match words.last_mut().filter(goes_on) {
            Some(word) => word.push(c),
            None => words.push(c.to_string()),
        }
    }
    words
}

fn is_decimal(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit())
}

fn is_hex(text: &str, lengths: RangeInclusive<usize>) -> bool {
    lengths.contains(&text.len()) && text.chars().all(|c| c.is_ascii_hexdigit())
}

/// Applies a mask other than `ip`, word by word.
fn model_of_mask(mask: &str, text: &str) -> String {
    let words = words(text);
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    let mut masked = String::new();
    let mut at = 0;
    while at < words.len() {
        let (found, length) = match mask {
            "hex" => {
                let digits = word(at).trim_start_matches("0x").trim_start_matches("0X");
                let is_prefixed = word(at).len() == digits.len() + 2;
                let is_found = (is_prefixed || word(at) == digits)
                    && is_hex(digits, 8..=usize::MAX)
                    && word(at).contains(|c: char| c.is_ascii_digit());
                (is_found, 1)
            }
            "number" if is_decimal(word(at)) => {
                let goes_on =
                    word(at + 1) == "." && word(at + 2).starts_with(|c: char| c.is_ascii_digit());
                match (goes_on, is_decimal(word(at + 2))) {
                    (true, true) => (true, 3),
                    (true, false) => (false, 3),
                    (false, _) => (true, 1),
                }
            }
            _ => (false, 1),
        };
        if found {
            masked += &format!("<{mask}>");
        } else {
            masked.extend(words[at..(at + length).min(words.len())].iter().map(String::as_str));
        }
        at += length;
    }
    masked
}

fn model_of_uuids(text: &str) -> String {
    let mut masked = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_uuid = rest.get(..36).is_some_and(|uuid| {
            let groups: Vec<&str> = uuid.split('-').collect();
            let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
            lengths == [8, 4, 4, 4, 12] && groups.iter().all(|group| is_hex(group, 1..=12))
        });
        let length = if is_uuid { 36 } else { first.len_utf8() };
        masked += if is_uuid { "<uuid>" } else { &rest[..length] };
        rest = &rest[length..];
    }
    masked
}

fn model_of_hash(text: &str) -> String {
    let parts: Vec<&str> = text.split('-').collect();
    let kept = match parts.as_slice() {
        [rest @ .., hash, end]
            if !rest.is_empty()
                && is_made_of(hash, ALPHABET, 8..=10)
                && is_made_of(end, ALPHABET, 5..=5) =>
        {
            rest
        }
        [rest @ .., end]
            if !rest.is_empty()
                && is_made_of(end, ALPHABET, 5..=5)
                && end.contains(|c: char| c.is_ascii_digit()) =>
        {
            rest
        }
        _ => return text.to_owned(),
    };
    kept.join("-") + "-<pod_hash>"
}

/// Returns the text of a field with these masks.
fn masked(keys: &KeyMapping, text: &str) -> String {
    let labels = [("alert_name", "A"), ("error_type", text)];
    let labels = labels.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
    mapped(keys, PostedTo::Anomalies, &labels).unwrap()[3].clone()
}

proptest! {
    #[test]
    fn a_mask_replaces_what_the_documents_say(text in any_text()) {
        for (mask, expected) in [
            ("uuid", model_of_uuids(&text)),
            ("pod_hash", model_of_hash(&text)),
            ("hex", model_of_mask("hex", &text)),
            ("number", model_of_mask("number", &text)),
        ] {
            let keys = mapping(&json!({"mask": {"error_type": [mask]}}), true);
            prop_assert_eq!(masked(&keys, &text), expected, "{}", mask);
        }
    }

    #[test]
    fn masks_find_nothing_in_what_they_have_left(
        text in any_text(),
        names in prop::sample::subsequence(vec!["uuid", "ip", "pod_hash", "hex", "number"], 1..=5),
    ) {
        let keys = mapping(&json!({"mask": {"error_type": names}}), true);
        let once = masked(&keys, &text);
        prop_assert_eq!(masked(&keys, &once), once);
    }
}
