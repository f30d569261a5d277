//! `/anomalies/{key}/audit`: who has changed what about an anomaly.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::endpoint::{Endpoint, routes};
use crate::{
    auth::Scope,
    counter::Answered,
    domain::AnomalyKey,
    http::{
        bodies::{AuditEntryBody, DegradedBody, schemas},
        extract::KeyPath,
        json::Json,
        problem::{Problem, ProblemKind},
        state::AppState,
    },
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("anomalies.audit", routes!(audit))
            .scope(Scope::Read)
            .problems(&[ProblemKind::InvalidKey, ProblemKind::UnknownAnomaly]),
    ]
}

/// The audit of an anomaly: who changed what about it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Audit)]
struct AuditBody {
    #[schema(value_type = schemas::AnomalyKey)]
    anomaly_key: AnomalyKey,
    /// The newest 100 entries, newest first.
    #[schema(max_items = 100)]
    entries: Vec<AuditEntryBody>,
    #[serde(flatten)]
    degraded: DegradedBody,
}

/// Read who changed what about an anomaly.
///
/// Lists the marks of a permanent fix, the removals of such marks, and the repair attempts. A
/// repeated request that changed nothing is not listed.
#[utoipa::path(
    get,
    path = "/anomalies/{key}/audit",
    tag = "anomalies",
    params(("key" = schemas::AnomalyKey, Path)),
    responses((status = 200, description = "The audit.", body = AuditBody)),
)]
async fn audit(
    State(state): State<AppState>,
    KeyPath(key): KeyPath,
) -> Result<Json<AuditBody>, Problem> {
    let entries = state.counter.audit(state.counter.moment(), key).await?;
    let Answered { value, degraded } = entries.ok_or_else(|| Problem::unknown_anomaly(key))?;
    let entries = value.into_iter().map(Into::into).collect();
    Ok(Json(AuditBody { anomaly_key: key, entries, degraded: degraded.into() }))
}
