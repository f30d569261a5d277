//! The questions of lists and summaries, and how complete their answers are.

use std::collections::HashMap;

use crate::domain::{AnomalyKey, KnownStats, Position, Ranking, Selection, Timestamp};

/// The question for a page of a list.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// The anomalies to select.
    pub selection: Selection,
    /// Their order.
    pub ranking: Ranking,
    /// Maximum number of anomalies on a page.
    pub limit: usize,
    /// The position after which the page begins; without it, at the first anomaly.
    pub after: Option<Position>,
}

/// The question for a summary.
#[derive(Clone, Debug)]
pub struct SummaryQuery {
    /// The anomalies to select.
    pub selection: Selection,
    /// The fields by whose values they are grouped, as indices into
    /// [`Signature::FIELDS`](crate::domain::Signature::FIELDS).
    pub by: Vec<usize>,
    /// Maximum number of values of a field; the rest is one group.
    pub top: usize,
}

/// The completeness of an answer: it is about all anomalies, or about some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// It is about all anomalies.
    Complete,
    /// It is about those that are known so far.
    Partial {
        /// The reason.
        reason: PartialReason,
        /// Number of anomalies that are known so far.
        loaded: u64,
    },
}

/// The reason for which an answer is not about all anomalies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartialReason {
    /// No walk through the store has completed since the start.
    Loading,
    /// The store does not permit walks or announcements.
    Denied,
    /// There are more anomalies than may be kept, or changes that were missed.
    Behind,
}

/// The estimates of anomalies with waiting writes, each with the time at which its stats were read.
pub type Estimates = HashMap<AnomalyKey, (Option<Timestamp>, KnownStats)>;
