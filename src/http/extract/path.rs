//! Reads the parameters of a path.

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};

use crate::{
    domain::AnomalyKey,
    http::problem::{Problem, ProblemKind},
};

/// `{key}` of a path.
#[derive(Debug)]
pub(in crate::http) struct KeyPath(pub(in crate::http) AnomalyKey);

/// `{key}` and `{action}` of a path.
#[derive(Debug)]
pub(in crate::http) struct ActionPath(pub(in crate::http) AnomalyKey, pub(in crate::http) String);

/// The only parameter of a path, as text.
#[derive(Debug)]
pub(in crate::http) struct TextPath(pub(in crate::http) String);

impl<S: Send + Sync> FromRequestParts<S> for KeyPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(key) = path.map_err(|_| not_utf8())?;
        parse_key(&key).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ActionPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((key, action)) = path.map_err(|_| not_utf8())?;
        Ok(Self(parse_key(&key)?, action))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for TextPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(text)| Self(text)).map_err(|_| {
            let detail = "nothing has a path that, percent-decoded, is not UTF-8";
            Problem::new(ProblemKind::UnknownRoute, detail)
        })
    }
}

/// Reads a key from a path or a field.
pub(in crate::http) fn parse_key(text: &str) -> Result<AnomalyKey, Problem> {
    text.parse().map_err(|error| Problem::invalid_key(text, &error))
}

fn not_utf8() -> Problem {
    Problem::new(ProblemKind::InvalidKey, "the path, percent-decoded, must be UTF-8")
}
