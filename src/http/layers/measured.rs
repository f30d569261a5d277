//! Measures every request.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use axum::{extract::Request, http::Method, response::Response};
use futures_util::future::BoxFuture;
use tower::Service;

use crate::telemetry;

/// The route of requests that have none, and the method of those with one of their own.
const NO_ROUTE: &str = "none";
const OTHER_METHOD: &str = "other";

/// Tells a path's route, for there are as many paths as anomalies.
pub(in crate::http) type RouteNames = matchit::Router<&'static str>;

/// Measures what is behind it, also what never comes to a handler.
#[derive(Clone)]
pub(super) struct RequestMetrics<S> {
    routes: Arc<RouteNames>,
    inner: S,
}

impl<S> RequestMetrics<S> {
    pub(super) fn new(routes: Arc<RouteNames>, inner: S) -> Self {
        Self { routes, inner }
    }
}

impl<S> Service<Request> for RequestMetrics<S>
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
        let method = standard_name(request.method()).unwrap_or(OTHER_METHOD);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            telemetry::request(route, method, response.status().as_u16(), begun.elapsed());
            Ok(response)
        })
    }
}

/// The name of a standard method: a client may call its own what it likes.
pub(super) fn standard_name(method: &Method) -> Option<&'static str> {
    Some(match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => return None,
    })
}
