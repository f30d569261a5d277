//! The HTTP API. Modules in here import from left to right only:
//!
//! `json → problem | headers | page | session_cookie | config → state → extract → bodies →`
//! `endpoints → openapi → server → layers`
//!
//! This file puts them together.
//!
//! A request comes through `server` (connections), `layers` (what all requests share) and
//! `extract` (its parts) to its handler in `endpoints`. Errors become problems in `problem` and
//! nowhere else.
#![cfg_attr(doc, doc = include_str!("../../docs/design/http.md"))]

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
mod page;
mod problem;
mod server;
mod session_cookie;
mod state;

use self::endpoints::Endpoint;
use crate::auth;

pub use config::{AlertmanagerConfig, HttpConfig, PageConfig};
pub use endpoints::{DeadLetterBody, RetriedBody};
pub use layers::{BrowserConfig, Exposure, HttpService, ProxyConfig};
pub use server::{ClientConnection, Routes, Tls, TlsConfig, TlsError, serve};
pub use state::{AppState, SharedState};

/// Returns all routes, with the layers around them. To be called after the metrics' recorder is
/// installed.
pub fn service(state: AppState, exposure: Exposure) -> HttpService {
    auth::register_metrics();
    endpoints::register_metrics();
    let endpoints: Vec<Endpoint> = endpoints::all().chain(openapi::endpoints()).collect();
    HttpService::new(endpoints, state, exposure)
}
