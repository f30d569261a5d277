//! Names of headers that several modules use.

use axum::http::HeaderName;

/// The caller's id for an event, as `event_id` in the body.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The header in which Grafana signs a delivery.
pub(super) const GRAFANA_SIGNATURE: HeaderName =
    HeaderName::from_static("x-grafana-alerting-signature");

/// The span of the request, by which the caller finds its trace.
pub(super) const TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// The id of the request, as it was sent or generated.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The store that does not answer; on every response while that lasts.
pub(super) const X_DEGRADED: HeaderName = HeaderName::from_static("x-degraded");
