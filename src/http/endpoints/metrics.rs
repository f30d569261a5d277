//! `/metrics` for Prometheus.

use axum::{extract::State, http::header, response::IntoResponse};

use super::endpoint::{Endpoint, Routine, routes};
use crate::{auth::Scope, http::state::AppState};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("metrics.get", routes!(render))
            .scope(Scope::Read)
            .routine(Routine::Scrape)
            .any_query(),
    ]
}

/// Prometheus' text format.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Read the metrics of the service.
///
/// This is the scrape target for Prometheus. docs/metrics.md lists all metrics.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    responses((
        status = 200,
        description = "The metrics in Prometheus' text format, version 0.0.4.",
        body = String,
        content_type = "text/plain; version=0.0.4; charset=utf-8",
    )),
)]
async fn render(State(state): State<AppState>) -> impl IntoResponse {
    state.counter.report_status();
    let text = state.recorder.render();
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text)
}
