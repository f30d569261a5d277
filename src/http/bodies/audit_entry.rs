//! An entry of an anomaly's audit.

use serde::Serialize;
use utoipa::ToSchema;

use super::schemas;
use crate::domain::{Actor, AuditEntry, AuditEvent, Timestamp};

/// One change of the anomaly.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub(in crate::http) struct AuditEntryBody {
    /// The time of the change.
    #[schema(value_type = schemas::Time)]
    at: Timestamp,
    /// The name in the request (`fixed_by` or `removed_by`) or, without it, the name of the token;
    /// null if there was neither.
    #[schema(required, example = "ana")]
    by: Option<String>,
    /// The name of the token of the request; null if there was none, or if an older version of the
    /// service wrote the entry.
    #[schema(required, example = "console")]
    token: Option<String>,
    /// The `x-request-id` of the request that made the change; null if unknown.
    #[schema(required, example = "0192f3c1-7d1e-7c63-9a0f-6f8a7f3b2c11")]
    request_id: Option<String>,
    #[serde(flatten)]
    event: AuditEventBody,
}

/// The kind of a change, and its details.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEvent)]
#[serde(tag = "event", rename_all = "snake_case")]
enum AuditEventBody {
    /// The cause was marked as fixed.
    MarkedFixed {
        /// A description of the fix.
        fix_description: String,
    },
    /// The mark was removed.
    UnmarkedFixed {
        /// The reason in the request; null if there was none.
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

impl From<AuditEntry> for AuditEntryBody {
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
