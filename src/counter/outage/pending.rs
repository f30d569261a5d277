//! The operations in the spool, in memory: just enough of each to include it in answers while the
//! store gives none, and to know that a write must queue behind another of its anomaly.

use std::collections::{HashMap, VecDeque};

use crate::domain::{
    AnomalyKey, AnomalyStats, EventDigest, Operation, PermanentFix, RecentAttempt, RepairHistory,
    Timeline, Timestamp,
};

/// The operations that wait, by anomaly.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    by_key: HashMap<AnomalyKey, Waiting>,
    operations: usize,
    /// Since when there has been at least one.
    since: Option<Timestamp>,
}

/// The operations that wait for one anomaly.
#[derive(Debug, Default)]
struct Waiting {
    /// Number of copies of each operation: a client's retry is accepted once it is durable itself,
    /// and not because the first copy may become so.
    copies: HashMap<Id, usize>,
    occurrences: Timeline,
    others: VecDeque<(Id, Effect)>,
}

/// Occurrences have ids of their own, apart from those of all other operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Id {
    of_occurrence: bool,
    digest: EventDigest,
}

impl Id {
    fn of(operation: &Operation) -> Self {
        let of_occurrence = matches!(operation, Operation::Occurrence(_));
        Self { of_occurrence, digest: operation.id().digest() }
    }
}

/// The effect of an operation that is not an occurrence.
#[derive(Debug)]
enum Effect {
    Repaired(RecentAttempt),
    Marked(PermanentFix),
    Unmarked,
}

impl Waiting {
    fn insert(&mut self, id: Id, operation: &Operation) {
        let effect = match operation {
            Operation::Occurrence(occurrence) => {
                self.occurrences.insert_unbounded(occurrence.at, id.digest);
                return;
            }
            Operation::Repair(attempt) => Effect::Repaired(attempt.into()),
            Operation::Mark(mark) => Effect::Marked(mark.clone().into()),
            Operation::Unmark(_) => Effect::Unmarked,
        };
        self.others.push_back((id, effect));
    }

    fn remove(&mut self, id: Id) {
        if id.of_occurrence {
            self.occurrences.remove(id.digest);
        } else {
            self.others.retain(|(other, _)| *other != id);
        }
    }
}

impl Pending {
    pub(crate) fn operations(&self) -> usize {
        self.operations
    }

    pub(crate) fn since(&self) -> Option<Timestamp> {
        self.since
    }

    /// Returns whether an operation of this anomaly waits.
    pub(crate) fn holds(&self, key: AnomalyKey) -> bool {
        self.by_key.contains_key(&key)
    }

    /// Adds an operation, and returns whether it is the first of its id.
    pub(crate) fn add(&mut self, now: Timestamp, operation: &Operation) -> bool {
        self.operations += 1;
        self.since.get_or_insert(now);
        let waiting = self.by_key.entry(operation.key()).or_default();
        let id = Id::of(operation);
        let copies = waiting.copies.entry(id).or_default();
        *copies += 1;
        let is_first = *copies == 1;
        if is_first {
            waiting.insert(id, operation);
        }
        is_first
    }

    /// Removes one copy of an operation.
    pub(crate) fn remove(&mut self, operation: &Operation) {
        let (key, id) = (operation.key(), Id::of(operation));
        let Some(waiting) = self.by_key.get_mut(&key) else { return };
        let Some(copies) = waiting.copies.get_mut(&id) else { return };
        *copies -= 1;
        self.operations -= 1;
        if *copies == 0 {
            waiting.copies.remove(&id);
            waiting.remove(id);
        }
        if waiting.copies.is_empty() {
            self.by_key.remove(&key);
        }
        if self.by_key.is_empty() {
            self.since = None;
        }
    }

    /// Adds the operations of an anomaly to its `stats`.
    pub(crate) fn add_to(&self, key: AnomalyKey, now: Timestamp, stats: &mut AnomalyStats) {
        let Some(waiting) = self.by_key.get(&key) else { return };
        let counts = waiting.occurrences.counts(now);
        stats.counts.hour += counts.hour;
        stats.counts.day += counts.day;
        stats.counts.week += counts.week;
        stats.counts.month += counts.month;
        if let Some((first, last)) = waiting.occurrences.span(now) {
            stats.first_seen = Some(stats.first_seen.map_or(first, |seen| seen.min(first)));
            stats.last_seen = Some(stats.last_seen.map_or(last, |seen| seen.max(last)));
        }
        for (_, effect) in &waiting.others {
            match effect {
                Effect::Repaired(_) => stats.repair_attempts += 1,
                Effect::Marked(fix) => stats.fixed_at = Some(fix.marked_at),
                Effect::Unmarked => stats.fixed_at = None,
            }
        }
    }

    /// Adds the repairs of an anomaly to its `history`.
    pub(crate) fn add_repairs(&self, key: AnomalyKey, history: &mut RepairHistory) {
        for effect in self.others(key) {
            if let Effect::Repaired(attempt) = effect {
                history.push(attempt.clone());
            }
        }
    }

    /// Returns the fix as it is once everything that waits is applied.
    pub(crate) fn fix_after(
        &self,
        key: AnomalyKey,
        before: Option<PermanentFix>,
    ) -> Option<PermanentFix> {
        self.others(key).fold(before, |fix, effect| match effect {
            Effect::Marked(marked) => Some(marked.clone()),
            Effect::Unmarked => None,
            Effect::Repaired(_) => fix,
        })
    }

    fn others(&self, key: AnomalyKey) -> impl Iterator<Item = &Effect> {
        let waiting = self.by_key.get(&key).into_iter();
        waiting.flat_map(|waiting| waiting.others.iter().map(|(_, effect)| effect))
    }
}
