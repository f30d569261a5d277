//! A write in itself: what a caller wants changed, with its id and time, so that it can be kept and
//! carried out later, once, whoever carries it out.

use serde::{Deserialize, Serialize};

use super::{AnomalyKey, EventId, FixMark, FixRemoval, Occurrence, RepairAttempt, Timestamp};

/// A write. The order of the variants is part of the spool's file format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
