//! Reads bodies: JSON, declared as such, valid UTF-8, well-formed.

use axum::{
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
};
use http_body_util::{BodyExt as _, Collected};
use serde_json::Value;

use super::{
    AppState,
    problem::{Problem, ProblemKind},
};
use crate::auth::SignedDelivery;

/// The JSON value of a request's body.
#[derive(Debug)]
pub(super) struct JsonBody(pub(super) Value);

impl FromRequest<AppState> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        check_content_type(request.headers())?;
        let signed = request.extensions().get::<SignedDelivery>().cloned();
        // It is in memory already.
        let collected = request.into_body().collect().await;
        let bytes = collected.map(Collected::to_bytes).unwrap_or_default();
        if signed.is_some_and(|signed| !signed.matches(state.counter.now(), &bytes)) {
            return Err(state.authenticator.refuse_delivery().into());
        }
        parse(&bytes).map(Self)
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

pub(super) fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        Problem::new(
            ProblemKind::InvalidJson,
            format!("the body is not UTF-8: byte {} can't be read", error.valid_up_to() + 1),
        )
    })?;
    serde_json::from_str(text).map_err(|error| {
        Problem::new(ProblemKind::InvalidJson, format!("the body can't be read as JSON: {error}"))
            .at_place(error.line(), error.column())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_to_its_last_digit() {
        // One that serde_json reads otherwise without its feature `float_roundtrip`.
        let text = "98349.74407370955";
        assert_eq!(parse(text.as_bytes()).unwrap().to_string(), text);
    }
}
