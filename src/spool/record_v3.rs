//! The operation of spool records and held writes before version 4, whose occurrences can't be
//! alerts. It is only read. postcard numbers variants by their position, and writes fields in their
//! order, so that neither may change here.

use serde::Deserialize;

use crate::domain::{
    AnomalyKey, EventId, FixMark, FixRemoval, Occurrence, Operation, RepairAttempt, SignatureJson,
    Timestamp,
};

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
pub(super) enum OperationV3 {
    Occurrence(OccurrenceV3),
    Repair(RepairAttempt),
    Mark(FixMark),
    Unmark(FixRemoval),
}

#[derive(Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
pub(super) struct OccurrenceV3 {
    pub(super) key: AnomalyKey,
    pub(super) id: EventId,
    pub(super) at: Timestamp,
    pub(super) signature_json: SignatureJson,
}

impl From<OccurrenceV3> for Occurrence {
    fn from(old: OccurrenceV3) -> Self {
        let OccurrenceV3 { key, id, at, signature_json } = old;
        Self { key, id, at, signature_json, episode: None, rule: None }
    }
}

impl From<OperationV3> for Operation {
    fn from(operation: OperationV3) -> Self {
        match operation {
            OperationV3::Occurrence(occurrence) => Self::Occurrence(occurrence.into()),
            OperationV3::Repair(attempt) => Self::Repair(attempt),
            OperationV3::Mark(mark) => Self::Mark(mark),
            OperationV3::Unmark(removal) => Self::Unmark(removal),
        }
    }
}
