//! The operations in the spool, in memory: just enough of each to include it in answers while the
//! store gives none, and to know that a write must queue behind another of its anomaly. A waiting
//! occurrence takes about 40 bytes, so that all that a full spool holds fits into little memory.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use super::waiting::{Effect, Id, New, Removal, Waiting};
use crate::domain::{
    AnomalyKey, AnomalyStats, FixMark, Operation, PermanentFix, RepairAttempt, RepairHistory,
    Timestamp,
};

/// Maximum size of the texts of repairs and marks. Those of further ones are not in estimates.
const MAX_TEXT_BYTES: usize = 16 << 20;
/// Maximum number of names of actions that are kept once for all their repairs.
const MAX_ACTIONS: usize = 1_000;

/// The operations that wait, by anomaly.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// A hash map would double its memory all at once.
    by_key: BTreeMap<AnomalyKey, Waiting>,
    operations: usize,
    /// Since when there has been at least one.
    since: Option<Timestamp>,
    /// Anomalies with an operation that the store may have applied already.
    uncertain: HashSet<AnomalyKey>,
    /// True if that may be any of them, because an earlier process has sent them.
    are_all_uncertain: bool,
    /// Names of actions, which are mostly the same.
    actions: HashSet<Arc<str>>,
    text_bytes: usize,
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

    /// Returns whether the store may have applied an operation of this anomaly that waits.
    pub(crate) fn is_uncertain(&self, key: AnomalyKey) -> bool {
        self.uncertain.contains(&key) || self.are_all_uncertain && self.holds(key)
    }

    /// Notes that the store may have applied an operation of this anomaly that waits.
    pub(crate) fn mark_uncertain(&mut self, key: AnomalyKey) {
        if !self.are_all_uncertain && self.holds(key) {
            self.uncertain.insert(key);
        }
    }

    /// Notes that the store may have applied any operation that waits now.
    pub(crate) fn mark_all_uncertain(&mut self) {
        self.are_all_uncertain = !self.by_key.is_empty();
        self.uncertain = HashSet::new();
    }

    /// Adds an operation, and returns whether it is the first of its id.
    pub(crate) fn add(&mut self, now: Timestamp, operation: &Operation) -> bool {
        self.operations += 1;
        self.since.get_or_insert(now);
        let (key, id) = (operation.key(), Id::of(operation));
        let new = match operation {
            Operation::Occurrence(occurrence) => New::Occurrence(occurrence.at),
            Operation::Repair(attempt) => New::Other(self.repaired(attempt)),
            Operation::Mark(mark) => New::Other(self.marked(mark)),
            Operation::Unmark(_) => New::Other(Effect::Unmarked),
        };
        if let Some(waiting) = self.by_key.get_mut(&key) {
            return waiting.insert(id, new);
        }
        self.by_key.insert(key, Waiting::new(id, new));
        true
    }

    fn repaired(&mut self, attempt: &RepairAttempt) -> Effect {
        let name = attempt.action.as_str();
        let action = match self.actions.get(name) {
            Some(action) => Some(Arc::clone(action)),
            None if self.actions.len() < MAX_ACTIONS => {
                let action: Arc<str> = name.into();
                self.actions.insert(Arc::clone(&action));
                Some(action)
            }
            None => self.has_room(name.len()).then(|| name.into()),
        };
        Effect::repaired(attempt, action)
    }

    fn marked(&mut self, mark: &FixMark) -> Effect {
        let bytes = mark.description.len() + mark.fixed_by.as_ref().map_or(0, String::len);
        Effect::marked(mark, self.has_room(bytes))
    }

    /// Takes room for texts, if there is enough.
    fn has_room(&mut self, bytes: usize) -> bool {
        let has_room = self.text_bytes + bytes <= MAX_TEXT_BYTES;
        if has_room {
            self.text_bytes += bytes;
        }
        has_room
    }

    /// Removes one copy of an operation, if there is one.
    pub(crate) fn remove(&mut self, operation: &Operation) {
        let key = operation.key();
        let Some(waiting) = self.by_key.get_mut(&key) else { return };
        let Some(removal) = waiting.remove(Id::of(operation)) else { return };
        let Removal { is_last, text_bytes } = removal;
        self.operations -= 1;
        self.text_bytes = self.text_bytes.saturating_sub(text_bytes);
        if is_last {
            self.by_key.remove(&key);
            self.uncertain.remove(&key);
        }
        if self.by_key.is_empty() {
            *self = Self::default();
        }
    }

    /// Adds the operations of an anomaly to its `stats`.
    pub(crate) fn add_to(&mut self, key: AnomalyKey, now: Timestamp, stats: &mut AnomalyStats) {
        if let Some(waiting) = self.by_key.get_mut(&key) {
            waiting.add_to(now, stats);
        }
    }

    /// Adds the repairs of an anomaly to its `history`.
    pub(crate) fn add_repairs(&self, key: AnomalyKey, history: &mut RepairHistory) {
        if let Some(waiting) = self.by_key.get(&key) {
            waiting.add_repairs(history);
        }
    }

    /// Returns the fix as it is once everything that waits is applied.
    pub(crate) fn fix_after(
        &self,
        key: AnomalyKey,
        before: Option<PermanentFix>,
    ) -> Option<PermanentFix> {
        match self.by_key.get(&key) {
            Some(waiting) => waiting.fix_after(before),
            None => before,
        }
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
    fn an_operation_that_does_not_wait_takes_no_other_away() {
        let mut pending = Pending::default();
        pending.add(at(0), &repair(1));
        for round in 0..3 {
            pending.remove(&repair(2));
            assert_eq!(pending.operations(), 1, "round {round}: of one that waits");
        }
        pending.add(at(0), &repair(3));
        for _ in 0..3 {
            pending.remove(&repair(2));
            pending.remove(&repair(3));
        }
        assert_eq!(pending.operations(), 1);
        assert_eq!(history(&pending).total, 1);
        pending.remove(&repair(1));
        pending.remove(&repair(1));
        assert_eq!(pending.operations(), 0);
    }

    #[test]
    fn the_last_mark_or_removal_that_waits_holds() {
        let actor = Actor::default();
        let mark = |n| {
            let (description, fixed_by) = (format!("fix {n}"), None);
            let (id, at, actor) = (id(n), at(n), actor.clone());
            Operation::Mark(FixMark { key: KEY, id, at, description, fixed_by, actor })
        };
        let removal = Operation::Unmark(FixRemoval {
            key: KEY,
            id: id(3),
            at: at(0),
            reason: None,
            actor: actor.clone(),
        });
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
