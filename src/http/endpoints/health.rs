//! `/healthz` and `/readyz`: the state of the process, for operators and orchestrators.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::endpoint::{Endpoint, Routine, routes};
use crate::{
    counter::HealthState,
    domain::Timestamp,
    http::{bodies::schemas, json::Json, state::AppState},
    telemetry::Label as _,
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("health.live", routes!(live)).public().routine(Routine::Probe).any_query(),
        Endpoint::new("health.ready", routes!(ready)).public().routine(Routine::Probe).any_query(),
    ]
}

/// The response of a process that is alive.
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
    /// `ready` if the store works, `degraded` while it accepts no writes, and `replaying` while the
    /// writes that waited are applied.
    #[schema(pattern = "^(ready|degraded|replaying)$", example = "ready")]
    status: &'static str,
    /// The kind of store: `embedded` or `redis`.
    #[schema(pattern = "^(embedded|redis)$", example = "redis")]
    store: &'static str,
    /// True while `status` is not `ready`: answers may be estimates.
    degraded: bool,
    /// The beginning of the outage. Present while `status` is not `ready`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<schemas::Time>)]
    degraded_since: Option<Timestamp>,
    /// The reason why the store, or a part of it, accepts no writes. Present only then. One of
    /// `timeout`, `unreachable`, `auth`, `permission`, `readonly`, `loading`, `busy`, `memory`,
    /// `disk`, `replicas`, `cluster` and `refused`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, pattern = "^[a-z]+$", example = "readonly")]
    cause: Option<&'static str>,
    /// The difference between the clock of the machine and the time that the service uses, in
    /// seconds. Present while the clock is not trusted because it has jumped.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 3600)]
    clock_disagreement_seconds: Option<i64>,
    /// The checksum of the configuration that determines keys (the section `key` and
    /// `alertmanager.kubernetes`). Two instances with different checksums would split an anomaly.
    #[schema(pattern = "^[0-9a-f]{8}$", example = "5f3a9c21")]
    key_checksum: String,
    spool: SpoolBody,
    /// The checksum of the rules in force, for comparing instances.
    #[schema(pattern = "^[0-9a-f]{8}$", min_length = 8, max_length = 8, example = "1f2e3d4c")]
    rules_checksum: String,
}

/// The writes that wait for the store.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Spool)]
struct SpoolBody {
    /// False if the spool accepts no writes, because its file was deleted, moved or replaced, or
    /// because its disk fails, is full or does not respond. Present on Redis only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = true)]
    usable: Option<bool>,
    /// Number of writes that wait.
    #[schema(example = 0)]
    operations: usize,
    /// Size of these writes on disk, in bytes.
    #[schema(example = 0)]
    bytes: u64,
    /// Time since the spool was last empty, in seconds.
    #[schema(minimum = 0, example = 0)]
    age_seconds: i64,
}

/// Check whether the process is alive.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operation",
    responses((status = 200, description = "The process is alive.", body = HealthBody)),
)]
async fn live() -> Json<HealthBody> {
    Json(HealthBody { status: "ok" })
}

/// Check whether the service accepts requests, and how many writes wait.
///
/// The status code is 200 even while the state is degraded: otherwise, a load balancer would remove
/// every instance during an outage of their common store, and callers would get no response at all.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operation",
    responses((status = 200, description = "The service accepts requests.", body = ReadyBody)),
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
        key_checksum: format!("{:08x}", state.keys.checksum()),
        spool: SpoolBody {
            usable: readiness.spool_is_usable,
            operations: readiness.spool.operations,
            bytes: readiness.spool.bytes,
            age_seconds: readiness.spool.age_seconds,
        },
        rules_checksum: format!("{:08x}", readiness.rules_checksum),
    })
}
