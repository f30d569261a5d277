//! `/openapi.json` and `/docs`: the description of the API, and a page to try it, with all its
//! parts in the binary.

use std::sync::{Arc, LazyLock};

use axum::{
    http::{HeaderName, header},
    response::{Html, IntoResponse},
};
use bytes::Bytes;
use utoipa_swagger_ui::Config;

use super::document::describe;
use crate::http::{
    endpoints::{self, Endpoint, RouteHandler, routes},
    extract::TextPath,
    problem::{Problem, ProblemKind},
};

/// The endpoints of the description itself.
pub(in crate::http) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("docs.openapi", routes!(document)).public().any_query(),
        Endpoint::new("docs.page", routes!(page)).public().any_query(),
        Endpoint::undescribed("/docs/{part}", RouteHandler::new(part)).public(),
    ]
}

/// The policy of the page: it loads nothing from other sites, and sends nothing to them.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; connect-src 'self'; script-src 'self'; \
                                       style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                                       base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Created at the first request, because most instances never get one.
static DOCUMENT: LazyLock<Bytes> =
    LazyLock::new(|| format!("{}\n", describe(endpoints::all().chain(endpoints()))).into());

/// The page's settings. Without them, the page would send the document to swagger.io for
/// validation.
static PAGE_CONFIG: LazyLock<Arc<Config<'static>>> =
    LazyLock::new(|| Arc::new(Config::from("openapi.json").validator_url("none")));

/// Read this document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "documentation",
    responses((
        status = 200,
        description = "The description of the API in the format of OpenAPI 3.1.",
        body = Object,
        content_type = "application/json",
    )),
)]
async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.clone())
}

/// Try the API in a browser.
///
/// The page loads nothing from other sites.
#[utoipa::path(
    get,
    path = "/docs",
    tag = "documentation",
    responses((
        status = 200, description = "The HTML page.", body = String,
        content_type = "text/html; charset=utf-8",
    )),
)]
async fn page() -> impl IntoResponse {
    let policy = [(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY)];
    (policy, Html(include_str!("docs.html")))
}

/// A file of the page.
async fn part(TextPath(name): TextPath) -> Result<impl IntoResponse, Problem> {
    let file = utoipa_swagger_ui::serve(&name, Arc::clone(&PAGE_CONFIG)).ok().flatten();
    let file = file.ok_or_else(|| {
        Problem::new(ProblemKind::UnknownRoute, "the page at /docs has no file of this name")
    })?;
    let encoding: &[(HeaderName, &str)] =
        if file.gzpipped { &[(header::CONTENT_ENCODING, "gzip")] } else { &[] };
    let headers = axum::response::AppendHeaders(encoding.to_vec());
    Ok(([(header::CONTENT_TYPE, file.content_type)], headers, file.bytes.into_owned()))
}
