//! Counts and times every request.

use std::{
    convert::Infallible,
    task::{Context, Poll},
    time::Instant,
};

use axum::{extract::Request, http::Method, response::Response};
use futures_util::future::BoxFuture;
use tower::Service;

use super::route::RouteMatch;
use crate::telemetry;

/// The labels of requests whose path has no route, and whose method is not a standard one.
const NO_ROUTE: &str = "none";
const OTHER_METHOD: &str = "other";

/// Measures the inner service, also requests that reach no handler.
#[derive(Clone)]
pub(super) struct RequestMetrics<S> {
    inner: S,
}

impl<S> RequestMetrics<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
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
        let started = Instant::now();
        let route = RouteMatch::of(&request).path().unwrap_or(NO_ROUTE);
        let method = standard_name(request.method()).unwrap_or(OTHER_METHOD);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            telemetry::request(route, method, response.status().as_u16(), started.elapsed());
            Ok(response)
        })
    }
}

/// Returns the name of a standard method; clients may make up others.
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
