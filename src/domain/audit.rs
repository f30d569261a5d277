//! The audit of an anomaly: who changed it, how, and when.

use serde::{Deserialize, Serialize};

use super::{FixMark, FixRemoval, RepairAttempt, Timestamp};

/// Maximum number of entries in an anomaly's audit.
pub const AUDIT_ENTRIES: usize = 100;

/// The caller of a write, for the audit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The name that the caller gave; otherwise, the name of the token.
    pub by: Option<String>,
    /// The name of the token that was presented.
    pub token: Option<String>,
    /// The id of the request.
    pub request_id: Option<String>,
}

/// One write that had an effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// The time of the write.
    pub at: Timestamp,
    /// The caller of the write.
    pub actor: Actor,
    /// The change that was made.
    pub event: AuditEvent,
}

/// A change that people or machines can make to an anomaly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuditEvent {
    /// It was marked as permanently fixed.
    MarkedFixed {
        /// The description of the fix.
        description: String,
    },
    /// The mark was removed.
    UnmarkedFixed {
        /// The reason, if one was given.
        reason: Option<String>,
    },
    /// A repair was attempted.
    RepairAttempted {
        /// The name of the action.
        action: String,
        /// True if the repair succeeded.
        success: bool,
    },
}

impl From<&FixMark> for AuditEntry {
    fn from(mark: &FixMark) -> Self {
        let event = AuditEvent::MarkedFixed { description: mark.description.clone() };
        Self { at: mark.at, actor: mark.actor.clone(), event }
    }
}

impl From<&FixRemoval> for AuditEntry {
    fn from(removal: &FixRemoval) -> Self {
        let event = AuditEvent::UnmarkedFixed { reason: removal.reason.clone() };
        Self { at: removal.at, actor: removal.actor.clone(), event }
    }
}

impl From<&RepairAttempt> for AuditEntry {
    fn from(attempt: &RepairAttempt) -> Self {
        let action = attempt.action.to_string();
        let event = AuditEvent::RepairAttempted { action, success: attempt.success };
        Self { at: attempt.at, actor: attempt.actor.clone(), event }
    }
}
