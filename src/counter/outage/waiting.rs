//! The operations that wait for one anomaly, in as few bytes as an estimate needs: a full spool has
//! millions of them. Their number changes no cost by more than its logarithm.

use std::{collections::BTreeMap, mem, sync::Arc};

use crate::domain::{
    AnomalyStats, FixMark, Operation, PermanentFix, RECENT_ATTEMPTS, RETENTION, RecentAttempt,
    RepairAttempt, RepairHistory, Timestamp, Window, WindowCounts,
};

const WINDOWS: [Window; 4] = [Window::Hour, Window::Day, Window::Week, Window::Month];

/// The operations that wait for one anomaly. Most anomalies have just one, an occurrence.
#[derive(Debug)]
pub(super) enum Waiting {
    /// With 56 bits of its id. The sizes make the whole 16 bytes.
    One {
        at: Timestamp,
        id: [u8; 7],
    },
    /// A repair, a mark or a removal of one.
    OneOther(Box<(u64, Effect)>),
    Many(Box<Many>),
}

/// Occurrences have ids of their own, apart from those of all other operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    of_occurrence: bool,
    short: u64,
}

impl Id {
    pub(super) fn of(operation: &Operation) -> Self {
        let of_occurrence = matches!(operation, Operation::Occurrence(_));
        Self { of_occurrence, short: operation.id().digest().short() }
    }

    /// The id of an occurrence, from its 56 bits.
    fn of_one([a, b, c, d, e, f, g]: [u8; 7]) -> Self {
        Self { of_occurrence: true, short: u64::from_be_bytes([0, a, b, c, d, e, f, g]) }
    }
}

/// The effect of an operation that is not an occurrence.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Repaired {
        at: Timestamp,
        success: bool,
        /// Absent where there was no room for it.
        action: Option<Arc<str>>,
    },
    Marked {
        at: Timestamp,
        /// Absent where there was no room for them.
        texts: Option<Box<Texts>>,
    },
    Unmarked,
}

/// The texts of a mark.
#[derive(Clone, Debug)]
pub(super) struct Texts {
    description: String,
    fixed_by: Option<String>,
}

impl Effect {
    pub(super) fn repaired(attempt: &RepairAttempt, action: Option<Arc<str>>) -> Self {
        Self::Repaired { at: attempt.at, success: attempt.success, action }
    }

    pub(super) fn marked(mark: &FixMark, has_room: bool) -> Self {
        let texts = || {
            let (description, fixed_by) = (mark.description.clone(), mark.fixed_by.clone());
            Box::new(Texts { description, fixed_by })
        };
        Self::Marked { at: mark.at, texts: has_room.then(texts) }
    }

    /// Returns the size of the texts that are kept for it alone.
    fn text_bytes(&self) -> usize {
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

/// Several operations, or several copies of one.
#[derive(Debug, Default)]
pub(super) struct Many {
    occurrences: Occurrences,
    repairs: Effects,
    fixes: Effects,
    /// Number of further copies of an operation, where there are any: a client's retry is accepted
    /// once it is durable itself, and not because the first copy may become so.
    copies: BTreeMap<Id, u32>,
}

#[derive(Debug)]
struct Occurrences {
    by_id: BTreeMap<u64, Timestamp>,
    by_time: BTreeMap<Timestamp, u32>,
    /// For each window its start, and the number of occurrences from there on. An event leaves a
    /// window once, so that moving the starts costs little.
    counted: [(Timestamp, u64); 4],
}

impl Default for Occurrences {
    fn default() -> Self {
        let counted = [(Timestamp::from_micros(i64::MIN), 0); 4];
        Self { by_id: BTreeMap::new(), by_time: BTreeMap::new(), counted }
    }
}

/// Effects in the order in which they wait.
#[derive(Debug, Default)]
struct Effects {
    by_id: BTreeMap<u64, u64>,
    by_position: BTreeMap<u64, Effect>,
    next: u64,
}

impl Occurrences {
    fn insert(&mut self, at: Timestamp, id: u64) -> bool {
        if self.by_id.contains_key(&id) {
            return false;
        }
        self.by_id.insert(id, at);
        *self.by_time.entry(at).or_default() += 1;
        for (start, count) in &mut self.counted {
            *count += u64::from(at >= *start);
        }
        true
    }

    fn remove(&mut self, id: u64) -> bool {
        let Some(at) = self.by_id.remove(&id) else { return false };
        if let Some(same) = self.by_time.get_mut(&at) {
            *same -= 1;
            if *same == 0 {
                self.by_time.remove(&at);
            }
        }
        for (start, count) in &mut self.counted {
            *count -= u64::from(at >= *start);
        }
        true
    }

    fn counts(&mut self, now: Timestamp) -> WindowCounts {
        for (window, (start, count)) in WINDOWS.into_iter().zip(&mut self.counted) {
            let moved_to = window.start(now);
            let between = |from, to| -> u64 {
                self.by_time.range(from..to).map(|(_, same)| u64::from(*same)).sum()
            };
            // A clock that was set back moves it back.
            *count += if moved_to < *start { between(moved_to, *start) } else { 0 };
            *count -= if *start < moved_to { between(*start, moved_to) } else { 0 };
            *start = moved_to;
        }
        let [(_, hour), (_, day), (_, week), (_, month)] = self.counted;
        WindowCounts { hour, day, week, month }
    }

    fn span(&self, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let mut inside = self.by_time.range(RETENTION.start(now)..).map(|(at, _)| *at);
        let first = inside.next()?;
        Some((first, inside.next_back().unwrap_or(first)))
    }
}

impl Effects {
    fn insert(&mut self, id: u64, effect: Effect) -> bool {
        if self.by_id.contains_key(&id) {
            return false;
        }
        self.by_id.insert(id, self.next);
        self.by_position.insert(self.next, effect);
        self.next += 1;
        true
    }

    fn remove(&mut self, id: u64) -> Option<Effect> {
        self.by_position.remove(&self.by_id.remove(&id)?)
    }
}

impl Many {
    fn insert(&mut self, id: Id, effect: New) -> bool {
        let is_first = match effect {
            New::Occurrence(at) => self.occurrences.insert(at, id.short),
            New::Other(effect @ Effect::Repaired { .. }) => self.repairs.insert(id.short, effect),
            New::Other(effect) => self.fixes.insert(id.short, effect),
        };
        if !is_first {
            *self.copies.entry(id).or_default() += 1;
        }
        is_first
    }

    /// Returns the effect that went with the last copy; `None` if there was no copy.
    fn remove(&mut self, id: Id) -> Option<Option<Effect>> {
        if let Some(more) = self.copies.get_mut(&id) {
            *more -= 1;
            if *more == 0 {
                self.copies.remove(&id);
            }
            Some(None)
        } else if id.of_occurrence {
            self.occurrences.remove(id.short).then_some(None)
        } else {
            self.repairs.remove(id.short).or_else(|| self.fixes.remove(id.short)).map(Some)
        }
    }

    fn is_empty(&self) -> bool {
        self.occurrences.by_id.is_empty()
            && self.repairs.by_id.is_empty()
            && self.fixes.by_id.is_empty()
    }
}

/// The outcome of a removal.
#[derive(Debug)]
pub(super) struct Removal {
    /// True if nothing waits any more.
    pub(super) is_last: bool,
    /// The size of the texts that went.
    pub(super) text_bytes: usize,
}

/// The effect of a new operation.
#[derive(Debug)]
pub(super) enum New {
    Occurrence(Timestamp),
    Other(Effect),
}

impl Waiting {
    pub(super) fn new(id: Id, new: New) -> Self {
        match new {
            New::Occurrence(at) => {
                let [_, short @ ..] = id.short.to_be_bytes();
                Self::One { at, id: short }
            }
            New::Other(effect) => Self::OneOther(Box::new((id.short, effect))),
        }
    }

    /// Adds an operation, and returns whether it is the first of its id.
    pub(super) fn insert(&mut self, id: Id, new: New) -> bool {
        if let Self::Many(many) = self {
            return many.insert(id, new);
        }
        let mut many = Many::default();
        match self {
            Self::One { at, id } => {
                many.insert(Id::of_one(*id), New::Occurrence(*at));
            }
            Self::OneOther(other) => {
                let (short, effect) = &**other;
                let id = Id { of_occurrence: false, short: *short };
                many.insert(id, New::Other(effect.clone()));
            }
            Self::Many(_) => {}
        }
        let is_first = many.insert(id, new);
        *self = Self::Many(Box::new(many));
        is_first
    }

    /// Removes one copy of an operation; `None` if it does not wait.
    pub(super) fn remove(&mut self, id: Id) -> Option<Removal> {
        let (effect, is_last) = match self {
            Self::One { id: known, .. } if Id::of_one(*known) != id => return None,
            Self::One { .. } => (None, true),
            Self::OneOther(other) if id.of_occurrence || other.0 != id.short => return None,
            Self::OneOther(other) => (Some(mem::replace(&mut other.1, Effect::Unmarked)), true),
            Self::Many(many) => (many.remove(id)?, many.is_empty()),
        };
        Some(Removal { is_last, text_bytes: effect.map_or(0, |effect| effect.text_bytes()) })
    }

    /// Adds the operations to the anomaly's `stats`.
    pub(super) fn add_to(&mut self, now: Timestamp, stats: &mut AnomalyStats) {
        let (counts, span) = match self {
            Self::One { at, .. } => {
                let [hour, day, week, month] =
                    WINDOWS.map(|window| u64::from(*at >= window.start(now)));
                let span = (month > 0).then_some((*at, *at));
                (WindowCounts { hour, day, week, month }, span)
            }
            Self::OneOther(_) => (WindowCounts::default(), None),
            Self::Many(many) => (many.occurrences.counts(now), many.occurrences.span(now)),
        };
        stats.counts.hour += counts.hour;
        stats.counts.day += counts.day;
        stats.counts.week += counts.week;
        stats.counts.month += counts.month;
        if let Some((first, last)) = span {
            stats.first_seen = Some(stats.first_seen.map_or(first, |seen| seen.min(first)));
            stats.last_seen = Some(stats.last_seen.map_or(last, |seen| seen.max(last)));
        }
        stats.repair_attempts += self.repairs();
        match self.last_fix() {
            Some(Effect::Marked { at, .. }) => stats.fixed_at = Some(*at),
            Some(Effect::Unmarked) => stats.fixed_at = None,
            Some(Effect::Repaired { .. }) | None => {}
        }
    }

    /// Adds the repairs to the anomaly's `history`, the newest of them one by one.
    pub(super) fn add_repairs(&self, history: &mut RepairHistory) {
        let newest: Vec<&Effect> = match self {
            Self::One { .. } => Vec::new(),
            Self::OneOther(other) => vec![&other.1],
            Self::Many(many) => {
                many.repairs.by_position.values().rev().take(RECENT_ATTEMPTS).collect()
            }
        };
        let total = history.total + self.repairs();
        for effect in newest.into_iter().rev() {
            if let Effect::Repaired { at, success, action: Some(action) } = effect {
                let (action, at) = (action.to_string(), Some(*at));
                history.push(RecentAttempt { action, success: *success, at });
            }
        }
        history.total = total;
    }

    fn repairs(&self) -> u64 {
        match self {
            Self::One { .. } => 0,
            Self::OneOther(other) => u64::from(matches!(other.1, Effect::Repaired { .. })),
            Self::Many(many) => many.repairs.by_id.len() as u64,
        }
    }

    /// Returns the fix as it is once everything that waits is applied.
    pub(super) fn fix_after(&self, before: Option<PermanentFix>) -> Option<PermanentFix> {
        match self.last_fix() {
            Some(Effect::Marked { at, texts }) => {
                let texts = texts.as_deref().cloned();
                let (description, fixed_by) = texts
                    .map(|Texts { description, fixed_by }| (Some(description), fixed_by))
                    .unwrap_or_default();
                Some(PermanentFix { description, fixed_by, marked_at: *at })
            }
            Some(Effect::Unmarked) => None,
            Some(Effect::Repaired { .. }) | None => before,
        }
    }

    fn last_fix(&self) -> Option<&Effect> {
        match self {
            Self::One { .. } => None,
            Self::OneOther(other) => Some(&other.1),
            Self::Many(many) => many.fixes.by_position.values().next_back(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AnomalyKey, EventId, Occurrence};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(1_774_799_738_000_000).plus_seconds(second)
    }

    fn id(number: u64) -> Id {
        let (key, id) = (AnomalyKey::from_bits(7), EventId::parse(&number.to_string()).unwrap());
        let occurrence = Occurrence { key, id, at: at(0), signature_json: "{}".into() };
        Id::of(&Operation::Occurrence(occurrence))
    }

    fn counts(waiting: &mut Waiting, now: Timestamp) -> WindowCounts {
        let mut stats = AnomalyStats::default();
        waiting.add_to(now, &mut stats);
        stats.counts
    }

    #[test]
    fn an_anomaly_with_one_occurrence_takes_sixteen_bytes() {
        assert_eq!(size_of::<Waiting>(), 16);
    }

    #[test]
    fn counts_follow_the_clock_in_both_directions() {
        let mut waiting = Waiting::new(id(0), New::Occurrence(at(0)));
        let hour = 3_600;
        assert!(waiting.insert(id(1), New::Occurrence(at(hour))));
        assert!(waiting.insert(id(2), New::Occurrence(at(-hour))));
        assert!(!waiting.insert(id(2), New::Occurrence(at(5))), "a copy with another time");
        let of_hour = |hour| WindowCounts { hour, day: 3, week: 3, month: 3 };
        for (now, expected) in [(hour, 2), (hour + 1, 1), (0, 3), (2 * hour + 1, 0), (hour, 2)] {
            assert_eq!(counts(&mut waiting, at(now)), of_hour(expected), "{now}");
        }
        let is_last = |waiting: &mut Waiting, number| waiting.remove(id(number)).unwrap().is_last;
        assert!(!is_last(&mut waiting, 2), "its copy waits");
        assert_eq!(counts(&mut waiting, at(hour)).month, 3);
        for number in [2, 0] {
            assert!(!is_last(&mut waiting, number));
        }
        let last = WindowCounts { hour: 1, day: 1, week: 1, month: 1 };
        assert_eq!(counts(&mut waiting, at(hour)), last);
        assert!(waiting.remove(id(9)).is_none(), "it does not wait");
        assert!(is_last(&mut waiting, 1));
    }
}
