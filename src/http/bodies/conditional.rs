//! Answers for clients that poll: an entity tag saves sending an unchanged answer again.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{
    domain::Timestamp,
    http::{extract::IfNoneMatch, json::Json},
};

/// A body with the time of its figures, which changes even if nothing else does.
pub(in crate::http) trait Dated: Serialize {
    /// Sets the time.
    fn set_as_of(&mut self, as_of: Timestamp);
}

/// Returns the answer with the entity tag of all but its time; 304 with the tag if the caller has
/// it.
pub(in crate::http) fn conditional(
    has: &IfNoneMatch,
    mut undated: impl Dated,
    as_of: Timestamp,
) -> Response {
    // Every answer has a JSON form.
    let essence = serde_json::to_vec(&undated).unwrap_or_default();
    let digest = Sha256::digest(essence);
    let digits: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("W/\"{digits}\"");
    let mut response = if has.has(&tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        undated.set_as_of(as_of);
        Json(undated).into_response()
    };
    let headers = response.headers_mut();
    headers.extend(HeaderValue::try_from(tag).ok().map(|tag| (header::ETAG, tag)));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    response
}
