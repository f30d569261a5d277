//! The answers of the counter.

use super::{health::HealthState, outage::SpoolDepth};
use crate::{
    domain::{AuditEntry, Band, Frequency, HistoryBucket, KnownDetails, RepairHistory, Timestamp},
    store::{Cause, RecordOutcome},
    telemetry::Label,
};

/// An answer, with its origin: the store or an estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered<T> {
    /// The answer itself.
    pub value: T,
    /// Present if the answer is an estimate.
    pub degraded: Option<Degraded>,
}

/// An estimate's origin: the last known state, and the writes that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Degraded {
    /// The time at which the last known state was current; `None` if there is none.
    pub as_of: Option<Timestamp>,
}

impl<T> Answered<T> {
    /// Creates an answer of the store.
    pub(super) fn current(value: T) -> Self {
        Self { value, degraded: None }
    }

    /// Creates an estimate from the state at `as_of`.
    pub(super) fn estimated(value: T, as_of: Option<Timestamp>) -> Self {
        Self { value, degraded: Some(Degraded { as_of }) }
    }
}

/// The response to an occurrence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The outcome.
    pub outcome: OccurrenceOutcome,
    /// The frequency of its anomaly after it was recorded.
    pub frequency: Frequency,
}

/// The outcome of an occurrence, as a metric has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OccurrenceOutcome {
    /// The outcome is settled: by the store, or by operations that already wait.
    Settled(RecordOutcome),
    /// It waits in the spool.
    Spooled,
    /// It is an alert that waits in the spool. The store decides later whether it counts.
    Undecided,
}

impl Label for OccurrenceOutcome {
    const ALL: &'static [Self] = &[
        Self::Settled(RecordOutcome::Counted),
        Self::Settled(RecordOutcome::Duplicate),
        Self::Settled(RecordOutcome::TooOld),
        Self::Settled(RecordOutcome::Unrecognisable),
        Self::Spooled,
        Self::Undecided,
    ];

    fn value(self) -> &'static str {
        match self {
            Self::Settled(RecordOutcome::Counted) => "counted",
            Self::Settled(RecordOutcome::Duplicate) => "duplicate",
            Self::Settled(RecordOutcome::TooOld) => "too_old",
            Self::Settled(RecordOutcome::Unrecognisable) => "unrecognisable",
            Self::Settled(
                RecordOutcome::Ongoing
                | RecordOutcome::SameIncident
                | RecordOutcome::Resolved
                | RecordOutcome::Stale,
            ) => "no_occurrence",
            Self::Spooled | Self::Undecided => "spooled",
        }
    }
}

impl OccurrenceOutcome {
    /// Returns false for an alert that the store does not count as an occurrence.
    pub(super) fn is_of_occurrence(self) -> bool {
        match self {
            Self::Settled(outcome) => !outcome.is_of_alert_only(),
            Self::Spooled | Self::Undecided => true,
        }
    }

    /// Returns true if it counts from this call on.
    pub fn counts(self) -> bool {
        matches!(self, Self::Settled(RecordOutcome::Counted) | Self::Spooled)
    }
}

/// Everything that is known of one anomaly.
#[derive(Clone, Debug)]
pub struct Anomaly {
    /// The frequency.
    pub frequency: Frequency,
    /// The details, as far as they are known.
    pub details: KnownDetails,
}

/// The history of one anomaly: its occurrences over time, and what was done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The buckets of the period, oldest first.
    pub buckets: Vec<HistoryBucket>,
    /// The audited events within the period, oldest first.
    pub events: Vec<AuditEntry>,
    /// The conditions that reach each level, lowest first.
    pub bands: Vec<Band>,
}

impl History {
    /// Returns the number of occurrences in all buckets.
    pub fn total(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.count).sum()
    }
}

/// The answer to a repair attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairAnswer {
    /// True if it counts from this call on; false when its id was there before.
    pub counted: bool,
    /// The history after it; `None` if the earlier attempts were not seen.
    pub history: Option<RepairHistory>,
}

/// The readiness for calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// The store's name.
    pub store: &'static str,
    /// The state of the service.
    pub state: HealthState,
    /// The time since which the state has not been Healthy.
    pub since: Option<Timestamp>,
    /// The cause for which a shard of the store is unavailable, if one is.
    pub cause: Option<Cause>,
    /// The wall clock minus the time that the service uses, in seconds, while the wall clock is not
    /// trusted.
    pub clock_disagreement_seconds: Option<i64>,
    /// The operations that wait in the spool.
    pub spool: SpoolDepth,
    /// True if operations can wait; `None` without a spool.
    pub spool_is_usable: Option<bool>,
    /// The checksum of the rules in force.
    pub rules_checksum: u32,
}
