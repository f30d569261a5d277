//! What lists and summaries ask for, and how their answers are to be taken.

use std::collections::HashMap;

use crate::domain::{AnomalyKey, KnownStats, Position, Ranking, Selection, Timestamp};

/// The question for a page of a list.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Which anomalies.
    pub selection: Selection,
    /// In which order.
    pub ranking: Ranking,
    /// Maximum number of anomalies of a page.
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

/// Whether an answer is about all anomalies.
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

/// What anomalies are estimated to be of which writes wait, and as of when what was read of them
/// is.
pub type Estimates = HashMap<AnomalyKey, (Option<Timestamp>, KnownStats)>;
