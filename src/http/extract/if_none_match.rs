//! The header `If-None-Match` (RFC 9110, 13.1.2): the answers that the caller has.

use std::convert::Infallible;

use axum::{
    extract::FromRequestParts,
    http::{HeaderValue, header::IF_NONE_MATCH, request::Parts},
};

/// The entity tags of the header.
#[derive(Debug)]
pub(in crate::http) struct IfNoneMatch(Vec<HeaderValue>);

impl IfNoneMatch {
    /// Returns true if the caller has the answer with this tag, which is a weak one.
    pub(in crate::http) fn has(&self, tag: &str) -> bool {
        let lists = self.0.iter().filter_map(|list| list.to_str().ok());
        // Our own tags have no commas.
        let mut tags = lists.flat_map(|list| list.split(',')).map(opaque);
        tags.any(|had| had == "*" || had == opaque(tag))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.headers.get_all(IF_NONE_MATCH).iter().cloned().collect()))
    }
}

/// Returns a tag without the sign of a weak one.
fn opaque(tag: &str) -> &str {
    tag.trim().trim_start_matches("W/")
}
