//! The layers around every request: its route, id, metrics, trace and log span, who may send it,
//! and the limits of bodies and concurrency.

mod access;
mod body_limiter;
mod client_address;
mod concurrency;
mod degraded_header;
mod origin_policy;
mod request_host;
mod request_metrics;
mod request_trace;
mod route;
mod text_list;

use std::{any::Any, convert::Infallible, sync::Arc, time::Instant};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::HeaderValue,
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
    access::{AccessPolicy, RequireScope},
    concurrency::{ConcurrencyLimiter, LimitConcurrency},
    degraded_header::mark_degraded,
    origin_policy::OriginPolicy,
    request_metrics::RequestMetrics,
    request_trace::RequestTrace,
    route::{RouteMatch, RouteTable},
};
use super::{
    endpoints::Endpoint,
    headers::X_REQUEST_ID,
    problem::{Problem, ProblemKind},
    state::AppState,
};
use crate::{
    telemetry::{LogSource, may_log},
    traces,
};

pub use client_address::ProxyConfig;
pub use origin_policy::BrowserConfig;

/// All routes with the layers around them.
pub type HttpService = BoxCloneSyncService<axum::http::Request<Incoming>, Response, Infallible>;

/// Returns the methods that the path of a request takes.
pub(super) fn methods_of(request: &Request) -> Vec<&'static str> {
    RouteMatch::of(request).methods()
}

/// The ways on which requests arrive.
#[derive(Clone, Debug)]
pub struct Exposure {
    /// The section `browser` of the configuration.
    pub browser: BrowserConfig,
    /// The section `proxy` of the configuration.
    pub proxy: ProxyConfig,
    /// Only programs of this machine reach the service.
    pub is_local: bool,
}

/// Wraps all routes, the fallbacks among them. As a whole, and not by `Router::layer`, which would
/// wrap each route in a box for each layer, and clone them all for each request.
pub(super) fn around(
    router: Router,
    endpoints: &[Endpoint],
    state: AppState,
    exposure: Exposure,
) -> HttpService {
    let Exposure { browser, proxy, is_local } = exposure;
    let counter = Arc::clone(&state.counter);
    let table = Arc::new(RouteTable::new(endpoints));
    let proxy = Arc::new(proxy);
    let (proxy_of_traces, proxy_of_access) = (Arc::clone(&proxy), Arc::clone(&proxy));
    let cors = OriginPolicy::cors(&browser);
    let stack = ServiceBuilder::new()
        .map_request(move |request: axum::http::Request<Incoming>| {
            let mut request = request.map(Body::new);
            table.note(&mut request);
            forget_unfit_id(&mut request);
            request
        })
        // First the id, so that all that follows can name it.
        .layer(SetRequestIdLayer::x_request_id(NewRequestId))
        // Around all that may answer, also a refusal or a panic.
        .layer(layer_fn(RequestMetrics::new))
        .layer(layer_fn(move |inner| RequestTrace::new(Arc::clone(&proxy_of_traces), inner)))
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
        .map_response(move |response| mark_degraded(&counter, response))
        .option_layer(cors);
    let limiter = ConcurrencyLimiter::new(state.http, state.alertmanager);
    let limited = LimitConcurrency::new(limiter, router);
    let origins = OriginPolicy::new(browser, is_local);
    let policy = AccessPolicy::new(state, origins, proxy_of_access);
    BoxCloneSyncService::new(stack.service(RequireScope::new(policy, limited)))
}

/// The longest id of a caller that is taken over. It is kept in audits and operations.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// Takes an id away that is too long or not printable, so that the request gets a new one.
fn forget_unfit_id(request: &mut Request) {
    let is_fit = |id: &HeaderValue| {
        let id = id.as_bytes();
        (1..=MAX_REQUEST_ID_BYTES).contains(&id.len())
            && id.iter().all(|b| matches!(b, b' '..=b'~'))
    };
    if request.headers().get(X_REQUEST_ID).is_some_and(|id| !is_fit(id)) {
        request.headers_mut().remove(X_REQUEST_ID);
    }
}

/// Makes an id for requests that have none.
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
        method = shown(request.method().as_str()),
        path = shown(request.uri().path()),
        request_id = id,
        client = client.as_deref(),
        // Without a trace, log lines have none.
        trace_id = traces::trace_id().map(tracing::field::display)
    )
}

/// A text of a caller is shown up to this length in each line of the log.
const SHOWN_CHARS: usize = 256;

fn shown(text: &str) -> &str {
    if text.len() <= SHOWN_CHARS {
        return text;
    }
    text.char_indices().nth(SHOWN_CHARS).map_or(text, |(end, _)| &text[..end])
}

#[expect(clippy::needless_pass_by_value, reason = "the layer's handler takes it so")]
fn panicked(cause: Box<dyn Any + Send>) -> Response {
    let text = cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| cause.downcast_ref::<&str>().copied())
        .unwrap_or("no text");
    let kind = "a request handler has panicked";
    if may_log(kind, LogSource::Anyone, Instant::now()) {
        tracing::error!(panic = text, "{kind}");
    }
    Problem::new(
        ProblemKind::Internal,
        "the service has a fault; its log has more under this request's x-request-id",
    )
    .into_response()
}
