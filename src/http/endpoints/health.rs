//! `/healthz` and `/readyz`, for whoever runs the process.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::endpoint::{Endpoint, Routine};
use crate::{
    counter::HealthState,
    domain::Timestamp,
    http::{bodies::schemas, json::Json, state::AppState},
    telemetry::Label as _,
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("health.live", routes!(live)).public().routine(Routine::Probe),
        Endpoint::new("health.ready", routes!(ready)).public().routine(Routine::Probe),
    ]
}

/// The process is alive.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Health)]
struct HealthBody {
    /// Always `ok`.
    #[schema(pattern = "^ok$", example = "ok")]
    status: &'static str,
}

/// The readiness of the service.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Readiness)]
struct ReadyBody {
    /// `ready`; `degraded` while the store takes no writes; `replaying` while writes that have
    /// waited are applied.
    #[schema(pattern = "^(ready|degraded|replaying)$", example = "ready")]
    status: &'static str,
    /// The store of the anomalies: `embedded` or `redis`.
    #[schema(pattern = "^(embedded|redis)$", example = "redis")]
    store: &'static str,
    /// True while `status` is not `ready`: answers may be made without the store.
    degraded: bool,
    /// The beginning of the outage; only while degraded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<schemas::Time>)]
    degraded_since: Option<Timestamp>,
    /// Why the store, or a part of it, takes no writes; only while it takes none. One of `timeout`,
    /// `unreachable`, `auth`, `permission`, `readonly`, `loading`, `busy`, `memory`, `disk`,
    /// `replicas`, `cluster` and `refused`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, pattern = "^[a-z]+$", example = "readonly")]
    cause: Option<&'static str>,
    /// How far the clock of the machine is from the time that the service goes by, in seconds;
    /// only while it is not trusted, because it has jumped.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 3600)]
    clock_disagreement_seconds: Option<i64>,
    spool: SpoolBody,
}

/// The writes that wait for the store.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Spool)]
struct SpoolBody {
    /// False while no write can wait: the spool's file was deleted, moved or replaced, or its disk
    /// fails, is full or does not answer. Only on Redis.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = true)]
    usable: Option<bool>,
    /// Number of writes.
    #[schema(example = 0)]
    operations: usize,
    /// Their size on disk, in bytes.
    #[schema(example = 0)]
    bytes: u64,
    /// Time that the oldest of them has waited, in seconds.
    #[schema(minimum = 0, example = 0)]
    age_seconds: i64,
}

/// Ask whether the process lives.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operation",
    responses((status = 200, description = "It does.", body = HealthBody)),
)]
async fn live() -> Json<HealthBody> {
    Json(HealthBody { status: "ok" })
}

/// Ask whether the service can take work, and how much waits.
///
/// Degraded is still ready: taking every instance out of service when the store that they share is
/// away would turn answers into refused connections.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operation",
    responses((status = 200, description = "It can.", body = ReadyBody)),
)]
async fn ready(State(state): State<AppState>) -> Json<ReadyBody> {
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
        cause: readiness.cause.map(|cause| cause.value()),
        clock_disagreement_seconds: readiness.clock_disagreement_seconds,
        spool: SpoolBody {
            usable: readiness.spool_is_usable,
            operations: readiness.spool.operations,
            bytes: readiness.spool.bytes,
            age_seconds: readiness.spool.age_seconds,
        },
    })
}
