//! Who has done what about an anomaly, and when.

use serde::{Deserialize, Serialize};

use super::{FixMark, FixRemoval, RepairAttempt, Timestamp};

/// How many entries an anomaly's audit keeps.
pub const AUDIT_ENTRIES: usize = 100;

/// Where a write came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Whose token was shown; else who the caller says it was.
    pub by: Option<String>,
    /// The id of the request.
    pub request_id: Option<String>,
}

/// One event that had an effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When it was done.
    pub at: Timestamp,
    /// By whom, in which request.
    pub actor: Actor,
    /// What was done.
    pub event: AuditEvent,
}

/// What can be done about an anomaly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuditEvent {
    /// It was marked as permanently fixed.
    MarkedFixed {
        /// What was done about the cause.
        description: String,
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

impl From<&FixMark> for AuditEntry {
    fn from(mark: &FixMark) -> Self {
        let event = AuditEvent::MarkedFixed { description: mark.description.clone() };
        Self { at: mark.at, actor: mark.actor.clone(), event }
    }
}

impl From<&FixRemoval> for AuditEntry {
    fn from(removal: &FixRemoval) -> Self {
        Self { at: removal.at, actor: removal.actor.clone(), event: AuditEvent::UnmarkedFixed }
    }
}

impl From<&RepairAttempt> for AuditEntry {
    fn from(attempt: &RepairAttempt) -> Self {
        let action = attempt.action.to_string();
        let event = AuditEvent::RepairAttempted { action, success: attempt.success };
        Self { at: attempt.at, actor: attempt.actor.clone(), event }
    }
}
