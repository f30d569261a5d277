//! The mark that an operator sets on an anomaly whose cause is fixed.

use serde::{Deserialize, Serialize};

use super::{Actor, AnomalyKey, EventId, Timestamp};

/// The time for which a mark holds: 90 days.
pub const FIX_VALIDITY_SECONDS: i64 = 90 * 86_400;

/// A request to mark an anomaly as fixed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixMark {
    /// The anomaly whose cause is fixed.
    pub key: AnomalyKey,
    /// The id that identifies a second copy of the mark.
    pub id: EventId,
    /// The time from which the mark holds.
    pub at: Timestamp,
    /// The description of the fix.
    pub description: String,
    /// The person who reports the fix.
    pub fixed_by: Option<String>,
    /// The caller who sets the mark.
    pub actor: Actor,
}

/// A request to remove a mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixRemoval {
    /// The anomaly whose cause is not fixed after all.
    pub key: AnomalyKey,
    /// The id that identifies a second copy of the removal.
    pub id: EventId,
    /// The time of the removal.
    pub at: Timestamp,
    /// The reason for the removal, if one was given.
    pub reason: Option<String>,
    /// The caller who removes the mark.
    pub actor: Actor,
}

/// A mark that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermanentFix {
    /// The description of the fix; absent if an older writer left only the mark.
    pub description: Option<String>,
    /// The person who reported the fix.
    pub fixed_by: Option<String>,
    /// The time of the mark.
    pub marked_at: Timestamp,
}

impl From<FixMark> for PermanentFix {
    fn from(mark: FixMark) -> Self {
        let FixMark { description, fixed_by, at, .. } = mark;
        Self { description: Some(description), fixed_by, marked_at: at }
    }
}

impl PermanentFix {
    /// Returns the time at which the mark ends.
    pub fn expires_at(&self) -> Timestamp {
        self.marked_at.plus_seconds(FIX_VALIDITY_SECONDS)
    }
}
