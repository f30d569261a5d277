//! `/page/{file}`: the files of the page, which `/` shows in a browser.

use axum::{extract::State, http::HeaderMap, response::Response};

use super::endpoint::{Endpoint, RouteHandler};
use crate::http::{
    extract::TextPath,
    page,
    problem::{Problem, ProblemKind},
    state::AppState,
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint::undescribed("/page/{file}", RouteHandler::new(file)).public()]
}

async fn file(
    State(state): State<AppState>,
    TextPath(name): TextPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let found = if state.page.enabled { page::file(&name, &headers) } else { None };
    found.ok_or_else(|| {
        Problem::new(ProblemKind::UnknownRoute, "the page at / has no file of this name")
    })
}
