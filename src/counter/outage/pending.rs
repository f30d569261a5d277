//! The operations in the spool, in memory: just enough of each to include it in answers while the
//! store gives none, and to know that a write must queue behind another of its anomaly.

use std::collections::{BTreeMap, HashMap};

use crate::domain::{
    AnomalyKey, AnomalyStats, EventDigest, Operation, PermanentFix, RECENT_ATTEMPTS, RecentAttempt,
    RepairHistory, Timeline, Timestamp,
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
    /// Boxed, because most anomalies have none.
    others: Option<Box<Others>>,
}

/// The operations that are no occurrences, in the order in which they came: what they come to is
/// known without going through all of them.
#[derive(Debug, Default)]
struct Others {
    numbers: HashMap<EventDigest, u64>,
    last_number: u64,
    repairs: BTreeMap<u64, RecentAttempt>,
    /// Marks, and `None` for removals.
    fixes: BTreeMap<u64, Option<PermanentFix>>,
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

impl Others {
    fn insert(&mut self, digest: EventDigest, operation: &Operation) {
        self.last_number += 1;
        let number = self.last_number;
        match operation {
            Operation::Occurrence(_) => return,
            Operation::Repair(attempt) => {
                self.repairs.insert(number, attempt.into());
            }
            Operation::Mark(mark) => {
                self.fixes.insert(number, Some(mark.clone().into()));
            }
            Operation::Unmark(_) => {
                self.fixes.insert(number, None);
            }
        }
        self.numbers.insert(digest, number);
    }

    fn remove(&mut self, digest: EventDigest) {
        if let Some(number) = self.numbers.remove(&digest) {
            self.repairs.remove(&number);
            self.fixes.remove(&number);
        }
    }

    /// Returns the last mark or removal.
    fn last_fix(&self) -> Option<&Option<PermanentFix>> {
        self.fixes.last_key_value().map(|(_, fix)| fix)
    }
}

impl Waiting {
    fn insert(&mut self, id: Id, operation: &Operation) {
        if let Operation::Occurrence(occurrence) = operation {
            self.occurrences.insert_unbounded(occurrence.at, id.digest);
        } else {
            self.others.get_or_insert_default().insert(id.digest, operation);
        }
    }

    fn remove(&mut self, id: Id, operation: &Operation) {
        if let Operation::Occurrence(occurrence) = operation {
            self.occurrences.remove(occurrence.at, id.digest);
        } else if let Some(others) = &mut self.others {
            others.remove(id.digest);
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
            waiting.remove(id, operation);
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
        if let Some(others) = &waiting.others {
            stats.repair_attempts += others.repairs.len() as u64;
            if let Some(fix) = others.last_fix() {
                stats.fixed_at = fix.as_ref().map(|fix| fix.marked_at);
            }
        }
    }

    /// Adds the repairs of an anomaly to its `history`.
    pub(crate) fn add_repairs(&self, key: AnomalyKey, history: &mut RepairHistory) {
        let Some(others) = self.others(key) else { return };
        let before = others.repairs.len().saturating_sub(RECENT_ATTEMPTS);
        history.total += before as u64;
        let newest: Vec<_> = others.repairs.values().rev().take(RECENT_ATTEMPTS).collect();
        for attempt in newest.into_iter().rev() {
            history.push(attempt.clone());
        }
    }

    /// Returns the fix as it is once everything that waits is applied.
    pub(crate) fn fix_after(
        &self,
        key: AnomalyKey,
        before: Option<PermanentFix>,
    ) -> Option<PermanentFix> {
        self.others(key).and_then(Others::last_fix).map_or(before, Clone::clone)
    }

    fn others(&self, key: AnomalyKey) -> Option<&Others> {
        self.by_key.get(&key)?.others.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Action, Actor, EventId, FixMark, FixRemoval, RepairAttempt};

    const KEY: AnomalyKey = AnomalyKey::from_bits(7);

    fn at(n: u64) -> Timestamp {
        Timestamp::from_micros(1_774_799_738_123_456).plus_seconds(n as i64)
    }

    fn id(n: u64) -> EventId {
        EventId::parse(&format!("op-{n}")).unwrap()
    }

    fn repair(n: u64) -> Operation {
        Operation::Repair(RepairAttempt {
            key: KEY,
            id: id(n),
            action: Action::parse(&format!("action-{n}")).unwrap(),
            success: true,
            at: at(0),
            actor: Actor::default(),
        })
    }

    fn history(pending: &Pending) -> RepairHistory {
        let mut history = RepairHistory::default();
        pending.add_repairs(KEY, &mut history);
        history
    }

    #[test]
    fn of_the_repairs_that_wait_all_count_and_the_newest_are_listed() {
        let mut pending = Pending::default();
        (0..250).for_each(|n| assert!(pending.add(at(0), &repair(n))));
        pending.remove(&repair(0));
        pending.remove(&repair(249));
        let mut stats = AnomalyStats::default();
        pending.add_to(KEY, at(0), &mut stats);
        assert_eq!(stats.repair_attempts, 248);
        let history = history(&pending);
        assert_eq!(history.total, 248);
        let listed: Vec<_> = history.recent.iter().map(|repair| repair.action.clone()).collect();
        let newest: Vec<_> = (149..249).rev().map(|n| format!("action-{n}")).collect();
        assert_eq!(listed, newest);
    }

    #[test]
    fn the_last_mark_or_removal_that_waits_holds() {
        let actor = Actor::default();
        let mark = |n| {
            let (description, fixed_by) = (format!("fix {n}"), None);
            let (id, at, actor) = (id(n), at(n), actor.clone());
            Operation::Mark(FixMark { key: KEY, id, at, description, fixed_by, actor })
        };
        let removal =
            Operation::Unmark(FixRemoval { key: KEY, id: id(3), at: at(0), actor: actor.clone() });
        let mut pending = Pending::default();
        let fix = |pending: &Pending| {
            pending.fix_after(KEY, None).and_then(|fix: PermanentFix| fix.description)
        };
        for operation in [mark(1), mark(2), removal.clone()] {
            pending.add(at(0), &operation);
        }
        assert_eq!(fix(&pending), None);
        pending.remove(&removal);
        assert_eq!(fix(&pending).as_deref(), Some("fix 2"));
        let mut stats = AnomalyStats::default();
        pending.add_to(KEY, at(0), &mut stats);
        assert_eq!(stats.fixed_at, Some(at(2)));
        pending.remove(&mark(2));
        assert_eq!(fix(&pending).as_deref(), Some("fix 1"));
    }
}
