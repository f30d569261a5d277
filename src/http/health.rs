//! `/healthz` and `/readyz`, for whoever runs the process.

use axum::{Json, extract::State};
use serde::Serialize;

use super::AppState;
use crate::{counter::HealthState, domain::Timestamp};

/// That the process lives.
#[derive(Debug, Serialize)]
pub(super) struct HealthBody {
    status: &'static str,
}

/// How it can take work.
#[derive(Debug, Serialize)]
pub(super) struct ReadyBody {
    /// `ready`; `degraded` while the store does not answer; `replaying` while what has waited is
    /// being carried out.
    status: &'static str,
    store: &'static str,
    degraded: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    degraded_since: Option<Timestamp>,
    spool: SpoolBody,
}

/// What waits for the store.
#[derive(Debug, Serialize)]
struct SpoolBody {
    operations: usize,
    bytes: u64,
    age_seconds: i64,
}

/// `GET /healthz`.
pub(super) async fn health() -> Json<HealthBody> {
    Json(HealthBody { status: "ok" })
}

/// `GET /readyz`. Degraded is still ready: taking every instance out of service when the store
/// that they share is away would turn answers into refused connections.
pub(super) async fn ready(State(state): State<AppState>) -> Json<ReadyBody> {
    let readiness = state.counter.readiness().await;
    let status = match readiness.state {
        HealthState::Healthy => "ready",
        HealthState::Degraded => "degraded",
        HealthState::Replaying => "replaying",
    };
    Json(ReadyBody {
        status,
        store: readiness.store,
        degraded: readiness.state != HealthState::Healthy,
        degraded_since: readiness.since,
        spool: SpoolBody {
            operations: readiness.spool.operations,
            bytes: readiness.spool.bytes,
            age_seconds: readiness.spool.age_seconds,
        },
    })
}
