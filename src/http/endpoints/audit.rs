//! `/anomalies/{key}/audit`: who has done what about an anomaly.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::endpoint::Endpoint;
use crate::{
    auth::Scope,
    counter::Answered,
    domain::{Actor, AnomalyKey, AuditEntry, AuditEvent, Timestamp},
    http::{
        bodies::{DegradedBody, schemas},
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

/// The audit of an anomaly: who has changed what about it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Audit)]
struct AuditBody {
    #[schema(value_type = schemas::AnomalyKey)]
    anomaly_key: AnomalyKey,
    /// The newest 100 entries, newest first.
    #[schema(max_items = 100)]
    entries: Vec<EntryBody>,
    #[serde(flatten)]
    degraded: DegradedBody,
}

/// One change of the anomaly.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
struct EntryBody {
    /// The time of the change.
    #[schema(value_type = schemas::Time)]
    at: Timestamp,
    /// The name that the caller gave (`fixed_by` or `removed_by`), or else the name of the token;
    /// null if there was neither.
    #[schema(required, example = "ana")]
    by: Option<String>,
    /// The name of the token that the request was made with; null if there was none, or if an older
    /// version of the service has written the entry.
    #[schema(required, example = "console")]
    token: Option<String>,
    /// The `x-request-id` of the request that made the change; null if it is not known.
    #[schema(required, example = "0192f3c1-7d1e-7c63-9a0f-6f8a7f3b2c11")]
    request_id: Option<String>,
    #[serde(flatten)]
    event: AuditEventBody,
}

/// The kind of a change, and what belongs to it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEvent)]
#[serde(tag = "event", rename_all = "snake_case")]
enum AuditEventBody {
    /// The cause was marked as fixed.
    MarkedFixed {
        /// What was done to fix the cause.
        fix_description: String,
    },
    /// The mark was removed.
    UnmarkedFixed {
        /// The reason that was given; null if there was none.
        #[schema(required, example = "it came back under load")]
        reason: Option<String>,
    },
    /// A repair was attempted.
    RepairAttempted {
        /// The name of the action.
        action: String,
        /// True if it worked.
        success: bool,
    },
}

impl From<AuditEntry> for EntryBody {
    fn from(AuditEntry { at, actor, event }: AuditEntry) -> Self {
        let Actor { by, token, request_id } = actor;
        let event = match event {
            AuditEvent::MarkedFixed { description } => {
                AuditEventBody::MarkedFixed { fix_description: description }
            }
            AuditEvent::UnmarkedFixed { reason } => AuditEventBody::UnmarkedFixed { reason },
            AuditEvent::RepairAttempted { action, success } => {
                AuditEventBody::RepairAttempted { action, success }
            }
        };
        Self { at, by, token, request_id, event }
    }
}

/// Read who has changed what about an anomaly.
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
