//! Reads bodies: within their limits, and JSON of the right type, valid UTF-8, well-formed.

use std::{pin::pin, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;

use super::{
    AppState, HttpConfig,
    problem::{Problem, ProblemKind},
};

use crate::auth::SignedDelivery;

/// What is read on of a body that is too large, so that its sender gets to read the
/// answer instead of a reset connection.
const DRAIN_BYTES: usize = 32 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Takes in the whole body of a request.
///
/// # Errors
/// When it is too large, too slow, or breaks off.
pub(super) async fn buffered(request: Request, http: HttpConfig) -> Result<Request, Problem> {
    let mut read = pin!(read(request, http.max_body_bytes.get()));
    // Most bodies have come with the head, and need no timer.
    if let Some(request) = read.as_mut().now_or_never() {
        return request;
    }
    let patience = Duration::from_secs(http.body_timeout_seconds.get().into());
    tokio::time::timeout(patience, read).await.map_err(|_| too_slow(patience))?
}

/// The JSON value of a request's body.
#[derive(Debug)]
pub(super) struct JsonBody(pub(super) Value);

impl FromRequest<AppState> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        check_content_type(request.headers())?;
        let signed = request.extensions().get::<SignedDelivery>().cloned();
        // It is in memory already.
        let collected = request.into_body().collect().await.map_err(|_| broken_off())?;
        let bytes = collected.to_bytes();
        if signed.is_some_and(|signed| !signed.matches(state.counter.now(), &bytes)) {
            return Err(state.gate.refuse_delivery().into());
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

async fn read(request: Request, max_body_bytes: usize) -> Result<Request, Problem> {
    let too_large = || {
        Problem::new(
            ProblemKind::ContentTooLarge,
            format!(
                "the body is larger than {max_body_bytes} bytes: send it in parts, or raise \
                 http.max_body_bytes"
            ),
        )
    };
    let (parts, mut body) = request.into_parts();
    // Who asks before sending is told before sending.
    let asks_first = parts.headers.contains_key(header::EXPECT);
    if asks_first && announced_length(&parts.headers).is_some_and(|n| n > max_body_bytes) {
        return Err(too_large());
    }
    match Limited::new(&mut body, max_body_bytes).collect().await {
        Ok(collected) => Ok(Request::from_parts(parts, Body::from(collected.to_bytes()))),
        Err(error) if error.is::<LengthLimitError>() => {
            // Whether the rest came in time makes no difference to the answer.
            let _ = tokio::time::timeout(DRAIN_TIME, drain(body)).await;
            Err(too_large())
        }
        Err(_) => Err(broken_off()),
    }
}

fn broken_off() -> Problem {
    let detail = "the body broke off before its end: send it whole";
    Problem::new(ProblemKind::InvalidJson, detail)
}

fn announced_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_slow(patience: Duration) -> Problem {
    let seconds = patience.as_secs();
    Problem::new(
        ProblemKind::RequestTimeout,
        format!("the body did not come within {seconds} s: send it again, in smaller parts"),
    )
}

async fn drain(mut body: Body) {
    let mut drained = 0;
    while drained < DRAIN_BYTES
        && let Some(Ok(frame)) = body.frame().await
    {
        drained += frame.data_ref().map_or(0, Bytes::len);
    }
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
