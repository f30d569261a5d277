//! A write in itself: what a caller wants changed, with its id and time, so that it can be kept and
//! carried out later, once, whoever carries it out.

use serde::{Deserialize, Serialize};

use super::{
    Action, Actor, AnomalyKey, EventId, FixMark, FixRemoval, Occurrence, RepairAttempt, Timestamp,
};

/// A write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub enum Operation {
    /// An occurrence of an anomaly.
    Occurrence(Occurrence),
    /// A repair attempt.
    Repair(RepairAttempt),
    /// A permanent fix is marked.
    Mark(FixMark),
    /// A permanent fix is taken back.
    Unmark(FixRemoval),
}

impl Operation {
    /// Whose anomaly it is about.
    pub fn key(&self) -> AnomalyKey {
        match self {
            Self::Occurrence(occurrence) => occurrence.key,
            Self::Repair(attempt) => attempt.key,
            Self::Mark(mark) => mark.key,
            Self::Unmark(removal) => removal.key,
        }
    }

    /// By what a second copy is recognised.
    pub fn id(&self) -> &EventId {
        match self {
            Self::Occurrence(occurrence) => &occurrence.id,
            Self::Repair(attempt) => &attempt.id,
            Self::Mark(mark) => &mark.id,
            Self::Unmark(removal) => &removal.id,
        }
    }

    /// When it happened.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Occurrence(occurrence) => occurrence.at,
            Self::Repair(attempt) => attempt.at,
            Self::Mark(mark) => mark.at,
            Self::Unmark(removal) => removal.at,
        }
    }

    /// What it is, as operators call it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Occurrence(_) => "occurrence",
            Self::Repair(_) => "repair",
            Self::Mark(_) => "permanent fix",
            Self::Unmark(_) => "undoing of a permanent fix",
        }
    }
}

/// An operation as a spool's file has it. The order of the variants and of their fields is its format.
#[derive(Serialize, Deserialize)]
enum Stored {
    Occurrence(Occurrence),
    RepairOfNobody {
        key: AnomalyKey,
        id: EventId,
        action: Action,
        success: bool,
        at: Timestamp,
    },
    MarkOfNobody {
        key: AnomalyKey,
        id: EventId,
        at: Timestamp,
        description: String,
        fixed_by: Option<String>,
    },
    UnmarkOfNobody {
        key: AnomalyKey,
        id: EventId,
        at: Timestamp,
    },
    Repair(RepairAttempt),
    Mark(FixMark),
    Unmark(FixRemoval),
}

impl From<Operation> for Stored {
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::Occurrence(occurrence) => Self::Occurrence(occurrence),
            Operation::Repair(attempt) => Self::Repair(attempt),
            Operation::Mark(mark) => Self::Mark(mark),
            Operation::Unmark(removal) => Self::Unmark(removal),
        }
    }
}

/// Those of nobody are from an earlier version, which did not keep where they came from.
impl From<Stored> for Operation {
    fn from(stored: Stored) -> Self {
        let actor = Actor::default();
        match stored {
            Stored::Occurrence(occurrence) => Self::Occurrence(occurrence),
            Stored::RepairOfNobody { key, id, action, success, at } => {
                Self::Repair(RepairAttempt { key, id, action, success, at, actor })
            }
            Stored::MarkOfNobody { key, id, at, description, fixed_by } => {
                Self::Mark(FixMark { key, id, at, description, fixed_by, actor })
            }
            Stored::UnmarkOfNobody { key, id, at } => {
                Self::Unmark(FixRemoval { key, id, at, actor })
            }
            Stored::Repair(attempt) => Self::Repair(attempt),
            Stored::Mark(mark) => Self::Mark(mark),
            Stored::Unmark(removal) => Self::Unmark(removal),
        }
    }
}
