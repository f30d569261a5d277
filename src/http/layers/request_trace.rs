//! Traces every request, except those that programs repeat every few seconds.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{extract::Request, http::HeaderValue, response::Response};
use futures_util::future::{BoxFuture, Either};
use tower::Service;
use tower_http::request_id::RequestId;

use super::{client_address::ProxyConfig, request_metrics::standard_name, route::RouteMatch};
use crate::{
    http::{endpoints::Routine, headers::TRACERESPONSE},
    traces::{self, RequestHead, RequestSpan},
};

/// Traces the inner service, also requests that reach no handler.
#[derive(Clone)]
pub(super) struct RequestTrace<S> {
    proxy: Arc<ProxyConfig>,
    inner: S,
}

impl<S> RequestTrace<S> {
    pub(super) fn new(proxy: Arc<ProxyConfig>, inner: S) -> Self {
        Self { proxy, inner }
    }

    fn begin(&self, request: &Request) -> Option<RequestSpan> {
        let route = RouteMatch::of(request);
        if !traces::are_on() || route.routine() != Routine::No {
            return None;
        }
        let id = request.extensions().get::<RequestId>();
        RequestSpan::begin(RequestHead {
            method: standard_name(request.method()),
            route: route.path(),
            path: request.uri().path(),
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
