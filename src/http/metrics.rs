//! `/metrics` for Prometheus, and the measuring of every request.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    extract::{Request, State},
    http::{Method, header},
    response::{IntoResponse, Response},
};
use futures_util::future::BoxFuture;
use tower::Service;

use super::AppState;
use crate::telemetry;

/// Prometheus' text format.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The route of requests that have none.
const NO_ROUTE: &str = "none";

/// Ask for what is counted of the service itself.
///
/// For Prometheus. The README has a table of all metrics.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    responses((
        status = 200,
        description = "Prometheus' text format, version 0.0.4.",
        body = String,
        content_type = "text/plain; version=0.0.4; charset=utf-8",
    )),
)]
pub(super) async fn render(State(state): State<AppState>) -> impl IntoResponse {
    let text = state.recorder.render(state.counter.standing());
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text)
}

/// Tells a path's route, for there are as many paths as anomalies.
pub(super) type RouteNames = matchit::Router<&'static str>;

/// Measures what is behind it, also what never comes to a handler.
#[derive(Clone)]
pub(super) struct Measured<S> {
    routes: Arc<RouteNames>,
    inner: S,
}

impl<S> Measured<S> {
    pub(super) fn new(routes: Arc<RouteNames>, inner: S) -> Self {
        Self { routes, inner }
    }
}

impl<S> Service<Request> for Measured<S>
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let begun = Instant::now();
        let route = self.routes.at(request.uri().path()).map_or(NO_ROUTE, |found| *found.value);
        let method = method_name(request.method());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            telemetry::request(route, method, response.status().as_u16(), begun.elapsed());
            Ok(response)
        })
    }
}

/// A client may call its methods what it likes.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
