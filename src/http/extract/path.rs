//! Reads the parameters of a path.

use axum::{extract::FromRequestParts, http::request::Parts};

use crate::{
    domain::{Action, AnomalyKey},
    http::{
        problem::{Problem, ProblemKind},
        state::RequestState,
    },
};

/// The parameter `{key}` of a path.
#[derive(Debug)]
pub(in crate::http) struct KeyPath(pub(in crate::http) AnomalyKey);

/// The parameters `{key}` and `{action}` of a path.
#[derive(Debug)]
pub(in crate::http) struct ActionPath(pub(in crate::http) AnomalyKey, pub(in crate::http) Action);

/// The only parameter of a path, as text.
#[derive(Debug)]
pub(in crate::http) struct TextPath(pub(in crate::http) String);

/// Returns the parameter at `index`; `None` if it is not UTF-8.
fn value(request: &RequestState, index: usize) -> Option<&str> {
    request.path_values.get(index)?.as_deref()
}

impl FromRequestParts<RequestState> for KeyPath {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, request: &RequestState) -> Result<Self, Problem> {
        parse_key(value(request, 0).ok_or_else(no_key)?).map(Self)
    }
}

impl FromRequestParts<RequestState> for ActionPath {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, request: &RequestState) -> Result<Self, Problem> {
        let key = parse_key(value(request, 0).ok_or_else(no_key)?)?;
        let action = Action::parse(value(request, 1).ok_or_else(no_route)?);
        Ok(Self(key, action.map_err(|error| Problem::field("action", error))?))
    }
}

impl FromRequestParts<RequestState> for TextPath {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, request: &RequestState) -> Result<Self, Problem> {
        Ok(Self(value(request, 0).ok_or_else(no_route)?.to_owned()))
    }
}

/// Reads a key from a path or a field.
pub(in crate::http) fn parse_key(text: &str) -> Result<AnomalyKey, Problem> {
    text.parse().map_err(|error| Problem::invalid_key(text, &error))
}

fn no_key() -> Problem {
    Problem::new(ProblemKind::InvalidKey, "the path, percent-decoded, must be UTF-8")
}

fn no_route() -> Problem {
    let detail = "the path does not exist, because it is not UTF-8 when percent-decoded";
    Problem::new(ProblemKind::UnknownRoute, detail)
}
