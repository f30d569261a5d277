//! Reads bodies: declared as JSON, valid UTF-8, well-formed.

use std::borrow::Cow;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use bytes::Bytes;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::fields::read_object;
use crate::http::{
    problem::{Problem, ProblemKind},
    state::RequestState,
};

/// A body that is declared as JSON. It is not parsed yet.
#[derive(Debug)]
pub(in crate::http) struct JsonText(Bytes);

impl JsonText {
    /// Returns the body's text.
    pub(in crate::http) fn as_str(&self) -> Result<&str, Problem> {
        text(&self.0)
    }
}

impl FromRequestParts<RequestState> for JsonText {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Parts, request: &RequestState) -> Result<Self, Problem> {
        check_content_type(&head.headers, is_json)?;
        check_encoding(&head.headers)?;
        Ok(Self(request.body.clone()))
    }
}

/// A body that is a delivery of alerts. It is not parsed yet.
#[derive(Debug)]
pub(in crate::http) struct DeliveryText(Bytes);

impl DeliveryText {
    /// Returns the length in bytes.
    pub(in crate::http) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the body's text, in which U+FFFD replaces what no text can hold.
    pub(in crate::http) fn text(&self) -> Cow<'_, str> {
        delivery_text(&self.0)
    }
}

impl FromRequestParts<RequestState> for DeliveryText {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Parts, request: &RequestState) -> Result<Self, Problem> {
        // Relays of deliveries send JSON under these types too.
        check_content_type(&head.headers, |media_type| {
            is_json(media_type) || ["text/plain", "text/json"].contains(&media_type)
        })?;
        check_encoding(&head.headers)?;
        let RequestState { app, caller, signed, body, .. } = request;
        if signed.as_ref().is_some_and(|signed| !signed.matches(app.counter.now(), body)) {
            return Err(app.authenticator.refuse_delivery(caller).into());
        }
        Ok(Self(body.clone()))
    }
}

/// A type that is read from a body's JSON object.
pub(in crate::http) trait RequestBody: DeserializeOwned {
    /// The noun for problems, with its article: "a repair".
    const NOUN: &'static str;
}

/// A body that is a JSON object of named fields.
#[derive(Debug)]
pub(in crate::http) struct JsonBody<T>(pub(in crate::http) T);

impl<T: RequestBody> FromRequestParts<RequestState> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Parts, request: &RequestState) -> Result<Self, Problem> {
        let text = JsonText::from_request_parts(head, request).await?;
        read_object(T::NOUN, parse(text.as_str()?)?).map(Self)
    }
}

/// Like [`JsonBody`], for a body that may be left out; `null` is the same as none.
#[derive(Debug)]
pub(in crate::http) struct OptionalJsonBody<T>(pub(in crate::http) T);

impl<T: RequestBody + Default> FromRequestParts<RequestState> for OptionalJsonBody<T> {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Parts, request: &RequestState) -> Result<Self, Problem> {
        if request.body.is_empty() {
            return Ok(Self(T::default()));
        }
        let text = JsonText::from_request_parts(head, request).await?;
        match parse(text.as_str()?)? {
            Value::Null => Ok(Self(T::default())),
            value => read_object(T::NOUN, value).map(Self),
        }
    }
}

/// Maximum length of a header's value in a problem.
const SHOWN_CHARS: usize = 100;

/// Checks the content type. `is_accepted` receives the media type in lower case.
fn check_content_type(
    headers: &HeaderMap,
    is_accepted: impl Fn(&str) -> bool,
) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    // Nearly all values are accepted here, without a copy.
    if given.is_some_and(&is_accepted) {
        return Ok(());
    }
    let media_type = given.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if is_accepted(&media_type.to_ascii_lowercase()) {
        return Ok(());
    }
    let shown = |given: &str| given.chars().take(SHOWN_CHARS).collect::<String>();
    let found = given.map_or_else(|| "none".to_owned(), |given| format!("`{}`", shown(given)));
    Err(Problem::new(
        ProblemKind::UnsupportedMediaType,
        format!(
            "send the header `Content-Type: application/json` (with curl: --json); the request \
             had {found}"
        ),
    ))
}

fn is_json(media_type: &str) -> bool {
    media_type == "application/json"
        || media_type.starts_with("application/") && media_type.ends_with("+json")
}

fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    for coding in headers.get_all(header::CONTENT_ENCODING) {
        let coding = coding.to_str().unwrap_or_default();
        if !coding.trim().is_empty() && !coding.trim().eq_ignore_ascii_case("identity") {
            let coding: String = coding.chars().take(SHOWN_CHARS).collect();
            let detail = format!(
                "the body is compressed (`Content-Encoding: {coding}`), which is not supported: \
                 send it uncompressed, without this header"
            );
            return Err(Problem::new(ProblemKind::UnsupportedMediaType, detail));
        }
    }
    Ok(())
}

const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Returns the text of a body, without a byte order mark.
fn text(bytes: &[u8]) -> Result<&str, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        Problem::new(
            ProblemKind::InvalidJson,
            format!("the body is not UTF-8: byte {} can't be read", error.valid_up_to() + 1),
        )
    })?;
    Ok(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text))
}

/// Returns the text of a delivery, without a byte order mark. U+FFFD replaces what is not UTF-8,
/// and halves of surrogate pairs, so that one odd byte does not fail the alerts of a whole group.
pub(in crate::http) fn delivery_text(bytes: &[u8]) -> Cow<'_, str> {
    let without_mark = bytes.strip_prefix(BYTE_ORDER_MARK.as_bytes()).unwrap_or(bytes);
    without_lone_surrogates(String::from_utf8_lossy(without_mark))
}

/// Replaces the escapes of halves of surrogate pairs by that of U+FFFD, which is as long.
fn without_lone_surrogates(text: Cow<'_, str>) -> Cow<'_, str> {
    if !text.contains("\\ud") && !text.contains("\\uD") {
        return text;
    }
    let mut bytes = text.into_owned().into_bytes();
    let mut at = 0;
    while let Some(distance) = bytes[at..].iter().position(|byte| *byte == b'\\') {
        at += distance;
        let is_pair = matches!(escaped_unit(&bytes[at..]), Some(0xd800..=0xdbff))
            && matches!(escaped_unit(&bytes[at + 6..]), Some(0xdc00..=0xdfff));
        at += match escaped_unit(&bytes[at..]) {
            Some(0xd800..=0xdfff) if is_pair => 12,
            Some(0xd800..=0xdfff) => {
                bytes[at..at + 6].copy_from_slice(b"\\ufffd");
                6
            }
            Some(_) => 6,
            None => 2,
        };
        at = at.min(bytes.len());
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}

/// Returns the UTF-16 code unit of the escape that `bytes` begins with, if any.
fn escaped_unit(bytes: &[u8]) -> Option<u16> {
    let digits = std::str::from_utf8(bytes.strip_prefix(b"\\u")?.get(..4)?).ok()?;
    u16::from_str_radix(digits, 16).ok()
}

/// Parses the whole of a body.
pub(in crate::http) fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Problem> {
    serde_json::from_str(text).map_err(|error| {
        let detail = match text.trim_ascii() {
            "" => "the body is empty: send the JSON that /docs describes for this call".to_owned(),
            _ => format!("the body can't be read as JSON: {error}"),
        };
        Problem::new(ProblemKind::InvalidJson, detail).at_position(error.line(), error.column())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_to_its_last_digit() {
        // Without its feature `float_roundtrip`, serde_json reads another number.
        let text = "98349.74407370955";
        assert_eq!(parse::<Value>(text).unwrap().to_string(), text);
    }

    #[test]
    fn halves_of_surrogate_pairs_become_replacement_characters() {
        for (sent, read) in [
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            (r#""\ud83d""#, r#""\ufffd""#),
            (r#""\uDC00x\uD83D\u0041""#, r#""\ufffdx\ufffd\u0041""#),
            (r#""\ude00\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            // An escaped backslash, and escapes that are broken.
            (r#""\\ud83d""#, r#""\\ud83d""#),
            (r#""\ud83"#, r#""\ud83"#),
            (r"\ud", r"\ud"),
        ] {
            assert_eq!(delivery_text(sent.as_bytes()), read);
        }
        assert_eq!(delivery_text(b"\xef\xbb\xbf\"caf\xe9\""), "\"caf\u{fffd}\"");
    }

    #[test]
    fn text_that_is_not_utf8_names_the_byte() {
        let problem = text(b"{\"alert_name\":\"caf\xe9\"}").unwrap_err();
        assert!(problem.to_string().contains("byte 19"), "{problem}");
    }
}
