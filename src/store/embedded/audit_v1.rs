//! The audit entry in rows of version 1, which commit 8c08e13 wrote too. It is only read. postcard
//! numbers variants by their position and writes fields in their order, so neither may change here.

use serde::Deserialize;

use crate::domain::{Actor, AuditEntry, AuditEvent, Timestamp};

#[derive(Debug, Deserialize)]
pub(super) struct AuditEntryV1 {
    at: Timestamp,
    actor: ActorV1,
    event: AuditEventV1,
}

/// `by` is the name of the token or, without a token, the name that the caller gave.
#[derive(Debug, Deserialize)]
struct ActorV1 {
    by: Option<String>,
    request_id: Option<String>,
}

#[derive(Debug, Deserialize)]
enum AuditEventV1 {
    MarkedFixed { description: String },
    UnmarkedFixed,
    RepairAttempted { action: String, success: bool },
}

impl From<AuditEntryV1> for AuditEntry {
    fn from(AuditEntryV1 { at, actor, event }: AuditEntryV1) -> Self {
        let ActorV1 { by, request_id } = actor;
        let event = match event {
            AuditEventV1::MarkedFixed { description } => AuditEvent::MarkedFixed { description },
            AuditEventV1::UnmarkedFixed => AuditEvent::UnmarkedFixed { reason: None },
            AuditEventV1::RepairAttempted { action, success } => {
                AuditEvent::RepairAttempted { action, success }
            }
        };
        Self { at, actor: Actor { by, token: None, request_id }, event }
    }
}
