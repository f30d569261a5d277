//! What happens around every request.

pub(super) mod access;
mod bounds;
pub(super) mod browser;
pub(super) mod client;
mod intake;
pub(super) mod measured;
pub(super) mod traced;

use std::{any::Any, convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::Request,
    response::{IntoResponse as _, Response},
};
use hyper::body::Incoming;
use tower::{ServiceBuilder, layer::layer_fn, util::BoxCloneSyncService};
use tower_http::{
    catch_panic::CatchPanicLayer,
    request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer},
    trace::{DefaultOnResponse, TraceLayer},
};
use tracing::{Level, Span};

use self::{
    access::{Access, RequireScope},
    bounds::{Bounded, ConcurrencyLimiter},
    browser::OriginPolicy,
    client::ProxyConfig,
    measured::{RequestMetrics, RouteNames},
    traced::RequestTrace,
};
use super::{
    AppState, Exposure, degraded,
    problem::{Problem, ProblemKind},
};
use crate::traces;

/// All routes with what happens around them.
pub type HttpService = BoxCloneSyncService<axum::http::Request<Incoming>, Response, Infallible>;

/// Wraps all routes, the fallbacks among them. As a whole, and not by `Router::layer`, which would wrap each
/// route in a box for each layer, and clone them all for each request.
pub(super) fn around(
    routes: Router,
    names: RouteNames,
    state: AppState,
    reach: Exposure,
) -> HttpService {
    let Exposure { browser, proxy, is_local } = reach;
    let counter = Arc::clone(&state.counter);
    let names = Arc::new(names);
    let proxy = Arc::new(proxy);
    let traced = (Arc::clone(&names), Arc::clone(&proxy));
    let cors = OriginPolicy::cors(&browser);
    let stack = ServiceBuilder::new()
        .map_request(|request: axum::http::Request<Incoming>| request.map(Body::new))
        // First the id, so that all that follows can name it.
        .layer(SetRequestIdLayer::x_request_id(NewRequestId))
        // Around all that may answer, also a refusal or a panic.
        .layer(layer_fn(move |inner| RequestMetrics::new(Arc::clone(&names), inner)))
        .layer(layer_fn(move |inner| {
            let (names, proxy) = traced.clone();
            RequestTrace::new(names, proxy, inner)
        }))
        // The span is around all that is logged of a request. A line for each request only at
        // `debug`; errors are logged where they are known, and an outage is not one line a request.
        .map_response(Response::into_response)
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(move |request: &Request| span(&proxy, request))
                .on_request(())
                .on_response(DefaultOnResponse::new().level(Level::DEBUG))
                .on_failure(()),
        )
        // Inside the span, so that the answer to a panic has the id too.
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(CatchPanicLayer::custom(panicked))
        .map_response(move |response| degraded::marked(&counter, response))
        .option_layer(cors);
    let bounded = Bounded::new(ConcurrencyLimiter::new(state.http), routes);
    let access = Access::new(state, OriginPolicy::new(browser, is_local));
    BoxCloneSyncService::new(stack.service(RequireScope::new(access, bounded)))
}

/// Gives requests that come without an id one of ours.
#[derive(Clone, Copy, Debug)]
struct NewRequestId;

impl MakeRequestId for NewRequestId {
    fn make_request_id<B>(&mut self, _: &axum::http::Request<B>) -> Option<RequestId> {
        let id = uuid::Uuid::now_v7().to_string().parse().ok()?;
        Some(RequestId::new(id))
    }
}

fn span(proxy: &ProxyConfig, request: &Request) -> Span {
    let id = request.extensions().get::<RequestId>();
    let id = id.and_then(|id| id.header_value().to_str().ok()).unwrap_or_default();
    let client = proxy.client(request);
    // All at once: a field that is recorded later is written and read again.
    tracing::info_span!(
        "request",
        method = request.method().as_str(),
        path = request.uri().path(),
        request_id = id,
        client = client.as_deref(),
        // Where there is none, lines have none.
        trace_id = traces::trace_id().map(tracing::field::display)
    )
}

#[expect(clippy::needless_pass_by_value, reason = "the layer's handler takes it so")]
fn panicked(cause: Box<dyn Any + Send>) -> Response {
    let text = cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| cause.downcast_ref::<&str>().copied())
        .unwrap_or("no text");
    tracing::error!(panic = text, "a request handler has panicked");
    Problem::new(
        ProblemKind::Internal,
        "the service has a fault; its log has more under this request's x-request-id",
    )
    .into_response()
}
