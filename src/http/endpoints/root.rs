//! `/`: where to go from here.

use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::endpoint::Endpoint;
use crate::http::json::Json;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint::new("root.links", routes!(links)).public()]
}

/// What listens here, and paths that lead on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Links)]
struct LinksBody {
    /// Always `anomaly-counter`.
    #[schema(pattern = "^anomaly-counter$", example = "anomaly-counter")]
    service: &'static str,
    /// The version of the service.
    #[schema(example = "0.1.0")]
    version: &'static str,
    /// The page to try each call.
    #[schema(example = "/docs")]
    docs: &'static str,
    /// The description of the API.
    #[schema(example = "/openapi.json")]
    openapi: &'static str,
    /// The state of the service.
    #[schema(example = "/readyz")]
    ready: &'static str,
    /// The metrics of the service, for Prometheus.
    #[schema(example = "/metrics")]
    metrics: &'static str,
}

/// Ask where to go from here.
#[utoipa::path(
    get,
    path = "/",
    tag = "documentation",
    responses((status = 200, description = "Paths that lead on.", body = LinksBody)),
)]
async fn links() -> Json<LinksBody> {
    Json(LinksBody {
        service: "anomaly-counter",
        version: env!("CARGO_PKG_VERSION"),
        docs: "/docs",
        openapi: "/openapi.json",
        ready: "/readyz",
        metrics: "/metrics",
    })
}
