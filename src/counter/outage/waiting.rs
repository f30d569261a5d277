//! The waiting operations of one anomaly, in as few bytes as an estimate needs: a full spool has
//! millions of them. The cost of each call grows only with the logarithm of their number.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    mem,
};

use super::{
    effects::{Effect, Effects, Texts},
    occurrences::{ExtraNumbers, Occurrences, counts_of_one, extra_of_one},
    repair_copies::{WaitingAttempt, without_copies},
    waiting_id::{Id, IdOf},
};
use crate::domain::{
    ExtraWindow, KnownMark, PermanentFix, RECENT_ATTEMPTS, RETENTION, RecentAttempt, RepairHistory,
    Timestamp, WindowCounts,
};

/// The waiting operations of one anomaly. Most anomalies have only one, an occurrence.
#[derive(Debug)]
pub(super) enum Waiting {
    /// An occurrence with 56 bits of its id. With these sizes, the enum takes 16 bytes.
    One {
        at: Timestamp,
        id: [u8; 7],
    },
    /// An occurrence that the store may already have.
    OneDoubtful {
        at: Timestamp,
        id: [u8; 7],
    },
    /// An alert. The store decides whether it counts, so its effect is not known.
    OneAlert {
        id: [u8; 7],
    },
    /// A repair, a mark or the removal of a mark.
    OneOther(Box<(u64, Effect)>),
    Many(Box<Many>),
}

/// Several operations, or several copies of one.
#[derive(Debug, Default)]
pub(super) struct Many {
    /// Occurrences that the store can't have had before they began to wait.
    fresh: Occurrences,
    /// Occurrences that the store may have had: a caller gave their ids, or they were sent.
    doubtful: Occurrences,
    repairs: Effects,
    /// Number of `repairs` that the store may have had.
    doubtful_repairs: u64,
    fixes: Effects,
    alerts: BTreeSet<u64>,
    /// Number of further copies of an operation, if there are any: a client's retry is accepted
    /// when it is durable itself, and not because the first copy may become durable.
    copies: BTreeMap<Id, u32>,
}

impl Many {
    fn insert(&mut self, id: Id, effect: New) -> bool {
        let is_first = match effect {
            New::Occurrence { at, is_doubtful } => {
                let (to, other) = match is_doubtful {
                    true => (&mut self.doubtful, &self.fresh),
                    false => (&mut self.fresh, &self.doubtful),
                };
                !other.contains(id.short) && to.insert(at, id.short)
            }
            New::Other(effect @ Effect::Repaired { .. }) => {
                let is_doubtful = effect.is_doubtful_repair();
                let is_first = self.repairs.insert(id.short, effect);
                self.doubtful_repairs += u64::from(is_first && is_doubtful);
                is_first
            }
            New::Alert => self.alerts.insert(id.short),
            New::Other(effect) => self.fixes.insert(id.short, effect),
        };
        if !is_first {
            *self.copies.entry(id).or_default() += 1;
        }
        is_first
    }

    /// Returns what was removed; `None` if there was no copy.
    fn remove(&mut self, id: Id) -> Option<Removed> {
        if let Some(more) = self.copies.get_mut(&id) {
            *more -= 1;
            if *more == 0 {
                self.copies.remove(&id);
            }
            return Some(Removed::Copy);
        }
        if id.of == IdOf::Alert {
            return self.alerts.remove(&id.short).then_some(Removed::NoEffect);
        }
        if id.of == IdOf::Occurrence {
            let is_found = self.fresh.remove(id.short) || self.doubtful.remove(id.short);
            return is_found.then_some(Removed::NoEffect);
        }
        if let Some(repair) = self.repairs.remove(id.short) {
            self.doubtful_repairs -= u64::from(repair.is_doubtful_repair());
            return Some(Removed::Effect(repair));
        }
        self.fixes.remove(id.short).map(Removed::Effect)
    }

    fn is_empty(&self) -> bool {
        self.fresh.is_empty()
            && self.doubtful.is_empty()
            && self.repairs.is_empty()
            && self.fixes.is_empty()
            && self.alerts.is_empty()
    }
}

/// The effect of a removal.
#[derive(Debug)]
enum Removed {
    /// One of several copies.
    Copy,
    /// The last copy of an occurrence or an alert.
    NoEffect,
    /// The effect of the last copy of another operation.
    Effect(Effect),
}

/// The outcome of a removal.
#[derive(Debug)]
pub(super) struct Removal {
    /// True if nothing waits any more.
    pub(super) is_last: bool,
    /// True if no copy of the operation waits any more.
    pub(super) is_gone: bool,
    /// The size of the removed texts in bytes.
    pub(super) text_bytes: usize,
}

/// The effect of a new operation.
#[derive(Debug)]
pub(super) enum New {
    Occurrence {
        at: Timestamp,
        /// True if the store may already have it.
        is_doubtful: bool,
    },
    Alert,
    Other(Effect),
}

/// The waiting operations of one anomaly, as far as an estimate needs them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// Operations that the store can't have had before they began to wait.
    pub(super) fresh: Amounts,
    /// Those of `fresh` that were not sent since.
    pub(super) unsent: Amounts,
    /// Operations that the store may have had before.
    pub(super) doubtful: Amounts,
    /// The times of the oldest and the newest occurrence inside 30 days.
    pub(super) span: Option<(Timestamp, Timestamp)>,
    /// The mark after they are applied; absent if they leave it as it is.
    pub(super) mark: Option<KnownMark>,
}

/// The numbers of occurrences and repairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amounts {
    pub(super) counts: WindowCounts,
    /// Occurrences in the additional windows of the anomaly's rule.
    pub(super) extra: ExtraNumbers,
    pub(super) repairs: u64,
}

/// The operations that may have been sent to the store since they began to wait.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sent<'a> {
    None,
    All,
    These(&'a HashSet<Id>),
}

impl Waiting {
    pub(super) fn new(id: Id, new: New) -> Self {
        match new {
            New::Occurrence { at, is_doubtful } => {
                let [_, id @ ..] = id.short.to_be_bytes();
                if is_doubtful { Self::OneDoubtful { at, id } } else { Self::One { at, id } }
            }
            New::Alert => {
                let [_, id @ ..] = id.short.to_be_bytes();
                Self::OneAlert { id }
            }
            New::Other(effect) => Self::OneOther(Box::new((id.short, effect))),
        }
    }

    /// Adds an operation. Returns true if it is the first with its id.
    pub(super) fn insert(&mut self, id: Id, new: New) -> bool {
        if let Self::Many(many) = self {
            return many.insert(id, new);
        }
        let mut many = Many::default();
        match self {
            Self::One { at, id } => {
                let id = Id::of_one(IdOf::Occurrence, *id);
                many.insert(id, New::Occurrence { at: *at, is_doubtful: false });
            }
            Self::OneDoubtful { at, id } => {
                let id = Id::of_one(IdOf::Occurrence, *id);
                many.insert(id, New::Occurrence { at: *at, is_doubtful: true });
            }
            Self::OneAlert { id } => {
                many.insert(Id::of_one(IdOf::Alert, *id), New::Alert);
            }
            Self::OneOther(other) => {
                let (short, effect) = &**other;
                let id = Id { of: IdOf::Other, short: *short };
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
        let (removed, is_last) = match self {
            Self::One { id: known, .. } | Self::OneDoubtful { id: known, .. } => {
                if Id::of_one(IdOf::Occurrence, *known) != id {
                    return None;
                }
                (Removed::NoEffect, true)
            }
            Self::OneAlert { id: known } if Id::of_one(IdOf::Alert, *known) != id => return None,
            Self::OneAlert { .. } => (Removed::NoEffect, true),
            Self::OneOther(other) if id.of != IdOf::Other || other.0 != id.short => return None,
            Self::OneOther(other) => {
                (Removed::Effect(mem::replace(&mut other.1, Effect::Unmarked)), true)
            }
            Self::Many(many) => (many.remove(id)?, many.is_empty()),
        };
        let is_gone = !matches!(removed, Removed::Copy);
        let text_bytes = match removed {
            Removed::Effect(effect) => effect.text_bytes(),
            Removed::Copy | Removed::NoEffect => 0,
        };
        Some(Removal { is_last, is_gone, text_bytes })
    }

    /// Returns the summary of the operations that an estimate needs. `windows` are the additional
    /// windows of the anomaly's rule.
    pub(super) fn summary(
        &mut self,
        now: Timestamp,
        windows: &[ExtraWindow],
        sent: Sent<'_>,
    ) -> Summary {
        let one = |at: Timestamp| {
            let span = (at >= RETENTION.start(now)).then_some((at, at));
            let extra = extra_of_one(at, now, windows);
            (Amounts { counts: counts_of_one(at, now), extra, repairs: 0 }, span)
        };
        let mut summary = Summary { mark: self.last_mark(), ..Summary::default() };
        match self {
            Self::One { at, .. } => (summary.fresh, summary.span) = one(*at),
            Self::OneDoubtful { at, .. } => (summary.doubtful, summary.span) = one(*at),
            Self::OneAlert { .. } => {}
            Self::OneOther(other) => match &other.1 {
                Effect::Repaired { is_doubtful: true, .. } => summary.doubtful.repairs = 1,
                Effect::Repaired { .. } => summary.fresh.repairs = 1,
                Effect::Marked { .. } | Effect::Unmarked => {}
            },
            Self::Many(many) => {
                summary.fresh.counts = many.fresh.counts(now);
                summary.doubtful.counts = many.doubtful.counts(now);
                summary.fresh.extra = many.fresh.extra(now, windows);
                summary.doubtful.extra = many.doubtful.extra(now, windows);
                summary.doubtful.repairs = many.doubtful_repairs;
                summary.fresh.repairs = many.repairs.len() - many.doubtful_repairs;
                let spans = [many.fresh.span(now), many.doubtful.span(now)].into_iter().flatten();
                summary.span = spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
            }
        }
        let (sent_counts, sent_extra) = match (sent, &*self) {
            (Sent::None, _) => Default::default(),
            (Sent::These(ids), Self::Many(many)) => {
                let ids = || ids.iter().filter(|id| id.of == IdOf::Occurrence).map(|id| id.short);
                (many.fresh.counts_of(now, ids()), many.fresh.extra_of(now, windows, ids()))
            }
            // All operations, or the only one.
            _ => (summary.fresh.counts, summary.fresh.extra),
        };
        let mut extra = summary.fresh.extra;
        extra.iter_mut().zip(sent_extra).for_each(|(of, sent)| *of = of.saturating_sub(sent));
        summary.unsent = Amounts {
            counts: summary.fresh.counts.minus(sent_counts),
            extra,
            repairs: self.unsent_repairs(sent),
        };
        summary
    }

    /// Returns the number of fresh repairs that were not sent.
    fn unsent_repairs(&self, sent: Sent<'_>) -> u64 {
        match (sent, self) {
            (Sent::None, _) => self.fresh_repairs(),
            (Sent::These(ids), Self::Many(many)) => {
                let is_fresh = |id: &&Id| {
                    let repair = many.repairs.get(id.short).filter(|_| id.of == IdOf::Other);
                    repair.is_some_and(|repair| !repair.is_doubtful_repair())
                };
                let sent = ids.iter().filter(is_fresh).count() as u64;
                self.fresh_repairs().saturating_sub(sent)
            }
            // All were sent, or there is only one.
            _ => 0,
        }
    }

    /// Adds the repairs to the anomaly's `history`, the newest of them individually. A repair that
    /// may already be in the history is added only if it differs from all in it. The total is a
    /// lower bound, because the history may also include any repairs that were sent and are not in
    /// its list.
    pub(super) fn add_repairs(&self, history: &mut RepairHistory, sent: Sent<'_>) {
        let newest: Vec<&Effect> = match self {
            Self::One { .. } | Self::OneDoubtful { .. } | Self::OneAlert { .. } => Vec::new(),
            Self::OneOther(other) => vec![&other.1],
            Self::Many(many) => many.repairs.newest().take(RECENT_ATTEMPTS).collect(),
        };
        let waiting: Vec<WaitingAttempt> = newest
            .into_iter()
            .rev()
            .filter_map(|effect| {
                let Effect::Repaired { at, success, is_doubtful, action } = effect else {
                    return None;
                };
                let (action, at) = (action.as_ref()?.to_string(), Some(*at));
                let attempt = RecentAttempt { action, success: *success, at };
                Some(WaitingAttempt { attempt, is_doubtful: *is_doubtful })
            })
            .collect();
        let listed = waiting.iter().filter(|waits| !waits.is_doubtful).count() as u64;
        let (known, unsent) = (history.total, self.unsent_repairs(sent));
        let are_all_listed = known <= history.recent.len() as u64;
        for WaitingAttempt { attempt, .. } in without_copies(history, waiting) {
            history.push(attempt);
        }
        history.total = match are_all_listed {
            true => history.total + unsent.saturating_sub(listed),
            false => unsent + known.max(self.doubtful_repairs()),
        };
    }

    fn doubtful_repairs(&self) -> u64 {
        match self {
            Self::One { .. } | Self::OneDoubtful { .. } | Self::OneAlert { .. } => 0,
            Self::OneOther(other) => u64::from(other.1.is_doubtful_repair()),
            Self::Many(many) => many.doubtful_repairs,
        }
    }

    fn fresh_repairs(&self) -> u64 {
        match self {
            Self::One { .. } | Self::OneDoubtful { .. } | Self::OneAlert { .. } => 0,
            Self::OneOther(other) => {
                u64::from(matches!(other.1, Effect::Repaired { is_doubtful: false, .. }))
            }
            Self::Many(many) => many.repairs.len() - many.doubtful_repairs,
        }
    }

    fn last_mark(&self) -> Option<KnownMark> {
        match self.last_fix()? {
            Effect::Marked { at, .. } => Some(KnownMark::SetAt(*at)),
            Effect::Unmarked => Some(KnownMark::Absent),
            Effect::Repaired { .. } => None,
        }
    }

    /// Returns the fix as it will be after all waiting operations are applied.
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
            Self::One { .. } | Self::OneDoubtful { .. } | Self::OneAlert { .. } => None,
            Self::OneOther(other) => Some(&other.1),
            Self::Many(many) => many.fixes.newest().next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AnomalyKey, EventId, Occurrence, Operation};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(1_774_799_738_000_000).plus_seconds(second)
    }

    fn id(number: u64) -> Id {
        let (key, id) = (AnomalyKey::from_bits(7), EventId::parse(&number.to_string()).unwrap());
        let (at, signature_json) = (at(0), "{}".into());
        let occurrence = Occurrence { key, id, at, signature_json, episode: None, rule: None };
        Id::of(&Operation::Occurrence(occurrence))
    }

    fn fresh(second: i64) -> New {
        New::Occurrence { at: at(second), is_doubtful: false }
    }

    fn counts(waiting: &mut Waiting, now: Timestamp) -> WindowCounts {
        waiting.summary(now, &[], Sent::All).fresh.counts
    }

    #[test]
    fn an_alert_that_waits_changes_no_estimate() {
        let alert = Id { of: IdOf::Alert, short: 7 };
        let mut waiting = Waiting::new(alert, New::Alert);
        assert_eq!(waiting.summary(at(0), &[], Sent::None), Summary::default());
        assert!(!waiting.insert(alert, New::Alert), "a copy of it");
        let occurrence = New::Occurrence { at: at(0), is_doubtful: false };
        assert!(waiting.insert(id(1), occurrence));
        assert_eq!(waiting.summary(at(0), &[], Sent::All).fresh.counts.month, 1);
        for gone in [false, true] {
            let removal = waiting.remove(alert).unwrap();
            assert!(removal.is_gone == gone && !removal.is_last);
        }
        assert!(waiting.remove(alert).is_none(), "it waits no longer");
        assert!(waiting.remove(id(1)).unwrap().is_last);
        assert!(Waiting::new(alert, New::Alert).remove(alert).unwrap().is_last);
    }

    #[test]
    fn an_anomaly_with_one_occurrence_takes_sixteen_bytes() {
        assert_eq!(size_of::<Waiting>(), 16);
    }

    #[test]
    fn counts_follow_the_clock_in_both_directions() {
        let mut waiting = Waiting::new(id(0), fresh(0));
        let hour = 3_600;
        assert!(waiting.insert(id(1), fresh(hour)));
        assert!(waiting.insert(id(2), fresh(-hour)));
        assert!(!waiting.insert(id(2), fresh(5)), "a copy with another time");
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

    #[test]
    fn what_the_store_may_have_had_is_summed_apart() {
        let mut waiting = Waiting::new(id(0), fresh(0));
        assert!(waiting.insert(id(1), fresh(0)));
        let doubtful = || New::Occurrence { at: at(0), is_doubtful: true };
        assert!(waiting.insert(id(2), doubtful()));
        assert!(!waiting.insert(id(1), doubtful()), "a copy of one that is fresh");
        let sent = HashSet::from([id(1), id(2)]);
        let summary = waiting.summary(at(0), &[], Sent::These(&sent));
        assert_eq!(summary.fresh.counts.hour, 2);
        assert_eq!(summary.unsent.counts.hour, 1);
        assert_eq!(summary.doubtful.counts.hour, 1);
        assert_eq!(waiting.summary(at(0), &[], Sent::All).unsent.counts.hour, 0);
    }
}
