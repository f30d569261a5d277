//! Reads the parts of a path that name an anomaly, an action or something else.

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};

use super::{
    fields::parse_key,
    problem::{Problem, ProblemKind},
};
use crate::domain::AnomalyKey;

/// `{key}` of a path.
#[derive(Debug)]
pub(super) struct KeyPath(pub(super) AnomalyKey);

/// `{key}` and `{action}` of a path.
#[derive(Debug)]
pub(super) struct ActionPath(pub(super) AnomalyKey, pub(super) String);

/// The one part of a path, whatever it names.
#[derive(Debug)]
pub(super) struct TextPath(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for KeyPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(key) = path.map_err(|_| not_text())?;
        parse_key(&key).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ActionPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((key, action)) = path.map_err(|_| not_text())?;
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

fn not_text() -> Problem {
    Problem::new(ProblemKind::InvalidKey, "the path, percent-decoded, must be UTF-8")
}
