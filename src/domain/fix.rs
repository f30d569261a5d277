//! The mark that an operator sets on an anomaly whose cause is fixed.

use serde::{Deserialize, Serialize};

use super::{Actor, AnomalyKey, EventId, Timestamp};

/// The time for which a mark holds: 90 days.
pub const FIX_VALIDITY_SECONDS: i64 = 90 * 86_400;

/// A mark to set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixMark {
    /// The anomaly whose cause is fixed.
    pub key: AnomalyKey,
    /// The id by which a second copy of the mark is recognised.
    pub id: EventId,
    /// The time from which it holds.
    pub at: Timestamp,
    /// The description of the fix.
    pub description: String,
    /// The person who reports the fix.
    pub fixed_by: Option<String>,
    /// The caller.
    pub actor: Actor,
}

/// A mark to remove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixRemoval {
    /// The anomaly whose cause is not fixed after all.
    pub key: AnomalyKey,
    /// The id by which a second copy of the removal is recognised.
    pub id: EventId,
    /// The time of the removal.
    pub at: Timestamp,
    /// Why the mark is removed, where that was given.
    pub reason: Option<String>,
    /// The caller.
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
