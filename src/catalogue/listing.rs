//! One pass over all anomalies for a page of a list.

use super::{
    query::ListQuery,
    verdicts::Verdicts,
    visited::{Pass, Visited},
};
use crate::domain::{AnomalyKey, Cursor, Firing, KnownStats, RuleRef, Signature, Timestamp, Top};

/// An anomaly of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The anomaly.
    pub key: AnomalyKey,
    /// Its identifying fields; `None` if they are not known.
    pub signature: Option<Signature>,
    /// Its stats, which decide its position in the list.
    pub stats: KnownStats,
    /// The time at which they were read; `None` if they never were.
    pub as_of: Option<Timestamp>,
    /// True if they are an estimate.
    pub is_estimate: bool,
    /// True if it was read so recently that it need not be read again.
    pub is_settled: bool,
    /// The rule that it is judged by.
    pub rule: RuleRef,
    /// Its firing alerts, if they are known.
    pub firing: Option<Firing>,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its anomalies, in their order.
    pub anomalies: Vec<Listed>,
    /// The number of anomalies of the whole list.
    pub total: u64,
    /// True if the total is exact.
    pub total_is_exact: bool,
    /// The position at which the next page begins; `None` at the end.
    pub next: Option<Cursor>,
}

/// The pass of one query.
#[derive(Debug)]
pub(super) struct ListPass<'q> {
    query: &'q ListQuery,
    now: Timestamp,
    takes_doubtful: bool,
    looks_at_state: bool,
    looks_at_counts: bool,
    verdicts: Verdicts<'q>,
    top: Top<Listed>,
    total: u64,
    /// True if a count that decides whether an anomaly is in the list may be too high.
    is_uncertain: bool,
}

impl<'q> ListPass<'q> {
    /// Creates the pass. If it `takes_doubtful` anomalies, one that may match once it is read again
    /// counts as a match.
    pub(super) fn new(query: &'q ListQuery, now: Timestamp, takes_doubtful: bool) -> Self {
        Self {
            query,
            now,
            takes_doubtful,
            looks_at_state: query.selection.looks_at_state(),
            looks_at_counts: query.selection.looks_at_counts(),
            verdicts: Verdicts::new(&query.selection),
            top: Top::new(query.limit, query.after),
            total: 0,
            is_uncertain: false,
        }
    }

    pub(super) fn finish(self) -> Page {
        let ListQuery { selection, ranking, .. } = self.query;
        let (members, has_more) = self.top.into_sorted();
        let last = members.last().filter(|_| has_more).map(|(position, _)| *position);
        Page {
            next: last.map(|last| Cursor::new(*ranking, selection, last)),
            anomalies: members.into_iter().map(|(_, listed)| listed).collect(),
            total: self.total,
            total_is_exact: !self.is_uncertain,
        }
    }
}

impl Pass for ListPass<'_> {
    fn visit(&mut self, anomaly: &impl Visited) {
        if !self.verdicts.are_met(anomaly) {
            return;
        }
        let ListQuery { selection, ranking, .. } = self.query;
        if self.looks_at_state {
            let is_uncertain = self.looks_at_counts && !anomaly.is_current()
                || selection.firing.is_some() && anomaly.is_firing().is_none();
            self.is_uncertain |= is_uncertain;
            let may_be_read = is_uncertain && self.takes_doubtful && !anomaly.is_estimate();
            if !selection.meets_state(self.now, anomaly, may_be_read) {
                return;
            }
        }
        self.total += 1;
        self.top.offer(ranking.position(anomaly), || Listed {
            key: anomaly.key(),
            signature: anomaly.fields().and_then(|fields| anomaly.texts().signature(&fields)),
            stats: anomaly.stats(),
            as_of: anomaly.as_of(),
            is_estimate: anomaly.is_estimate(),
            is_settled: anomaly.is_settled(),
            rule: anomaly.rule().clone(),
            firing: anomaly.firing(),
        });
    }
}
