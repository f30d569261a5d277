//! Marks every response while the store does not answer.

use axum::{http::HeaderValue, response::Response};

use crate::{counter::Counter, http::headers::X_DEGRADED};

/// Names the store that does not answer, if any, in a header. It only reads the state.
pub(super) fn mark_degraded(counter: &Counter, mut response: Response) -> Response {
    if let Some(store) = counter.degraded_store() {
        response.headers_mut().insert(X_DEGRADED, HeaderValue::from_static(store));
    }
    response
}
