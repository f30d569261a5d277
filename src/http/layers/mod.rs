//! The layers around every request: its route, id, metrics, trace and log fields, who may send it,
//! and the limits of bodies and concurrency.
//!
//! All of them are one future, with only one box, that of the handler. As layers of tower, each
//! would box its own future and pass its results on in the request's extensions, which would take a
//! quarter of the time of a request.

mod access;
mod body_limiter;
mod client_address;
mod concurrency;
mod origin_policy;
mod request_host;
mod route;
mod text_list;

use std::{any::Any, convert::Infallible, fmt, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use axum::{
    body::Body,
    extract::Request,
    http::{self, HeaderMap, HeaderValue, Method},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::FutureExt as _;
use hyper::body::Incoming;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_http::cors::CorsLayer;
use uuid::Uuid;

use self::{
    access::{AccessPolicy, Admitted},
    concurrency::ConcurrencyLimiter,
    origin_policy::OriginPolicy,
    route::{RouteMatch, RouteTable},
};
use super::{
    endpoints::{Endpoint, Routine},
    headers::{TRACERESPONSE, X_DEGRADED, X_REQUEST_ID},
    problem::{Problem, ProblemKind},
    server::{ClientConnection, Routes},
    session_cookie::SessionCookie,
    state::{AppState, PathValue, RequestState},
};
use crate::{
    telemetry::{self, LogSource, RequestFields, RequestId, may_log},
    traces::{self, RequestHead, RequestSpan},
};

pub use client_address::ProxyConfig;
pub use origin_policy::BrowserConfig;

/// The labels of requests whose path has no route, and whose method is not a standard one.
const NO_ROUTE: &str = "none";
const OTHER_METHOD: &str = "other";

/// The ways in which requests arrive.
#[derive(Clone, Debug)]
pub struct Exposure {
    /// The section `browser` of the configuration.
    pub browser: BrowserConfig,
    /// The section `proxy` of the configuration.
    pub proxy: ProxyConfig,
    /// True if only programs of this machine can reach the service.
    pub is_local: bool,
    /// True if the service itself speaks TLS.
    pub has_tls: bool,
}

/// All routes with the layers around them.
pub struct HttpService {
    state: AppState,
    routes: RouteTable,
    proxy: ProxyConfig,
    /// `None` if no page of another site may call.
    cors: Option<CorsLayer>,
    access: AccessPolicy,
    limiter: ConcurrencyLimiter,
    /// True if the service itself speaks TLS.
    has_tls: bool,
}

/// The facts about a request that its head gives.
#[derive(Clone)]
struct Arrival {
    connection: Arc<ClientConnection>,
    /// The address that it comes from.
    client: Arc<str>,
    id: RequestId,
    route: RouteMatch,
    path_values: Vec<PathValue>,
}

impl HttpService {
    pub(super) fn new(
        endpoints: impl IntoIterator<Item = Endpoint>,
        state: AppState,
        exposure: Exposure,
    ) -> Self {
        let Exposure { browser, proxy, is_local, has_tls } = exposure;
        let cors = OriginPolicy::cors(&browser);
        let origins = OriginPolicy::new(browser, is_local);
        Self {
            routes: RouteTable::new(endpoints),
            proxy,
            cors,
            access: AccessPolicy::new(state.clone(), origins),
            limiter: ConcurrencyLimiter::new(state.http, state.alertmanager),
            state,
            has_tls,
        }
    }

    /// Answers a request, also if its handler panics. The request is measured and traced, and all
    /// log lines meanwhile have its fields.
    async fn answer(
        &self,
        connection: Arc<ClientConnection>,
        request: http::Request<Incoming>,
    ) -> Response {
        let started = Instant::now();
        let (route, path_values) = self.routes.find(request.uri().path());
        let id = request_id(request.headers());
        let client = self.proxy.client(&connection, request.headers());
        let method = standard_name(request.method());
        let span = begin_span(&request, route, &client, &id);
        let fields = RequestFields {
            method: request.method().clone(),
            uri: request.uri().clone(),
            id: id.clone(),
            client: Arc::clone(&client),
        };
        let shown_id = id.header_value();
        let arrival = Arrival { connection, client, id, route, path_values };
        let answering = fields.around(self.answer_or_problem(arrival, request));
        let mut response = match span {
            None => answering.await,
            Some(span) => traced(span, answering).boxed().await,
        };
        response.headers_mut().insert(X_REQUEST_ID, shown_id);
        let took = started.elapsed();
        let (route, method) = (route.path().unwrap_or(NO_ROUTE), method.unwrap_or(OTHER_METHOD));
        telemetry::request(route, method, response.status().as_u16(), took);
        response
    }

    /// Answers a request; a panic becomes a problem. Requests have a log line at `debug` only:
    /// errors are logged where they occur, and an outage must not be one line a request.
    async fn answer_or_problem(
        &self,
        arrival: Arrival,
        request: http::Request<Incoming>,
    ) -> Response {
        let started = Instant::now();
        let answering = AssertUnwindSafe(self.answer_to_origin(arrival, request));
        let response = answering.catch_unwind().await.unwrap_or_else(panicked);
        let status = response.status().as_u16();
        let latency = || format!("{} ms", started.elapsed().as_millis());
        tracing::debug!(latency = latency(), status, "finished processing request");
        response
    }

    /// Answers a request, with the CORS headers that browsers need for pages of allowed origins.
    async fn answer_to_origin(
        &self,
        arrival: Arrival,
        request: http::Request<Incoming>,
    ) -> Response {
        let mut response = match &self.cors {
            None => self.answer_if_admitted(arrival, request).await,
            Some(cors) => {
                let inner = service_fn(|request| {
                    self.answer_if_admitted(arrival.clone(), request).map(Ok::<_, Infallible>)
                });
                let Ok(response) = cors.layer(inner).oneshot(request).boxed().await;
                response
            }
        };
        // This only reads the state of the store, and does not call it.
        if let Some(store) = self.state.counter.degraded_store() {
            response.headers_mut().insert(X_DEGRADED, HeaderValue::from_static(store));
        }
        response
    }

    async fn answer_if_admitted(
        &self,
        arrival: Arrival,
        mut request: http::Request<Incoming>,
    ) -> Response {
        let Arrival { connection, client, id, route, path_values } = arrival;
        let is_https = self.proxy.is_https(&connection, request.headers(), self.has_tls);
        let cookie = SessionCookie::of_scheme(is_https);
        let admitted = match self.access.admit(&mut request, route, client, cookie) {
            Ok(admitted) => admitted,
            Err(problem) => return problem.into_response(),
        };
        let (head, body) = request.into_parts();
        let handle = |admitted: Option<Admitted>, head, body: Bytes| {
            let Admitted { caller, signed } = admitted.unwrap_or_default();
            let app = self.state.clone();
            let state = RequestState { app, id, caller, signed, path_values, body };
            route.answer(Request::from_parts(head, Body::empty()), state)
        };
        if route.routine() == Routine::Probe {
            return handle(admitted, head, Bytes::new()).await;
        }
        self.limiter.answer(&connection, route.body(), admitted, head, body, handle).await
    }
}

impl Routes for Arc<HttpService> {
    fn answer(
        &self,
        connection: Arc<ClientConnection>,
        request: http::Request<Incoming>,
    ) -> impl Future<Output = Response> + Send + use<> {
        let service = Self::clone(self);
        async move { HttpService::answer(&service, connection, request).await }
    }
}

impl fmt::Debug for HttpService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpService").field("routes", &self.routes).finish_non_exhaustive()
    }
}

/// Maximum length of a caller's id of a request, because audits and operations store it.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// Returns the id that was sent; a new one if it is missing, too long or not printable.
fn request_id(headers: &HeaderMap) -> RequestId {
    let is_fit = |id: &&HeaderValue| {
        let id = id.as_bytes();
        (1..=MAX_REQUEST_ID_BYTES).contains(&id.len())
            && id.iter().all(|b| matches!(b, b' '..=b'~'))
    };
    let sent = headers.get(X_REQUEST_ID).filter(is_fit).cloned();
    sent.map_or_else(|| RequestId::New(Uuid::now_v7()), RequestId::Sent)
}

/// Begins the trace of a request; `None` if traces are off, and for requests that programs repeat
/// every few seconds.
fn begin_span(
    request: &http::Request<Incoming>,
    route: RouteMatch,
    client: &str,
    id: &RequestId,
) -> Option<RequestSpan> {
    if !traces::are_on() || route.routine() != Routine::No {
        return None;
    }
    RequestSpan::begin(RequestHead {
        method: standard_name(request.method()),
        route: route.path(),
        path: request.uri().path(),
        client,
        id: &id.to_string(),
        headers: request.headers(),
    })
}

async fn traced(span: RequestSpan, answering: impl Future<Output = Response>) -> Response {
    let mut response = span.around(answering).await;
    if let Ok(value) = HeaderValue::try_from(span.traceresponse()) {
        response.headers_mut().insert(TRACERESPONSE, value);
    }
    span.answered(response.status().as_u16());
    response
}

/// Returns the name of a standard method; clients may send any other.
fn standard_name(method: &Method) -> Option<&'static str> {
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

#[expect(clippy::needless_pass_by_value, reason = "a panic's cause is handed over so")]
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
        "the service has failed: its log says why under the x-request-id of this response",
    )
    .into_response()
}
