//! The operations in the spool, in memory: just enough of each to include it in answers while the
//! store does not answer, and to know that a write must queue behind another of its anomaly. A
//! waiting occurrence takes about 40 bytes, so that a full spool fits into little memory.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Bound,
    sync::Arc,
};

use super::{
    effects::Effect,
    waiting::{New, Removal, Sent, Summary, Waiting},
    waiting_id::Id,
};
use crate::domain::{
    AnomalyKey, ExtraWindow, FixMark, Occurrence, Operation, PermanentFix, RepairAttempt,
    RepairHistory, Timestamp,
};

/// Maximum memory for the texts of repairs and marks, in bytes. Estimates lack the texts of further
/// ones.
const MAX_TEXT_BYTES: usize = 16 << 20;
/// Maximum number of distinct action names that repairs share.
const MAX_ACTIONS: usize = 1_000;

/// Maximum number of operations that are noted individually as sent, 64 bytes each. Above it, all
/// waiting operations count as sent.
const MAX_SENT: usize = 65_536;

/// The waiting operations, by anomaly.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// Not a hash map, which would double its memory at once.
    by_key: BTreeMap<AnomalyKey, Waiting>,
    operations: usize,
    /// The time since which at least one operation has waited.
    since: Option<Timestamp>,
    /// The operations that may have been sent, so that the store may already have applied them.
    sent: HashMap<AnomalyKey, HashSet<Id>>,
    sent_operations: usize,
    /// True if any operation may have been sent, because there are too many to note.
    are_all_sent: bool,
    /// Names of actions, most of which are the same.
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

    /// Returns true if an operation of this anomaly waits.
    pub(crate) fn holds(&self, key: AnomalyKey) -> bool {
        self.by_key.contains_key(&key)
    }

    /// Returns up to `limit` anomalies with a waiting operation, after a key.
    pub(crate) fn keys_after(&self, after: Option<AnomalyKey>, limit: usize) -> Vec<AnomalyKey> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let waiting = self.by_key.range((after, Bound::Unbounded));
        waiting.take(limit).map(|(key, _)| *key).collect()
    }

    /// Returns true if the store may have applied a waiting operation of this anomaly.
    pub(crate) fn is_uncertain(&self, key: AnomalyKey) -> bool {
        self.sent.contains_key(&key) || self.are_all_sent && self.holds(key)
    }

    /// Notes that a waiting operation may have been sent to the store.
    pub(crate) fn mark_sent(&mut self, operation: &Operation) {
        let key = operation.key();
        if self.are_all_sent || !self.holds(key) {
            return;
        }
        if self.sent.entry(key).or_default().insert(Id::of(operation)) {
            self.sent_operations += 1;
        }
        if self.sent_operations > MAX_SENT {
            self.are_all_sent = true;
            (self.sent, self.sent_operations) = (HashMap::new(), 0);
        }
    }

    /// Adds an operation. Returns true if it is the first with its id. `is_doubtful` says that the
    /// store may already have had it before it began to wait.
    pub(crate) fn add(&mut self, now: Timestamp, operation: &Operation, is_doubtful: bool) -> bool {
        self.operations += 1;
        self.since.get_or_insert(now);
        let (key, id) = (operation.key(), Id::of(operation));
        let new = match operation {
            Operation::Occurrence(Occurrence { episode: Some(_), .. }) => New::Alert,
            Operation::Occurrence(occurrence) => New::Occurrence { at: occurrence.at, is_doubtful },
            Operation::Repair(attempt) => New::Other(self.repaired(attempt, is_doubtful)),
            Operation::Mark(mark) => New::Other(self.marked(mark)),
            Operation::Unmark(_) => New::Other(Effect::Unmarked),
        };
        if let Some(waiting) = self.by_key.get_mut(&key) {
            return waiting.insert(id, new);
        }
        self.by_key.insert(key, Waiting::new(id, new));
        true
    }

    fn repaired(&mut self, attempt: &RepairAttempt, is_doubtful: bool) -> Effect {
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
        Effect::repaired(attempt, is_doubtful, action)
    }

    fn marked(&mut self, mark: &FixMark) -> Effect {
        let bytes = mark.description.len() + mark.fixed_by.as_ref().map_or(0, String::len);
        Effect::marked(mark, self.has_room(bytes))
    }

    /// Reserves memory for texts. Returns false if there is not enough.
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
        let id = Id::of(operation);
        let Some(removal) = waiting.remove(id) else { return };
        let Removal { is_last, is_gone, text_bytes } = removal;
        self.operations -= 1;
        self.text_bytes = self.text_bytes.saturating_sub(text_bytes);
        if is_last {
            self.by_key.remove(&key);
            self.sent_operations -= self.sent.remove(&key).map_or(0, |sent| sent.len());
        } else if is_gone && let Some(sent) = self.sent.get_mut(&key) {
            self.sent_operations -= usize::from(sent.remove(&id));
            if sent.is_empty() {
                self.sent.remove(&key);
            }
        }
        if self.by_key.is_empty() {
            *self = Self::default();
        }
    }

    /// Returns the summary of an anomaly's operations that an estimate needs. `windows` are the
    /// additional windows of its rule.
    pub(crate) fn summary(
        &mut self,
        key: AnomalyKey,
        now: Timestamp,
        windows: &[ExtraWindow],
    ) -> Summary {
        let sent = sent_of(&self.sent, self.are_all_sent, key);
        let waiting = self.by_key.get_mut(&key);
        waiting.map(|waiting| waiting.summary(now, windows, sent)).unwrap_or_default()
    }

    /// Adds the repairs of an anomaly to its `history`, which may already include any of those that
    /// were sent.
    pub(crate) fn add_repairs(&self, key: AnomalyKey, history: &mut RepairHistory) {
        if let Some(waiting) = self.by_key.get(&key) {
            waiting.add_repairs(history, sent_of(&self.sent, self.are_all_sent, key));
        }
    }

    /// Returns the fix as it will be after all waiting operations are applied.
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

fn sent_of(
    sent: &HashMap<AnomalyKey, HashSet<Id>>,
    are_all_sent: bool,
    key: AnomalyKey,
) -> Sent<'_> {
    match are_all_sent {
        true => Sent::All,
        false => sent.get(&key).map_or(Sent::None, Sent::These),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Action, Actor, EventId, FixRemoval, KnownMark};

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
        (0..250).for_each(|n| assert!(pending.add(at(0), &repair(n), false)));
        pending.remove(&repair(0));
        pending.remove(&repair(249));
        assert_eq!(pending.summary(KEY, at(0), &[]).fresh.repairs, 248);
        let history = history(&pending);
        assert_eq!(history.total, 248);
        let listed: Vec<_> = history.recent.iter().map(|repair| repair.action.clone()).collect();
        let newest: Vec<_> = (149..249).rev().map(|n| format!("action-{n}")).collect();
        assert_eq!(listed, newest);
    }

    #[test]
    fn an_operation_that_does_not_wait_takes_no_other_away() {
        let mut pending = Pending::default();
        pending.add(at(0), &repair(1), false);
        for round in 0..3 {
            pending.remove(&repair(2));
            assert_eq!(pending.operations(), 1, "round {round}: of one that waits");
        }
        pending.add(at(0), &repair(3), false);
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
            pending.add(at(0), &operation, false);
        }
        assert_eq!(fix(&pending), None);
        pending.remove(&removal);
        assert_eq!(fix(&pending).as_deref(), Some("fix 2"));
        assert_eq!(pending.summary(KEY, at(0), &[]).mark, Some(KnownMark::SetAt(at(2))));
        pending.remove(&mark(2));
        assert_eq!(fix(&pending).as_deref(), Some("fix 1"));
    }
}
