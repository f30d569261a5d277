//! The operation of a spool record of version 1, which commit 8c08e13 and those before it wrote. It
//! is only read. postcard numbers variants by their position, and writes fields in their order, so
//! that neither may change here.

use serde::Deserialize;

use super::record_v3::OccurrenceV3;
use crate::domain::{
    Action, Actor, AnomalyKey, EventId, FixMark, FixRemoval, Operation, RepairAttempt, Timestamp,
};

/// Those without an actor are from before the spool kept one.
#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
pub(super) enum OperationV1 {
    Occurrence(OccurrenceV3),
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
    Repair(RepairAttemptV1),
    Mark(FixMarkV1),
    Unmark(FixRemovalV1),
}

/// The caller of a write; `by` is the name of the token, or else the one that the caller gave.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
pub(super) struct ActorV1 {
    pub(super) by: Option<String>,
    pub(super) request_id: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
pub(super) struct RepairAttemptV1 {
    pub(super) key: AnomalyKey,
    pub(super) id: EventId,
    pub(super) action: Action,
    pub(super) success: bool,
    pub(super) at: Timestamp,
    pub(super) actor: ActorV1,
}

#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
pub(super) struct FixMarkV1 {
    pub(super) key: AnomalyKey,
    pub(super) id: EventId,
    pub(super) at: Timestamp,
    pub(super) description: String,
    pub(super) fixed_by: Option<String>,
    pub(super) actor: ActorV1,
}

#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
pub(super) struct FixRemovalV1 {
    pub(super) key: AnomalyKey,
    pub(super) id: EventId,
    pub(super) at: Timestamp,
    pub(super) actor: ActorV1,
}

impl From<ActorV1> for Actor {
    fn from(ActorV1 { by, request_id }: ActorV1) -> Self {
        Self { by, token: None, request_id }
    }
}

impl From<OperationV1> for Operation {
    fn from(operation: OperationV1) -> Self {
        let actor = Actor::default();
        match operation {
            OperationV1::Occurrence(occurrence) => Self::Occurrence(occurrence.into()),
            OperationV1::RepairWithoutActor { key, id, action, success, at } => {
                Self::Repair(RepairAttempt { key, id, action, success, at, actor })
            }
            OperationV1::MarkWithoutActor { key, id, at, description, fixed_by } => {
                Self::Mark(FixMark { key, id, at, description, fixed_by, actor })
            }
            OperationV1::UnmarkWithoutActor { key, id, at } => {
                Self::Unmark(FixRemoval { key, id, at, reason: None, actor })
            }
            OperationV1::Repair(attempt) => {
                let RepairAttemptV1 { key, id, action, success, at, actor } = attempt;
                let actor = actor.into();
                Self::Repair(RepairAttempt { key, id, action, success, at, actor })
            }
            OperationV1::Mark(mark) => {
                let FixMarkV1 { key, id, at, description, fixed_by, actor } = mark;
                let actor = actor.into();
                Self::Mark(FixMark { key, id, at, description, fixed_by, actor })
            }
            OperationV1::Unmark(FixRemovalV1 { key, id, at, actor }) => {
                let actor = actor.into();
                Self::Unmark(FixRemoval { key, id, at, reason: None, actor })
            }
        }
    }
}
