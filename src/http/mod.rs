//! The HTTP face: one file a resource, each with its handlers and what they answer. Errors become
//! problems in `problem/` and nowhere else.

mod alertmanager;
mod anomalies;
mod audit;
mod body;
mod degraded;
mod docs;
mod fields;
#[cfg(fuzzing)]
pub mod fuzzing;
mod health;
mod layers;
mod list;
mod metrics;
mod occurrence;
mod openapi;
mod path;
mod permanent_fix;
mod problem;
mod repairs;
mod schemas;
mod server;
mod spool;

use std::{
    num::{NonZeroU16, NonZeroUsize},
    sync::Arc,
};

use axum::routing::get;
use serde::Deserialize;
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{auth::Authenticator, counter::Counter, telemetry::Recorder};

use self::{
    layers::measured::RouteNames,
    problem::{Problem, ProblemKind},
};

pub use alertmanager::{AlertmanagerConfig, CountBy};
pub use layers::{HttpService, browser::BrowserConfig, client::ProxyConfig};
pub use server::{Tls, TlsConfig, TlsError, serve};
pub use spool::DeadLetterBody;

/// The section `http` of the configuration.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// The largest body that is read, in bytes.
    pub max_body_bytes: NonZeroUsize,
    /// How many connections are served at the same time.
    pub max_connections: NonZeroU16,
    /// How many requests are worked on at the same time.
    pub max_concurrent_requests: NonZeroU16,
    /// How long the head of a request may take to come, in seconds; also how long a connection may
    /// be idle.
    pub header_timeout_seconds: NonZeroU16,
    /// How long a body may take to come, in seconds.
    pub body_timeout_seconds: NonZeroU16,
    /// How long the answer to a request may take once its body is there, in seconds.
    pub response_timeout_seconds: NonZeroU16,
    /// How long a client may take no more of its answer, in seconds.
    pub send_timeout_seconds: NonZeroU16,
    /// How long requests under way may take to end when the service stops, in seconds.
    pub shutdown_timeout_seconds: u64,
}

/// What handlers work with.
#[derive(Clone, Debug)]
pub struct AppState {
    /// The counter.
    pub counter: Arc<Counter>,
    /// Where callers are let in.
    pub authenticator: Arc<Authenticator>,
    /// What `/metrics` renders.
    pub recorder: Arc<Recorder>,
    /// The section `http`.
    pub http: HttpConfig,
    /// The section `alertmanager`.
    pub alertmanager: AlertmanagerConfig,
}

/// On what ways requests come.
#[derive(Clone, Debug)]
pub struct Exposure {
    /// The section `browser`.
    pub browser: BrowserConfig,
    /// The section `proxy`.
    pub proxy: ProxyConfig,
    /// Whether only programs of this machine reach the service.
    pub is_local: bool,
}

/// All routes, with the middleware around them.
pub fn service(state: AppState, reach: Exposure) -> HttpService {
    let (routes, described) = api().split_for_parts();
    let mut names = RouteNames::new();
    for path in described.paths.paths.into_keys().chain([docs::PART_PATH.to_owned()]) {
        // The router itself refuses two paths that are alike.
        let _ = names.insert(path.clone(), &*path.leak());
    }
    let routes = routes
        .route(docs::PART_PATH, get(docs::part))
        .fallback(unknown_route)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(state.clone());
    layers::around(routes, names, state, reach)
}

/// All calls: what is here is served, and described.
fn api() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(openapi::Outline::openapi())
        .routes(routes!(anomalies::record))
        .routes(routes!(anomalies::frequency))
        .routes(routes!(anomalies::anomaly))
        .routes(routes!(audit::audit))
        .routes(routes!(repairs::report))
        .routes(routes!(repairs::repairs))
        .routes(routes!(repairs::advice))
        .routes(routes!(permanent_fix::mark))
        .routes(routes!(permanent_fix::unmark))
        .routes(routes!(alertmanager::receive))
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::render))
        .routes(routes!(spool::list))
        .routes(routes!(spool::retry))
        .routes(routes!(spool::remove))
        .routes(routes!(docs::document))
        .routes(routes!(docs::page))
        .routes(routes!(problem::explain))
}

async fn unknown_route(uri: axum::http::Uri) -> Problem {
    let path = uri.path();
    Problem::new(
        ProblemKind::UnknownRoute,
        format!("there is nothing at {path}: /docs and /openapi.json have all paths"),
    )
}

async fn method_not_allowed(method: axum::http::Method, uri: axum::http::Uri) -> Problem {
    let path = uri.path();
    Problem::new(
        ProblemKind::MethodNotAllowed,
        format!("{path} does not take {method}: the header Allow names what it takes"),
    )
}
