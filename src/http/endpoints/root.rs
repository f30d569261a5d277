//! `/`: where to go from here.

use serde::Serialize;
use utoipa::ToSchema;

use super::endpoint::{Endpoint, routes};
use crate::http::json::Json;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint::new("root.links", routes!(links)).public()]
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
    /// The path of a page to try the API.
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

/// Read the paths of the service's pages.
#[utoipa::path(
    get,
    path = "/",
    tag = "documentation",
    responses((status = 200, description = "The paths.", body = LinksBody)),
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
