//! The operation of a spool record of version 1, which commit 8c08e13 and those before it wrote. It
//! is only read. postcard numbers variants by their position, and writes fields in their order, so
//! that neither may change here.

use serde::Deserialize;

use crate::domain::{
    Action, Actor, AnomalyKey, EventId, FixMark, FixRemoval, Occurrence, Operation, RepairAttempt,
    Timestamp,
};

/// Those without an actor are from before the spool kept one.
#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
pub(super) enum OperationV1 {
    Occurrence(Occurrence),
    RepairWithoutActor {
        key: AnomalyKey,
        id: EventId,
        action: Action,
        success: bool,
        at: Timestamp,
    },
    MarkWithoutActor {
        key: AnomalyKey,
        id: EventId,
        at: Timestamp,
        description: String,
        fixed_by: Option<String>,
    },
    UnmarkWithoutActor {
        key: AnomalyKey,
        id: EventId,
        at: Timestamp,
    },
    Repair(RepairAttempt),
    Mark(FixMark),
    Unmark(FixRemoval),
}

impl From<OperationV1> for Operation {
    fn from(operation: OperationV1) -> Self {
        let actor = Actor::default();
        match operation {
            OperationV1::Occurrence(occurrence) => Self::Occurrence(occurrence),
            OperationV1::RepairWithoutActor { key, id, action, success, at } => {
                Self::Repair(RepairAttempt { key, id, action, success, at, actor })
            }
            OperationV1::MarkWithoutActor { key, id, at, description, fixed_by } => {
                Self::Mark(FixMark { key, id, at, description, fixed_by, actor })
            }
            OperationV1::UnmarkWithoutActor { key, id, at } => {
                Self::Unmark(FixRemoval { key, id, at, actor })
            }
            OperationV1::Repair(attempt) => Self::Repair(attempt),
            OperationV1::Mark(mark) => Self::Mark(mark),
            OperationV1::Unmark(removal) => Self::Unmark(removal),
        }
    }
}
