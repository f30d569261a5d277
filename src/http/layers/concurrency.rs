//! Limits the number of requests that are handled at the same time, and the time that each takes. A
//! burst may wait for a permit; in a longer overload new requests are refused at once, so that
//! those that are accepted keep their latency.

use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use futures_util::future::BoxFuture;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{self, Instant},
};
use tower::Service;

use super::{body_limiter::BodyLimiter, route::RouteMatch};
use crate::{
    http::{
        config::{AlertmanagerConfig, HttpConfig},
        endpoints::Routine,
        problem::{Problem, ProblemKind},
        server::ClientConnection,
    },
    telemetry::{self, Shed},
};

/// Maximum time that a request waits for a permit: in a burst, and in an overload. This is
/// "controlled delay" as in Ben Maurer, "Fail at Scale", ACM Queue 13 (8), 2015. The first outlasts
/// the timeout of a Redis command: one that hangs must not look like an overload, because the spool
/// takes its write.
const BURST_TIMEOUT: Duration = Duration::from_millis(800);
const OVERLOAD_TIMEOUT: Duration = Duration::from_millis(10);
/// An overload begins when no permit was free for this long, and ends when none was refused for
/// this long.
const OVERLOADED_AFTER: Duration = Duration::from_millis(800);
const RELIEVED_AFTER: Duration = Duration::from_millis(100);

/// Answers each request within the limits, or with a 503.
#[derive(Debug)]
pub(super) struct ConcurrencyLimiter {
    config: HttpConfig,
    bodies: BodyLimiter,
    permits: Semaphore,
    /// The number of requests that wait for a permit.
    waiting: AtomicU64,
    started: Instant,
    /// The last times at which a permit was free for a new request and was refused, in
    /// milliseconds since `started`.
    last_free_ms: AtomicU64,
    last_refused_ms: AtomicU64,
}

impl ConcurrencyLimiter {
    pub(super) fn new(config: HttpConfig, alertmanager: AlertmanagerConfig) -> Self {
        Self {
            config,
            bodies: BodyLimiter::new(config, alertmanager),
            permits: Semaphore::new(config.max_concurrent_requests.get().into()),
            waiting: AtomicU64::new(0),
            started: Instant::now(),
            last_free_ms: AtomicU64::new(0),
            last_refused_ms: AtomicU64::new(0),
        }
    }

    /// Has `routes` answer a request, or refuses it.
    async fn answer<S: Routes>(&self, request: Request, mut routes: S) -> Response {
        if RouteMatch::of(&request).routine() == Routine::Probe {
            return routes.call(request).await.into_response();
        }
        if self.is_queue_full() {
            return self.refuse();
        }
        let connection = request.extensions().get::<Arc<ClientConnection>>().cloned();
        // Before the request has a permit, so that a slow sender keeps it from nobody.
        let (request, _body_permit) = match self.bodies.read(request).await {
            Ok(read) => read,
            Err(problem) => return problem.into_response(),
        };
        let busy = connection.as_ref().map(|connection| connection.slot.begin_request());
        if matches!(busy, Some(None)) {
            // The connection closes, and a write now would have no answer.
            return pending().await;
        }
        let Some(_permit) = self.permit().await else { return self.refuse() };
        let timeout = Duration::from_secs(self.config.response_timeout_seconds.get().into());
        time::timeout(timeout, routes.call(request)).await.map_or_else(
            |_| {
                let detail =
                    "the answer took too long, so that a write may or may not have taken effect: \
                     try again in a moment, with the same event_id so that it counts once";
                Problem::new(ProblemKind::Unavailable, detail).into_response()
            },
            IntoResponse::into_response,
        )
    }

    /// Waits for a permit; `None` on a timeout.
    async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(permit) = self.permits.try_acquire() {
            self.last_free_ms.store(self.now_ms(), Ordering::Relaxed);
            return Some(permit);
        }
        let timeout = if self.is_overloaded() { OVERLOAD_TIMEOUT } else { BURST_TIMEOUT };
        let _gauge = telemetry::waiting_request();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        time::timeout(timeout, self.permits.acquire()).await.ok()?.ok()
    }

    /// Returns whether a new request would wait in vain: a few waiting ones keep all permits in
    /// use.
    fn is_queue_full(&self) -> bool {
        let most = u64::from(self.config.max_concurrent_requests.get()) / 4;
        self.is_overloaded() && self.waiting.load(Ordering::Relaxed) > most
    }

    fn is_overloaded(&self) -> bool {
        if self.permits.available_permits() > 0 {
            return false;
        }
        let now_ms = self.now_ms();
        let since = |last_ms: &AtomicU64| {
            Duration::from_millis(now_ms.saturating_sub(last_ms.load(Ordering::Relaxed)))
        };
        let was_refused = self.last_refused_ms.load(Ordering::Relaxed) > 0;
        since(&self.last_free_ms) > OVERLOADED_AFTER
            || was_refused && since(&self.last_refused_ms) < RELIEVED_AFTER
    }

    fn refuse(&self) -> Response {
        telemetry::shed(Shed::Requests);
        self.last_refused_ms.store(self.now_ms(), Ordering::Relaxed);
        let detail = "more requests come than can be served, and nothing was recorded: try again \
                      in a moment";
        Problem::new(ProblemKind::Overloaded, detail).into_response()
    }

    fn now_ms(&self) -> u64 {
        // Enough for some five hundred million years.
        self.started.elapsed().as_millis() as u64
    }
}

/// Counts a waiting request until it is dropped, also when its client closes the connection.
struct Waiting<'a>(&'a AtomicU64);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The service behind the limits.
pub(super) trait Routes:
    Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S> Routes for S where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// The layer.
#[derive(Clone, Debug)]
pub(super) struct LimitConcurrency<S> {
    limiter: Arc<ConcurrencyLimiter>,
    routes: S,
}

impl<S> LimitConcurrency<S> {
    pub(super) fn new(limiter: ConcurrencyLimiter, routes: S) -> Self {
        Self { limiter: Arc::new(limiter), routes }
    }
}

impl<S: Routes> Service<Request> for LimitConcurrency<S> {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    /// Axum's routes are always ready, and a request without a permit is answered too.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let (limiter, routes) = (Arc::clone(&self.limiter), self.routes.clone());
        Box::pin(async move { Ok(limiter.answer(request, routes).await) })
    }
}
