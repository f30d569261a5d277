//! The parts of requests and answers that several resources share.

mod action;
mod audit_entry;
mod completeness;
mod conditional;
mod counted;
mod degraded;
mod firing;
mod fix;
mod frequency;
mod limit;
mod occurrence;
pub(super) mod schemas;
mod selection;
mod sender_clock;
mod signature;

pub(super) use action::ActionBody;
pub(super) use audit_entry::AuditEntryBody;
pub(super) use completeness::CompletenessBody;
pub(super) use conditional::{Dated, conditional};
pub(super) use counted::{
    CountedBody, NotCounted, Recorded, record_each, record_one, temporary_problem, write_status_of,
};
pub(super) use degraded::{DegradedBody, write_status};
pub(super) use firing::FiringBody;
pub(super) use fix::FixBody;
pub(super) use frequency::{FrequencyBody, is_true};
pub(super) use limit::Limit;
pub(super) use occurrence::{OccurrenceRequest, PostedArray, PostedOccurrence, ReadOccurrence};
pub(super) use selection::{check_patterns, selection_parameters};
pub(super) use signature::SignatureBody;
