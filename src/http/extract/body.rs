//! Reads bodies: declared as JSON, valid UTF-8, well-formed.

use axum::{
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Collected};
use serde::{Deserialize, de::DeserializeOwned};

use super::fields::read_object;
use crate::{
    auth::{Caller, SignedDelivery},
    http::{
        problem::{Problem, ProblemKind},
        state::AppState,
    },
};

/// A body that is declared as JSON. It is not parsed yet.
#[derive(Debug)]
pub(in crate::http) struct JsonText(Bytes);

impl JsonText {
    /// The length in bytes.
    pub(in crate::http) fn len(&self) -> usize {
        self.0.len()
    }

    /// The body's text.
    pub(in crate::http) fn as_str(&self) -> Result<&str, Problem> {
        text(&self.0)
    }
}

impl FromRequest<AppState> for JsonText {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        check_content_type(request.headers())?;
        let signed = request.extensions().get::<SignedDelivery>().cloned();
        let caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
        // It is in memory already.
        let collected = request.into_body().collect().await;
        let bytes = collected.map(Collected::to_bytes).unwrap_or_default();
        if signed.is_some_and(|signed| !signed.matches(state.counter.now(), &bytes)) {
            return Err(state.authenticator.refuse_delivery(&caller).into());
        }
        Ok(Self(bytes))
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

impl<T: RequestBody> FromRequest<AppState> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        let text = JsonText::from_request(request, state).await?;
        read_object(T::NOUN, parse(text.as_str()?)?).map(Self)
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = given.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let is_json = media_type.eq_ignore_ascii_case("application/json")
        || (media_type.to_ascii_lowercase().starts_with("application/")
            && media_type.to_ascii_lowercase().ends_with("+json"));
    if is_json {
        return Ok(());
    }
    let found = given.map_or_else(|| "none".to_owned(), |given| format!("`{given}`"));
    Err(Problem::new(
        ProblemKind::UnsupportedMediaType,
        format!(
            "send the header `Content-Type: application/json` (with curl: --json); the request \
             had {found}"
        ),
    ))
}

pub(in crate::http) fn text(bytes: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(bytes).map_err(|error| {
        Problem::new(
            ProblemKind::InvalidJson,
            format!("the body is not UTF-8: byte {} can't be read", error.valid_up_to() + 1),
        )
    })
}

/// Parses the whole of a body.
pub(in crate::http) fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Problem> {
    serde_json::from_str(text).map_err(|error| {
        Problem::new(ProblemKind::InvalidJson, format!("the body can't be read as JSON: {error}"))
            .at_position(error.line(), error.column())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_number_is_read_to_its_last_digit() {
        // serde_json reads it otherwise without its feature `float_roundtrip`.
        let text = "98349.74407370955";
        assert_eq!(parse::<Value>(text).unwrap().to_string(), text);
    }

    #[test]
    fn text_that_is_not_utf8_names_the_byte() {
        let problem = text(b"{\"alert_name\":\"caf\xe9\"}").unwrap_err();
        assert!(problem.to_string().contains("byte 19"), "{problem}");
    }
}
