//! A write as a value: the change that a caller requested, with its id and time, so that it can be
//! kept and applied later, exactly once.

use serde::{Deserialize, Serialize};

use super::{
    Actor, AnomalyKey, EventId, FixMark, FixRemoval, Occurrence, RepairAttempt, RuleRef, Timestamp,
};

/// The size of an operation without its texts, in bytes: the value itself, and the overhead of its
/// texts in memory. The names in a call to the store need no more.
pub(super) const OPERATION_BYTES: usize = 256;

/// A write. The order of the variants and of their fields is the format of the spool's records
/// (version 4): a change of it needs a new version there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// An occurrence of an anomaly.
    Occurrence(Occurrence),
    /// A repair attempt.
    Repair(RepairAttempt),
    /// A mark of a permanent fix.
    Mark(FixMark),
    /// A removal of such a mark.
    Unmark(FixRemoval),
}

impl Operation {
    /// Returns the key of the anomaly that it changes.
    pub fn key(&self) -> AnomalyKey {
        match self {
            Self::Occurrence(occurrence) => occurrence.key,
            Self::Repair(attempt) => attempt.key,
            Self::Mark(mark) => mark.key,
            Self::Unmark(removal) => removal.key,
        }
    }

    /// Returns the rule that judges its anomaly, if it is known.
    pub fn rule(&self) -> Option<&RuleRef> {
        match self {
            Self::Occurrence(occurrence) => occurrence.rule.as_ref(),
            Self::Repair(_) | Self::Mark(_) | Self::Unmark(_) => None,
        }
    }

    /// Returns the id that identifies a second copy.
    pub fn id(&self) -> &EventId {
        match self {
            Self::Occurrence(occurrence) => &occurrence.id,
            Self::Repair(attempt) => &attempt.id,
            Self::Mark(mark) => &mark.id,
            Self::Unmark(removal) => &removal.id,
        }
    }

    /// Returns its id if it is one that callers give, and can give again.
    pub fn event_id(&self) -> Option<&EventId> {
        match self {
            Self::Occurrence(_) | Self::Repair(_) => Some(self.id()),
            Self::Mark(_) | Self::Unmark(_) => None,
        }
    }

    /// Returns the time at which it happened.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Occurrence(occurrence) => occurrence.at,
            Self::Repair(attempt) => attempt.at,
            Self::Mark(mark) => mark.at,
            Self::Unmark(removal) => removal.at,
        }
    }

    /// Returns its approximate size in bytes, both in memory and in a call to the store.
    pub fn bytes(&self) -> usize {
        let actor = |actor: &Actor| {
            let texts = [&actor.by, &actor.token, &actor.request_id];
            texts.into_iter().flatten().map(String::len).sum::<usize>()
        };
        let texts = match self {
            Self::Occurrence(occurrence) => return occurrence.bytes(),
            Self::Repair(attempt) => attempt.action.as_str().len() + actor(&attempt.actor),
            Self::Mark(mark) => {
                let fixed_by = mark.fixed_by.as_ref().map_or(0, String::len);
                mark.description.len() + fixed_by + actor(&mark.actor)
            }
            Self::Unmark(removal) => {
                removal.reason.as_ref().map_or(0, String::len) + actor(&removal.actor)
            }
        };
        OPERATION_BYTES + self.id().as_str().len() + texts
    }

    /// Returns the name of its kind for operators.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Occurrence(_) => "occurrence",
            Self::Repair(_) => "repair",
            Self::Mark(_) => "permanent fix",
            Self::Unmark(_) => "undoing of a permanent fix",
        }
    }
}
