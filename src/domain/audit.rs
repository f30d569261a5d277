//! Who has done what about an anomaly, and when.

use serde::{Deserialize, Serialize};

use super::{FixMark, FixRemoval, RepairAttempt, Timestamp};

/// How many entries an anomaly's audit keeps.
pub const AUDIT_ENTRIES: usize = 100;

/// Where a write came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Whose token was shown; else who the caller says it was.
    pub by: Option<String>,
    /// The id of the request.
    pub request_id: Option<String>,
}

/// One deed that had an effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When it was done.
    pub at: Timestamp,
    /// By whom, in which request.
    pub origin: Origin,
    /// What was done.
    pub deed: Deed,
}

/// What can be done about an anomaly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deed {
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
        let deed = Deed::MarkedFixed { description: mark.description.clone() };
        Self { at: mark.at, origin: mark.origin.clone(), deed }
    }
}

impl From<&FixRemoval> for AuditEntry {
    fn from(removal: &FixRemoval) -> Self {
        Self { at: removal.at, origin: removal.origin.clone(), deed: Deed::UnmarkedFixed }
    }
}

impl From<&RepairAttempt> for AuditEntry {
    fn from(attempt: &RepairAttempt) -> Self {
        let action = attempt.action.to_string();
        let deed = Deed::RepairAttempted { action, success: attempt.success };
        Self { at: attempt.at, origin: attempt.origin.clone(), deed }
    }
}
