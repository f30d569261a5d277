//! The effects of repairs, marks and removals that wait for one anomaly.

use std::{collections::BTreeMap, sync::Arc};

use crate::domain::{FixMark, RepairAttempt, Timestamp};

/// The effect of an operation that is not an occurrence.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Repaired {
        at: Timestamp,
        success: bool,
        /// True if the store may already have it.
        is_doubtful: bool,
        /// Absent if there was no memory for it.
        action: Option<Arc<str>>,
    },
    Marked {
        at: Timestamp,
        /// Absent if there was no memory for them.
        texts: Option<Box<Texts>>,
    },
    Unmarked,
}

/// The texts of a mark.
#[derive(Clone, Debug)]
pub(super) struct Texts {
    pub(super) description: String,
    pub(super) fixed_by: Option<String>,
}

impl Effect {
    pub(super) fn repaired(
        attempt: &RepairAttempt,
        is_doubtful: bool,
        action: Option<Arc<str>>,
    ) -> Self {
        Self::Repaired { at: attempt.at, success: attempt.success, is_doubtful, action }
    }

    pub(super) fn is_doubtful_repair(&self) -> bool {
        matches!(self, Self::Repaired { is_doubtful: true, .. })
    }

    pub(super) fn marked(mark: &FixMark, has_room: bool) -> Self {
        let texts = || {
            let (description, fixed_by) = (mark.description.clone(), mark.fixed_by.clone());
            Box::new(Texts { description, fixed_by })
        };
        Self::Marked { at: mark.at, texts: has_room.then(texts) }
    }

    /// Returns the size of the texts that only this operation holds.
    pub(super) fn text_bytes(&self) -> usize {
        match self {
            Self::Repaired { action: Some(action), .. } if Arc::strong_count(action) == 1 => {
                action.len()
            }
            Self::Marked { texts: Some(texts), .. } => {
                texts.description.len() + texts.fixed_by.as_ref().map_or(0, String::len)
            }
            Self::Repaired { .. } | Self::Marked { .. } | Self::Unmarked => 0,
        }
    }
}

/// Effects in the order of their operations.
#[derive(Debug, Default)]
pub(super) struct Effects {
    by_id: BTreeMap<u64, u64>,
    by_position: BTreeMap<u64, Effect>,
    next: u64,
}

impl Effects {
    pub(super) fn len(&self) -> u64 {
        self.by_id.len() as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Returns the effects, newest first.
    pub(super) fn newest(&self) -> impl Iterator<Item = &Effect> {
        self.by_position.values().rev()
    }

    pub(super) fn insert(&mut self, id: u64, effect: Effect) -> bool {
        if self.by_id.contains_key(&id) {
            return false;
        }
        self.by_id.insert(id, self.next);
        self.by_position.insert(self.next, effect);
        self.next += 1;
        true
    }

    pub(super) fn get(&self, id: u64) -> Option<&Effect> {
        self.by_position.get(self.by_id.get(&id)?)
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Effect> {
        self.by_position.remove(&self.by_id.remove(&id)?)
    }
}
