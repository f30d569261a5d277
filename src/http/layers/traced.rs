//! The span of every request, but for those by which the service is looked after.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue},
    response::Response,
};
use futures_util::future::{BoxFuture, Either};
use tower::Service;
use tower_http::request_id::RequestId;

use super::{
    bounds::is_probe,
    client::ProxyConfig,
    measured::{RouteNames, standard_name},
};
use crate::traces::{self, RequestHead, RequestSpan};

/// By which the caller finds the trace.
pub(in crate::http) const TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// What probes and Prometheus ask again and again.
fn is_routine(path: &str) -> bool {
    is_probe(path) || path == "/metrics"
}

/// Traces what is behind it, also what never comes to a handler.
#[derive(Clone)]
pub(super) struct RequestTrace<S> {
    routes: Arc<RouteNames>,
    proxy: Arc<ProxyConfig>,
    inner: S,
}

impl<S> RequestTrace<S> {
    pub(super) fn new(routes: Arc<RouteNames>, proxy: Arc<ProxyConfig>, inner: S) -> Self {
        Self { routes, proxy, inner }
    }

    fn begin(&self, request: &Request) -> Option<RequestSpan> {
        let path = request.uri().path();
        if !traces::are_on() || is_routine(path) {
            return None;
        }
        let id = request.extensions().get::<RequestId>();
        RequestSpan::begin(RequestHead {
            method: standard_name(request.method()),
            route: self.routes.at(path).ok().map(|found| *found.value),
            path,
            client: self.proxy.client(request).as_deref(),
            id: id.and_then(|id| id.header_value().to_str().ok()).unwrap_or_default(),
            headers: request.headers(),
        })
    }
}

impl<S> Service<Request> for RequestTrace<S>
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Some(span) = self.begin(&request) else {
            return Either::Left(self.inner.call(request));
        };
        let answer = span.within(|| self.inner.call(request));
        Either::Right(Box::pin(async move {
            let mut response = span.around(answer).await?;
            if let Ok(value) = HeaderValue::try_from(span.traceresponse()) {
                response.headers_mut().insert(TRACERESPONSE, value);
            }
            span.answered(response.status().as_u16());
            Ok(response)
        }))
    }
}
