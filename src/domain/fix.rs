//! The mark that an operator sets on an anomaly whose cause is fixed.

use serde::{Deserialize, Serialize};

use super::{Actor, AnomalyKey, EventId, Timestamp};

/// How long a mark holds: 90 days, in seconds.
pub const FIX_VALIDITY_SECONDS: i64 = 90 * 86_400;

/// A mark to be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixMark {
    /// The anomaly that is fixed.
    pub key: AnomalyKey,
    /// By what a second copy of the mark is recognised.
    pub id: EventId,
    /// From when on it holds.
    pub at: Timestamp,
    /// What was done about the cause.
    pub description: String,
    /// Who says so.
    pub fixed_by: Option<String>,
    /// Where it came from.
    pub actor: Actor,
}

/// A mark to be taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixRemoval {
    /// The anomaly that is not fixed after all.
    pub key: AnomalyKey,
    /// By what a second copy of the removal is recognised.
    pub id: EventId,
    /// When it was taken back.
    pub at: Timestamp,
    /// Where that came from.
    pub actor: Actor,
}

/// A mark that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermanentFix {
    /// What was done about the cause; absent where an older writer left only the mark.
    pub description: Option<String>,
    /// Who said so.
    pub fixed_by: Option<String>,
    /// When it was marked.
    pub marked_at: Timestamp,
}

impl From<FixMark> for PermanentFix {
    fn from(mark: FixMark) -> Self {
        let FixMark { description, fixed_by, at, .. } = mark;
        Self { description: Some(description), fixed_by, marked_at: at }
    }
}

impl PermanentFix {
    /// When the mark ends.
    pub fn expires_at(&self) -> Timestamp {
        self.marked_at.plus_seconds(FIX_VALIDITY_SECONDS)
    }
}
