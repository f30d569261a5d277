//! The HTTP API. Modules in here import from left to right only:
//!
//! `json → problem | headers | config → state → extract → bodies → endpoints → openapi → server →`
//! `layers`
//!
//! This file puts them together.
//!
//! A request comes through `server` (connections), `layers` (what all requests share) and
//! `extract` (its parts) to its handler in `endpoints`. Errors become problems in `problem` and
//! nowhere else.

mod bodies;
mod config;
mod endpoints;
mod extract;
#[cfg(fuzzing)]
pub mod fuzzing;
mod headers;
mod json;
mod layers;
mod openapi;
mod problem;
mod server;
mod state;

use axum::{Router, extract::Request, http::Uri};

use self::{
    endpoints::Endpoint,
    problem::{Problem, ProblemKind},
};
use crate::auth;

pub use config::{AlertmanagerConfig, HttpConfig};
pub use endpoints::{DeadLetterBody, RetriedBody};
pub use layers::{BrowserConfig, Exposure, HttpService, ProxyConfig};
pub use server::{Tls, TlsConfig, TlsError, serve};
pub use state::AppState;

/// Returns all routes, with the layers around them. To be called after the metrics' recorder is
/// installed.
pub fn service(state: AppState, exposure: Exposure) -> HttpService {
    auth::register_metrics();
    endpoints::register_metrics();
    let endpoints: Vec<Endpoint> = endpoints::all().chain(openapi::endpoints()).collect();
    let routes = endpoints.iter().fold(Router::new(), |routes, endpoint| {
        routes.route(&endpoint.path, endpoint.handler.clone())
    });
    let routes = routes
        .fallback(unknown_route)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(state.clone());
    layers::around(routes, &endpoints, state, exposure)
}

async fn unknown_route(uri: Uri) -> Problem {
    let path = uri.path();
    Problem::new(
        ProblemKind::UnknownRoute,
        format!("there is nothing at {path}: /docs and /openapi.json have all paths"),
    )
}

async fn method_not_allowed(request: Request) -> Problem {
    let (method, path) = (request.method(), request.uri().path());
    let taken = layers::methods_of(&request).join(", ");
    let detail = format!("{path} does not take {method}, but {taken}");
    Problem::new(ProblemKind::MethodNotAllowed, detail)
}
