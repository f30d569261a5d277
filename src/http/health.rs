//! `/healthz` and `/readyz`, for whoever runs the process.

use axum::{Json, extract::State};
use serde::Serialize;

use super::AppState;
use crate::domain::Timestamp;

/// That the process lives.
#[derive(Debug, Serialize)]
pub(super) struct HealthBody {
    status: &'static str,
}

/// How it can take work.
#[derive(Debug, Serialize)]
pub(super) struct ReadyBody {
    /// `ready`, or `degraded` while the store does not answer.
    status: &'static str,
    store: &'static str,
    degraded: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    degraded_since: Option<Timestamp>,
}

/// `GET /healthz`.
pub(super) async fn health() -> Json<HealthBody> {
    Json(HealthBody { status: "ok" })
}

/// `GET /readyz`. Degraded is still ready: taking every instance out of service when the store
/// that they share is away would turn clear 503 answers into refused connections.
pub(super) async fn ready(State(state): State<AppState>) -> Json<ReadyBody> {
    let readiness = state.counter.readiness().await;
    let degraded = readiness.degraded_since.is_some();
    Json(ReadyBody {
        status: if degraded { "degraded" } else { "ready" },
        store: readiness.store,
        degraded,
        degraded_since: readiness.degraded_since,
    })
}
