//! The HTTP face: one file a resource, each with its handlers and what they answer. Errors become
//! problems in `problem.rs` and nowhere else.

mod access;
mod alertmanager;
mod anomalies;
mod body;
mod bounds;
mod browser;
mod degraded;
mod fields;
#[cfg(fuzzing)]
pub mod fuzzing;
mod health;
mod metrics;
mod middleware;
mod occurrence;
mod path;
mod permanent_fix;
mod problem;
mod repairs;
mod server;
mod spool;
mod tls;

use std::{
    num::{NonZeroU16, NonZeroUsize},
    sync::Arc,
};

use axum::{
    Router,
    routing::{MethodRouter, delete, get, post, put},
};
use serde::Deserialize;

use crate::{auth::Gate, counter::Counter, telemetry::Recorder};

use self::{
    metrics::RouteNames,
    problem::{Problem, ProblemKind},
};

pub use alertmanager::{AlertmanagerConfig, CountBy};
pub use browser::BrowserConfig;
pub use middleware::HttpService;
pub use server::serve;
pub use spool::DeadLetterBody;
pub use tls::{Tls, TlsConfig, TlsError};

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
    pub gate: Arc<Gate>,
    /// What `/metrics` renders.
    pub recorder: Arc<Recorder>,
    /// The section `http`.
    pub http: HttpConfig,
    /// The section `alertmanager`.
    pub alertmanager: AlertmanagerConfig,
}

/// All routes, with the middleware around them.
/// `is_local` where only programs of this machine reach them.
pub fn service(state: AppState, browser: BrowserConfig, is_local: bool) -> HttpService {
    let Routes { router, names } = Routes::default()
        .route("/anomalies", post(anomalies::record))
        .route("/anomalies/{key}", get(anomalies::anomaly))
        .route("/anomalies/{key}/frequency", get(anomalies::frequency))
        .route("/anomalies/{key}/repairs", get(repairs::repairs))
        .route("/anomalies/{key}/repairs/{action}", get(repairs::advice))
        .route("/repairs", post(repairs::report))
        .route("/permanent-fix", put(permanent_fix::mark))
        .route("/permanent-fix/{key}", delete(permanent_fix::unmark))
        .route(access::WEBHOOK_PATH, post(alertmanager::receive))
        .route("/spool/dead-letters", get(spool::list))
        .route("/spool/dead-letters/{sequence}", delete(spool::remove))
        .route("/spool/dead-letters/{sequence}/retry", post(spool::retry))
        .route("/healthz", get(health::health))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::render));
    let routes = router
        .fallback(unknown_route)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(state.clone());
    middleware::around(routes, names, state, browser, is_local)
}

/// Routes, and their names for metrics.
#[derive(Default)]
struct Routes {
    router: Router<AppState>,
    names: RouteNames,
}

impl Routes {
    fn route(mut self, path: &'static str, methods: MethodRouter<AppState>) -> Self {
        // The router itself refuses a path that is there already.
        let _ = self.names.insert(path, path);
        Self { router: self.router.route(path, methods), names: self.names }
    }
}

async fn unknown_route(uri: axum::http::Uri) -> Problem {
    let path = uri.path();
    Problem::new(
        ProblemKind::UnknownRoute,
        format!("there is nothing at {path}: the README has a table of all paths"),
    )
}

async fn method_not_allowed(method: axum::http::Method, uri: axum::http::Uri) -> Problem {
    let path = uri.path();
    Problem::new(
        ProblemKind::MethodNotAllowed,
        format!("{path} does not take {method}: the header Allow names what it takes"),
    )
}
