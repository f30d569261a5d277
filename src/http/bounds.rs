//! Keeps the work in bounds: so many requests at the same time, and none of them for ever. What is
//! beyond is refused at once, so that what is accepted keeps its latency.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use tokio::{sync::Semaphore, time};

use super::{
    HttpConfig,
    problem::{Problem, ProblemKind},
};

/// The places for requests, and for how long one may be kept.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    places: Arc<Semaphore>,
    response_timeout: Duration,
}

impl Limits {
    pub(super) fn new(config: HttpConfig) -> Self {
        Self {
            places: Arc::new(Semaphore::new(config.max_concurrent_requests.get().into())),
            response_timeout: Duration::from_secs(config.response_timeout_seconds.get().into()),
        }
    }
}

/// Answers a request within the bounds, or with a 503.
pub(super) async fn within(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let Ok(_place) = limits.places.try_acquire() else {
        let detail = "more requests are under way than can be served, and nothing was recorded: try \
                      again in a moment";
        return Problem::new(ProblemKind::Overloaded, detail).into_response();
    };
    match time::timeout(limits.response_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = "the answer took too long, so that a write may or may not have taken \
                          effect: try again in a moment, with the same event_id so that it counts \
                          once";
            Problem::new(ProblemKind::Unavailable, detail).into_response()
        }
    }
}
