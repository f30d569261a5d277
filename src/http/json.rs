//! JSON in answers: it ends with a newline, so that a shell's prompt is on a line of its own.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// A body of JSON.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

/// Initial capacity of an answer; most are shorter.
const USUAL_BYTES: usize = 512;

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let mut text = Vec::with_capacity(USUAL_BYTES);
        if let Err(error) = serde_json::to_writer(&mut text, &self.0) {
            // Only of a map whose keys are no texts, which no answer has.
            tracing::error!(%error, "a response can't be written as JSON");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
        text.push(b'\n');
        let mut response = Response::new(Body::from(text));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}
