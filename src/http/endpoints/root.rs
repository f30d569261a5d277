//! `/`: the page for browsers, and the paths of the service for programs.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::endpoint::{Endpoint, routes};
use crate::http::{json::Json, page, state::AppState};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint::new("root.read", routes!(root)).public().any_query()]
}

/// The name of the service, and the paths of its pages.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Links)]
struct LinksBody {
    /// Always `anomaly-counter`.
    #[schema(pattern = "^anomaly-counter$", example = "anomaly-counter")]
    service: &'static str,
    /// The version of the service.
    #[schema(example = "0.1.0")]
    version: &'static str,
    /// The path of a page for trying the API.
    #[schema(example = "/docs")]
    docs: &'static str,
    /// The path of the description of the API.
    #[schema(example = "/openapi.json")]
    openapi: &'static str,
    /// The path of the state of the service.
    #[schema(example = "/readyz")]
    ready: &'static str,
    /// The path of the metrics of the service.
    #[schema(example = "/metrics")]
    metrics: &'static str,
}

/// Read the paths of the service's pages, or open the page.
///
/// A browser, which accepts `text/html`, gets the page: a list of anomalies, and the details of
/// each. The page reads all its data from this API.
#[utoipa::path(
    get,
    path = "/",
    tag = "documentation",
    responses((status = 200, description = "The paths, or the page.", content(
        (LinksBody = "application/json"),
        (String = "text/html; charset=utf-8"),
    ))),
)]
async fn root(State(state): State<AppState>, headers: HeaderMap) -> Response {
    let mut response = if state.page.enabled && accepts_html(&headers) {
        page::document(&headers)
    } else {
        links().into_response()
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

/// Returns true for browsers: only they name the type of pages. Programs accept anything, or JSON.
fn accepts_html(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter();
    let mut types = values.flat_map(|value| value.to_str().unwrap_or_default().split(','));
    types.any(|part| {
        let media_type = part.split(';').next().unwrap_or_default();
        media_type.trim().eq_ignore_ascii_case("text/html")
    })
}

fn links() -> Json<LinksBody> {
    Json(LinksBody {
        service: "anomaly-counter",
        version: env!("CARGO_PKG_VERSION"),
        docs: "/docs",
        openapi: "/openapi.json",
        ready: "/readyz",
        metrics: "/metrics",
    })
}
