//! `/anomalies/{key}/audit`: who has done what about an anomaly.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::endpoint::Endpoint;
use crate::{
    auth::Scope,
    domain::{Actor, AnomalyKey, AuditEntry, AuditEvent, Timestamp},
    http::{
        bodies::schemas,
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

/// The audit of an anomaly: who has done what.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Audit)]
struct AuditBody {
    #[schema(value_type = schemas::AnomalyKey)]
    anomaly_key: AnomalyKey,
    /// Newest first, 100 at the most.
    #[schema(max_items = 100)]
    entries: Vec<EntryBody>,
}

/// One event that had an effect.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
struct EntryBody {
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
    /// The `x-request-id` of the request.
    #[schema(required, example = "0192f3c1-7d1e-7c63-9a0f-6f8a7f3b2c11")]
    request_id: Option<String>,
    #[serde(flatten)]
    event: AuditEventBody,
}

/// An event of the audit.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEvent)]
#[serde(tag = "event", rename_all = "snake_case")]
enum AuditEventBody {
    /// It was marked as permanently fixed.
    MarkedFixed {
        /// The fix of the cause.
        fix_description: String,
    },
    /// The mark was removed.
    UnmarkedFixed {
        /// The reason that was given; null if there was none.
        #[schema(required, example = "it came back under load")]
        reason: Option<String>,
    },
    /// A repair was tried.
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

/// Ask who has done what about an anomaly.
///
/// Marks of a permanent fix, their removals and repairs that had an effect.
#[utoipa::path(
    get,
    path = "/anomalies/{key}/audit",
    tag = "anomalies",
    params(("key" = schemas::AnomalyKey, Path)),
    responses((status = 200, description = "The newest 100, newest first.", body = AuditBody)),
)]
async fn audit(
    State(state): State<AppState>,
    KeyPath(key): KeyPath,
) -> Result<Json<AuditBody>, Problem> {
    let entries = state.counter.audit(state.counter.moment(), key).await?;
    let entries = entries.ok_or_else(|| Problem::unknown_anomaly(key))?;
    Ok(Json(AuditBody { anomaly_key: key, entries: entries.into_iter().map(Into::into).collect() }))
}
