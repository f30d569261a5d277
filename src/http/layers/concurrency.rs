//! Limits the number of requests that are handled at the same time, and the time that each takes. A
//! burst may wait for a permit; in a longer overload new requests are refused at once, so that
//! those that are accepted keep their latency.

use std::{
    future::pending,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use axum::{
    http::request::Parts,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{self, Instant},
};

use super::{
    access::Admitted,
    body_limiter::{BodyLimiter, RequestBody},
};
use crate::{
    http::{
        config::{AlertmanagerConfig, HttpConfig},
        endpoints::BodyKind,
        problem::{Problem, ProblemKind},
        server::ClientConnection,
    },
    telemetry::{self, Shed},
};

/// Maximum time that a request waits for a permit: in a burst, and in an overload. This is
/// "controlled delay" as in Ben Maurer, "Fail at Scale", ACM Queue 13 (8), 2015. The first is
/// longer than the timeout of a Redis command: a command that hangs must not look like an overload,
/// because the spool takes its write.
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
    /// The last times at which a permit was free for a new request, and at which one was refused,
    /// in milliseconds since `started`.
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

    /// Lets `handle` answer a request with its whole body, or refuses it. `admitted` is `None` if
    /// everybody may call.
    pub(super) async fn answer<F: Future<Output = Response>>(
        &self,
        connection: &ClientConnection,
        kind: BodyKind,
        admitted: Option<Admitted>,
        head: Parts,
        body: impl RequestBody,
        handle: impl FnOnce(Option<Admitted>, Parts, Bytes) -> F,
    ) -> Response {
        if self.is_queue_full() {
            return self.refuse();
        }
        // The body is read before the request takes a permit, so that a slow sender does not keep
        // it from others.
        let caller = admitted.as_ref().map(|admitted| &admitted.caller);
        let read = self.bodies.read(kind, caller, &head, body).await;
        let (body, _body_permit) = match read {
            Ok(read) => read,
            Err(problem) => return problem.into_response(),
        };
        let Some(_busy) = connection.slot.begin_request() else {
            // The connection is closing, so that a write would have no answer.
            return pending().await;
        };
        let Some(_permit) = self.permit().await else { return self.refuse() };
        let timeout = Duration::from_secs(self.config.response_timeout_seconds.get().into());
        time::timeout(timeout, handle(admitted, head, body)).await.unwrap_or_else(|_| {
            let detail =
                "the response took too long, so a write may or may not have taken effect: try \
                 again in a moment with the same event_id, so that it counts once";
            Problem::new(ProblemKind::Unavailable, detail).into_response()
        })
    }

    /// Waits for a permit; returns `None` on a timeout.
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

    /// Returns whether enough requests wait in an overload: a few of them keep all permits in use,
    /// and more would only wait longer.
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
        let detail = "there are more requests than the service can handle, and this one had no \
                      effect: try again in a moment";
        Problem::new(ProblemKind::Overloaded, detail).into_response()
    }

    fn now_ms(&self) -> u64 {
        // 64 bits are enough for some five hundred million years.
        self.started.elapsed().as_millis() as u64
    }
}

/// Counts a waiting request until it is dropped, also when its connection is closed.
struct Waiting<'a>(&'a AtomicU64);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
