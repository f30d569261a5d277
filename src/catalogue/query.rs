//! The questions of lists and summaries, and how complete their answers are.

use std::collections::HashMap;

use crate::domain::{AnomalyKey, KnownStats, Position, Ranking, Selection, Timestamp};

/// The question for a page of a list.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Which anomalies.
    pub selection: Selection,
    /// In which order.
    pub ranking: Ranking,
    /// Maximum number of anomalies on a page.
    pub limit: usize,
    /// The place after which the page begins; at the first anomaly without it.
    pub after: Option<Position>,
}

/// The question for a summary.
#[derive(Clone, Debug)]
pub struct SummaryQuery {
    /// Which anomalies.
    pub selection: Selection,
    /// The fields by whose values they are grouped, by their place in
    /// [`Signature::FIELDS`](crate::domain::Signature::FIELDS).
    pub by: Vec<usize>,
    /// Maximum number of values of a field; the rest is one group.
    pub top: usize,
}

/// The completeness of an answer: it is about all anomalies, or about some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// It is.
    Complete,
    /// It is about those that are known so far.
    Partial {
        /// Why.
        reason: PartialReason,
        /// Number of anomalies that are known so far.
        loaded: u64,
    },
}

/// Why an answer is not about all anomalies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartialReason {
    /// The store has not been gone through yet since the start.
    Loading,
    /// The store does not permit to go through it.
    Denied,
    /// There are more anomalies, or changes, than could be taken in.
    Behind,
}

/// The estimates of the anomalies of which writes wait, each with the time at which its stats were
/// read.
pub type Estimates = HashMap<AnomalyKey, (Option<Timestamp>, KnownStats)>;
