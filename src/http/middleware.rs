//! What happens around every request.

use std::any::Any;

use axum::{
    Router,
    extract::Request,
    response::{IntoResponse as _, Response},
};
use tower::ServiceBuilder;
use tower_http::{
    catch_panic::CatchPanicLayer,
    request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer},
    trace::{DefaultOnResponse, TraceLayer},
};
use tracing::{Level, Span, field::Empty};

use super::problem::{Problem, ProblemKind};

/// Wraps all routes, the fallbacks among them.
pub(super) fn around(routes: Router) -> Router {
    let stack = ServiceBuilder::new()
        // First the id, so that all that follows can name it.
        .layer(SetRequestIdLayer::x_request_id(NewRequestId))
        // The span is around all that is logged of a request. A line for each request only at
        // `debug`; errors are logged where they are known, and an outage is not one line a request.
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(span)
                .on_request(())
                .on_response(DefaultOnResponse::new().level(Level::DEBUG))
                .on_failure(()),
        )
        // Inside the span, so that the answer to a panic has the id too.
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(CatchPanicLayer::custom(panicked));
    routes.layer(stack)
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

fn span(request: &Request) -> Span {
    let span = tracing::info_span!(
        "request",
        method = %request.method(),
        path = request.uri().path(),
        request_id = Empty
    );
    if let Some(id) = request.extensions().get::<RequestId>() {
        span.record("request_id", id.header_value().to_str().unwrap_or_default());
    }
    span
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
