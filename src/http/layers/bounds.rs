//! Keeps the work in bounds: so many requests at the same time, and none of them for ever. A burst may
//! wait for its turn; what comes while the service is overloaded for longer is refused at once, so
//! that what is accepted keeps its latency.

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

use super::intake::BodyLimiter;
use crate::{
    http::{
        HttpConfig,
        problem::{Problem, ProblemKind},
        server::Place,
    },
    telemetry::{self, Shed},
};

/// How long a request waits for its turn: in a burst, and in an overload. This is "controlled delay" as
/// in Ben Maurer, "Fail at Scale", ACM Queue 13 (8), 2015. The first outlasts the time of a command to
/// Redis: one that hangs must not look like too much work, since the spool takes what it does not.
const BURST_PATIENCE: Duration = Duration::from_millis(800);
const OVERLOAD_PATIENCE: Duration = Duration::from_millis(10);
/// An overload begins where no place was free for so long, and ends where none was refused for so long.
const OVERLOADED_AFTER: Duration = Duration::from_millis(800);
const RELIEVED_AFTER: Duration = Duration::from_millis(100);

/// The places for requests, and for how long one may be kept. As a layer, it answers a request within these
/// bounds or with a 503.
#[derive(Debug)]
pub(super) struct ConcurrencyLimiter {
    config: HttpConfig,
    intake: BodyLimiter,
    places: Semaphore,
    /// How many wait for a place.
    waiting: AtomicU64,
    begun: Instant,
    /// When a place was last free for one that came, and when one was last refused, in milliseconds
    /// since `begun`.
    last_free_ms: AtomicU64,
    last_refused_ms: AtomicU64,
}

impl ConcurrencyLimiter {
    pub(super) fn new(config: HttpConfig) -> Self {
        Self {
            config,
            intake: BodyLimiter::new(config),
            places: Semaphore::new(config.max_concurrent_requests.get().into()),
            waiting: AtomicU64::new(0),
            begun: Instant::now(),
            last_free_ms: AtomicU64::new(0),
            last_refused_ms: AtomicU64::new(0),
        }
    }

    /// Answers a request by `routes`, or refuses it.
    async fn answer<S: Routes>(&self, request: Request, mut routes: S) -> Response {
        if is_probe(request.uri().path()) {
            return routes.call(request).await.into_response();
        }
        if self.is_beyond() {
            return self.refuse();
        }
        let connection = request.extensions().get::<Arc<Place>>().cloned();
        // Before it has a place: a sender that takes his time keeps it from nobody.
        let (request, _permit) = match self.intake.take(request).await {
            Ok(taken) => taken,
            Err(problem) => return problem.into_response(),
        };
        let asking = connection.as_ref().map(|connection| connection.ask());
        if matches!(asking, Some(None)) {
            // The connection ends: nothing may happen any more that nobody is told of.
            return pending().await;
        }
        let Some(_place) = self.place().await else { return self.refuse() };
        let patience = Duration::from_secs(self.config.response_timeout_seconds.get().into());
        time::timeout(patience, routes.call(request)).await.map_or_else(
            |_| {
                let detail =
                    "the answer took too long, so that a write may or may not have taken effect: \
                     try again in a moment, with the same event_id so that it counts once";
                Problem::new(ProblemKind::Unavailable, detail).into_response()
            },
            IntoResponse::into_response,
        )
    }

    /// A place, where there is one within the time that there is to wait.
    async fn place(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(place) = self.places.try_acquire() {
            self.last_free_ms.store(self.now_ms(), Ordering::Relaxed);
            return Some(place);
        }
        let patience = if self.is_overloaded() { OVERLOAD_PATIENCE } else { BURST_PATIENCE };
        let _told = telemetry::waiting_request();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waits = Waits(&self.waiting);
        time::timeout(patience, self.places.acquire()).await.ok()?.ok()
    }

    /// Whether one more would wait in vain: a few that wait are enough to keep the places taken.
    fn is_beyond(&self) -> bool {
        let most = u64::from(self.config.max_concurrent_requests.get()) / 4;
        self.is_overloaded() && self.waiting.load(Ordering::Relaxed) > most
    }

    fn is_overloaded(&self) -> bool {
        if self.places.available_permits() > 0 {
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
        let detail = "more requests come than can be served, and nothing was recorded: try again in \
                      a moment";
        Problem::new(ProblemKind::Overloaded, detail).into_response()
    }

    fn now_ms(&self) -> u64 {
        // For some five hundred million years it has room.
        self.begun.elapsed().as_millis() as u64
    }
}

/// One that waits; also one whose client has gone away meanwhile waits no more.
struct Waits<'a>(&'a AtomicU64);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is within the bounds.
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

/// Routes within bounds.
#[derive(Clone, Debug)]
pub(super) struct Bounded<S> {
    bounds: Arc<ConcurrencyLimiter>,
    routes: S,
}

impl<S> Bounded<S> {
    pub(super) fn new(bounds: ConcurrencyLimiter, routes: S) -> Self {
        Self { bounds: Arc::new(bounds), routes }
    }
}

impl<S: Routes> Service<Request> for Bounded<S> {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    /// Axum's routes always are; that there is no place is an answer too.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let (bounds, routes) = (Arc::clone(&self.bounds), self.routes.clone());
        Box::pin(async move { Ok(bounds.answer(request, routes).await) })
    }
}

/// Whoever looks after the service is answered also when it has more to do than it can.
pub(super) fn is_probe(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}
