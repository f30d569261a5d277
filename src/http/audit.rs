//! `/anomalies/{key}/audit`: who has done what about an anomaly; and where a write comes from.

use std::convert::Infallible;

use axum::{
    Json,
    extract::{FromRequestParts, State},
    http::request::Parts,
};
use serde::Serialize;
use tower_http::request_id::RequestId;
use utoipa::ToSchema;

use super::{AppState, path::KeyPath, problem::Problem, schemas};
use crate::{
    auth::Caller,
    domain::{Actor, AnomalyKey, AuditEntry, AuditEvent, Timestamp},
};

/// Who has done what about an anomaly.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Audit)]
pub(super) struct AuditBody {
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
    /// The name of the token that was shown, or else the `fixed_by` that was given; null where there
    /// was neither.
    #[schema(required, example = "ana")]
    by: Option<String>,
    /// The `x-request-id` of the request.
    #[schema(required, example = "0192f3c1-7d1e-7c63-9a0f-6f8a7f3b2c11")]
    request_id: Option<String>,
    #[serde(flatten)]
    event: AuditEventBody,
}

/// What was done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEvent)]
#[serde(tag = "event", rename_all = "snake_case")]
enum AuditEventBody {
    /// It was marked as permanently fixed.
    MarkedFixed {
        /// What was done about the cause.
        fix_description: String,
    },
    /// The mark was taken back.
    UnmarkedFixed,
    /// A repair was tried.
    RepairAttempted {
        /// What was tried.
        action: String,
        /// Whether it worked.
        success: bool,
    },
}

impl From<AuditEntry> for EntryBody {
    fn from(AuditEntry { at, actor, event }: AuditEntry) -> Self {
        let Actor { by, request_id } = actor;
        let event = match event {
            AuditEvent::MarkedFixed { description } => {
                AuditEventBody::MarkedFixed { fix_description: description }
            }
            AuditEvent::UnmarkedFixed => AuditEventBody::UnmarkedFixed,
            AuditEvent::RepairAttempted { action, success } => {
                AuditEventBody::RepairAttempted { action, success }
            }
        };
        Self { at, by, request_id, event }
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
pub(super) async fn audit(
    State(state): State<AppState>,
    KeyPath(key): KeyPath,
) -> Result<Json<AuditBody>, Problem> {
    let entries = state.counter.audit(state.counter.now(), key).await?;
    let entries = entries.ok_or_else(|| Problem::unknown_anomaly(key))?;
    Ok(Json(AuditBody { anomaly_key: key, entries: entries.into_iter().map(Into::into).collect() }))
}

/// Where a request comes from.
#[derive(Debug)]
pub(super) struct CameFrom(Actor);

impl CameFrom {
    /// For a write. Without a token it is by whom the caller says.
    pub(super) fn said_by(self, who: Option<&str>) -> Actor {
        let Actor { by, request_id } = self.0;
        Actor { by: by.or_else(|| who.map(str::to_owned)), request_id }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for CameFrom {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let caller = parts.extensions.get::<Caller>();
        let by = caller.and_then(Caller::name).map(str::to_owned);
        let id = parts.extensions.get::<RequestId>();
        let request_id = id.and_then(|id| id.header_value().to_str().ok()).map(str::to_owned);
        Ok(Self(Actor { by, request_id }))
    }
}
