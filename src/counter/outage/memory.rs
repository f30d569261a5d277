//! The memory for answers while the store gives none: the operations that wait, the last known
//! state of anomalies, and the way in which the two make an estimate.
//!
//! An estimate is a lower bound of what is true once everything that waits is applied. Operations
//! that the store can't have had are added to what is known. One with an id that a caller gave may
//! be a second copy, and one that was sent may have been applied: of those, and of what is known,
//! the larger number counts.

use std::collections::BTreeMap;

use super::{
    occurrences::counts_of_one,
    pending::Pending,
    reported::Reported,
    stale_cache::StaleCache,
    stale_entry::{CallTimes, Fall, Seen, is_mark_of},
    waiting::{Amounts, Summary},
};
use crate::{
    domain::{
        AnomalyKey, AnomalyStats, ExtraCount, ExtraWindow, KnownDetails, KnownMark, KnownStats,
        Occurrence, Operation, PermanentFix, RepairHistory, RuleRef, Timestamp,
    },
    spool::SpoolWrite,
};

#[derive(Debug)]
pub(super) struct Memory {
    pub(super) pending: Pending,
    pub(super) stale: StaleCache,
    pub(super) reported: Reported,
    /// The newest stats of anomalies of which operations that were sent still wait: which of them
    /// are counted in the stats is not known.
    applied: BTreeMap<AnomalyKey, (CallTimes, AnomalyStats)>,
}

/// Stats made of the last known ones and the operations that wait.
#[derive(Clone, Debug)]
pub(crate) struct Estimate {
    /// When the last known stats were current; `None` where there are none.
    pub(crate) as_of: Option<Timestamp>,
    pub(crate) stats: KnownStats,
}

/// An operation that waits durably.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    /// False when another copy of it waits already.
    pub(crate) is_first: bool,
    /// The stats that were known just before it.
    pub(crate) before: KnownStats,
    pub(crate) estimate: Estimate,
}

impl Memory {
    pub(super) fn new(pending: Pending, stale: StaleCache, reported: Reported) -> Self {
        Self { pending, stale, reported, applied: BTreeMap::new() }
    }

    /// Returns an estimate for an anomaly; `None` where nothing is known of its occurrences.
    /// `windows` are those of its rule beside the four.
    pub(super) fn estimate(
        &mut self,
        key: AnomalyKey,
        now: Timestamp,
        windows: &[ExtraWindow],
    ) -> Option<Estimate> {
        let estimate = self.known(key, now, windows);
        let KnownStats { is_partial, counts, .. } = &estimate.stats;
        (!is_partial || counts.month > 0).then_some(estimate)
    }

    /// Returns what is known of an anomaly's stats: lower bounds of what will be true.
    pub(super) fn known(
        &mut self,
        key: AnomalyKey,
        now: Timestamp,
        windows: &[ExtraWindow],
    ) -> Estimate {
        let summary = self.pending.summary(key, now, windows);
        let listed = self.listed_attempts(key, &summary);
        let entry = self.stale.get(key);
        let stale = entry.map(|entry| entry.stats(now));
        let (as_of, base) = stale.map(|Seen { as_of, value }| (as_of, value)).unzip();
        let base = base.unwrap_or_else(KnownStats::unknown);
        let stats = raised(base, windows, summary.fresh, &summary);
        let mut estimate = Estimate { as_of, stats };
        // Where operations were sent again, the newest reply may have some of them.
        if let Some((times, stats)) = self.applied.get(&key) {
            let newest = KnownStats::from(stats.clone()).aged(times.began_at, now);
            let mut stats = raised(newest, windows, summary.unsent, &summary);
            if summary.mark.is_none() {
                let later = entry.and_then(|entry| entry.mark_after(times.began_at));
                stats.mark = later.unwrap_or(stats.mark);
            }
            stats.raise_to(&estimate.stats);
            estimate = Estimate { as_of: Some(times.began_at), stats };
        }
        estimate.stats.repair_attempts = estimate.stats.repair_attempts.max(listed);
        estimate
    }

    /// Returns the number of repair attempts by the history that was seen last, if one was.
    fn listed_attempts(&mut self, key: AnomalyKey, waiting: &Summary) -> Option<u64> {
        match waiting.fresh.repairs + waiting.doubtful.repairs {
            0 => Some(self.stale.get(key)?.repairs()?.value.total),
            _ => Some(self.listed_repairs(key)?.value.total),
        }
    }

    fn listed_repairs(&mut self, key: AnomalyKey) -> Option<Seen<RepairHistory>> {
        let mut seen = self.stale.get(key)?.repairs()?.clone();
        self.pending.add_repairs(key, &mut seen.value);
        Some(seen)
    }

    /// Adds an operation before it is durable. One that may have been sent was sent after `now`.
    pub(super) fn reserve(&mut self, now: Timestamp, write: &SpoolWrite) -> Accepted {
        let SpoolWrite { operation, maybe_sent } = write;
        let key = operation.key();
        let windows = operation.rule().map(RuleRef::extra_windows).unwrap_or_default();
        let mut before = self.known(key, now, windows).stats;
        let may_be_known =
            *maybe_sent && self.stale.get(key).is_some_and(|entry| entry.may_hold(now));
        let is_doubtful = !operation.id().is_made_up() || may_be_known;
        let is_first = self.pending.add(now, operation, is_doubtful);
        if *maybe_sent {
            self.pending.mark_sent(operation);
        }
        let mut estimate = self.known(key, now, windows);
        if let Operation::Occurrence(Occurrence { at, episode: Some(_), .. }) = operation {
            let stale = self.stale.get(key).map(|entry| entry.stats(now).value);
            if stale.is_none_or(|stats| stats.is_partial) {
                // A zero would be a lie: it is an occurrence, or of an incident that has one.
                estimate.stats.counts = estimate.stats.counts.max(counts_of_one(*at, now));
            }
            // Whether it is an occurrence is not decided: it is no step.
            before = estimate.stats.clone();
        }
        Accepted { is_first, before, estimate }
    }

    /// Adds the operations that wait to the stats that the store has just returned; `None` where it
    /// knows none, and no occurrence waits. Nothing is counted twice.
    pub(super) fn with_waiting(
        &mut self,
        key: AnomalyKey,
        now: Timestamp,
        windows: &[ExtraWindow],
        returned: Option<AnomalyStats>,
    ) -> Option<KnownStats> {
        let summary = self.pending.summary(key, now, windows);
        if returned.is_none() && summary.span.is_none() {
            return None;
        }
        let returned = KnownStats::from(returned.unwrap_or_default());
        let mut stats = raised(returned, windows, summary.unsent, &summary);
        if self.pending.is_uncertain(key) {
            stats.raise_to(&self.known(key, now, windows).stats);
        }
        Some(stats)
    }

    /// Returns the repairs of an anomaly as they are once everything that waits is applied, and
    /// when their last known part was current; `None` where they were not seen.
    pub(super) fn repairs(
        &mut self,
        key: AnomalyKey,
        now: Timestamp,
    ) -> Option<Seen<RepairHistory>> {
        let mut seen = self.listed_repairs(key)?;
        let attempts = self.known(key, now, &[]).stats.repair_attempts;
        seen.value.total = seen.value.total.max(attempts.unwrap_or_default());
        Some(seen)
    }

    /// Updates the last known repairs of an anomaly. Of those that wait any may be in the history.
    pub(super) fn update_repairs(
        &mut self,
        key: AnomalyKey,
        times: CallTimes,
        history: &RepairHistory,
    ) {
        let are_in_stats = !self.pending.is_uncertain(key);
        self.stale.update_repairs(key, times, history, are_in_stats);
    }

    /// Completes details by the operations that wait, given the stats that result of them.
    pub(super) fn complete(
        &self,
        key: AnomalyKey,
        details: &mut KnownDetails,
        stats: &mut KnownStats,
    ) {
        if let Some(repairs) = &mut details.repairs {
            self.pending.add_repairs(key, repairs);
            repairs.total = repairs.total.max(stats.repair_attempts.unwrap_or_default());
            stats.repair_attempts = Some(repairs.total);
        }
        // An alert that waits may change it.
        details.firing = None;
        details.fix = match stats.mark {
            KnownMark::Unknown | KnownMark::Absent => None,
            KnownMark::SetAt(marked_at) => {
                let fix = self.pending.fix_after(key, details.fix.take());
                let same = fix.filter(|fix| is_mark_of(Some(fix), Some(marked_at)));
                let bare = || PermanentFix { description: None, fixed_by: None, marked_at };
                Some(same.unwrap_or_else(bare))
            }
        };
    }

    /// Updates the last known stats of an anomaly, which has been written to. Returns the fall of
    /// its count, if it fell.
    pub(super) fn update_written(
        &mut self,
        key: AnomalyKey,
        times: CallTimes,
        stats: &AnomalyStats,
    ) -> Option<Fall> {
        if self.pending.is_uncertain(key) {
            self.applied.insert(key, (times, stats.clone()));
            return None;
        }
        self.stale.update_stats(key, times, stats)
    }

    /// Removes an operation that waits no longer. Once none that was sent waits, takes over what
    /// the store has returned for them.
    pub(super) fn remove(&mut self, operation: &Operation) -> Option<Fall> {
        let key = operation.key();
        self.pending.remove(operation);
        if self.pending.is_uncertain(key) {
            return None;
        }
        let applied = self.applied.remove(&key);
        let fall = applied.and_then(|(times, stats)| self.stale.update_stats(key, times, &stats));
        self.stale.settle_repairs(key);
        fall
    }
}

/// Returns lower bounds for what is true once the operations that wait are applied. `base` has none
/// of those in `surely_new`, and may have any of the others.
fn raised(
    base: KnownStats,
    windows: &[ExtraWindow],
    surely_new: Amounts,
    waiting: &Summary,
) -> KnownStats {
    let mut stats = base;
    let extra = windows.iter().zip(surely_new.extra).zip(waiting.doubtful.extra);
    stats.extra = extra
        .map(|((window, new), doubtful)| {
            let known = stats.as_counts().known_of(window.seconds);
            ExtraCount { count: new + known.count.max(doubtful), ..known }
        })
        .collect();
    let is_first_known =
        !stats.is_partial && (stats.first_seen.is_some() || stats.counts.month == 0);
    stats.counts = surely_new.counts.plus(stats.counts.max(waiting.doubtful.counts));
    let attempts = |known: u64| surely_new.repairs + known.max(waiting.doubtful.repairs);
    stats.repair_attempts = stats.repair_attempts.map(attempts);
    if let Some((first, last)) = waiting.span {
        if is_first_known {
            stats.first_seen = Some(stats.first_seen.map_or(first, |seen| seen.min(first)));
        }
        stats.last_seen = stats.last_seen.max(Some(last));
    }
    stats.mark = waiting.mark.unwrap_or(stats.mark);
    stats
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::domain::{Action, Actor, EventId, Occurrence, RepairAttempt, WindowCounts};

    const KEY: AnomalyKey = AnomalyKey::from_bits(7);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(1_774_799_738_000_000).plus_seconds(second)
    }

    fn times(began: i64, arrived: i64) -> CallTimes {
        CallTimes { began_at: at(began), arrived_at: at(arrived) }
    }

    fn stats(count: u64) -> AnomalyStats {
        let counts = WindowCounts { hour: count, day: count, week: count, month: count };
        let (first_seen, last_seen) = (Some(at(0)), Some(at(0)));
        AnomalyStats { counts, first_seen, last_seen, ..AnomalyStats::default() }
    }

    fn write(id: EventId, maybe_sent: bool) -> SpoolWrite {
        let (at, signature_json) = (at(1), "{}".into());
        let occurrence = Occurrence { key: KEY, id, at, signature_json, episode: None, rule: None };
        SpoolWrite { operation: Operation::Occurrence(occurrence), maybe_sent }
    }

    fn memory() -> Memory {
        let limit = NonZeroUsize::new(10).unwrap();
        let stale = StaleCache::new(limit, 64 << 10);
        Memory::new(Pending::default(), stale, Reported::new(limit))
    }

    fn repair(number: u64) -> SpoolWrite {
        let attempt = RepairAttempt {
            key: KEY,
            id: EventId::unique(),
            action: Action::parse("restart").unwrap(),
            success: false,
            at: Timestamp::from_micros(at(0).as_micros() + number as i64),
            actor: Actor::default(),
        };
        SpoolWrite { operation: Operation::Repair(attempt), maybe_sent: false }
    }

    #[test]
    fn repairs_are_neither_counted_twice_nor_taken_back_while_they_are_applied() {
        let mut memory = memory();
        memory.stale.update_stats(KEY, times(0, 1), &stats(1));
        let mut history = RepairHistory::default();
        memory.update_repairs(KEY, times(0, 1), &history);
        let writes: Vec<SpoolWrite> = (0..250).map(repair).collect();
        for write in &writes {
            memory.reserve(at(2), write);
        }
        let attempts = |memory: &mut Memory| {
            let listed = memory.repairs(KEY, at(9)).unwrap().value;
            assert_eq!(memory.known(KEY, at(9), &[]).stats.repair_attempts, Some(listed.total));
            listed.total
        };
        assert_eq!(attempts(&mut memory), 250);
        for page in writes.chunks(40) {
            for SpoolWrite { operation, .. } in page {
                memory.pending.mark_sent(operation);
                let Operation::Repair(attempt) = operation else { unreachable!() };
                history.push(attempt.into());
            }
            let before = attempts(&mut memory);
            assert_eq!(before, 250, "what was sent may not be applied");
            memory.update_repairs(KEY, times(3, 4), &history);
            assert_eq!(attempts(&mut memory), 250);
            for SpoolWrite { operation, .. } in page {
                memory.remove(operation);
                assert_eq!(attempts(&mut memory), 250);
            }
        }
        assert_eq!(memory.pending.operations(), 0);
    }

    fn count(memory: &mut Memory) -> u64 {
        memory.estimate(KEY, at(9), &[]).unwrap().stats.counts.hour
    }

    #[test]
    fn a_write_that_was_sent_before_the_last_reply_may_be_in_it() {
        let mut memory = memory();
        memory.stale.update_stats(KEY, times(2, 4), &stats(5));
        memory.reserve(at(3), &write(EventId::unique(), true));
        assert_eq!(count(&mut memory), 5, "the reply may have it");
        memory.reserve(at(5), &write(EventId::unique(), true));
        assert_eq!(count(&mut memory), 6, "the reply came before it was sent");
    }

    #[test]
    fn a_second_copy_of_an_id_that_a_caller_gave_may_have_counted() {
        let mut memory = memory();
        memory.stale.update_stats(KEY, times(0, 1), &stats(2));
        for (id, expected) in [("a", 2), ("b", 2), ("c", 3)] {
            memory.reserve(at(2), &write(EventId::parse(id).unwrap(), false));
            assert_eq!(count(&mut memory), expected, "{id}");
        }
        memory.reserve(at(2), &write(EventId::unique(), false));
        assert_eq!(count(&mut memory), 4);
    }

    #[test]
    fn a_write_on_a_later_page_that_was_sent_before_counts_once() {
        let mut memory = memory();
        let [first, second] = [true, true].map(|is_sent| write(EventId::unique(), is_sent));
        memory.reserve(at(1), &first);
        memory.reserve(at(1), &second);
        memory.reserve(at(1), &write(EventId::unique(), false));
        assert_eq!(count(&mut memory), 3);
        // The first is applied, and the reply has the second too, which had been applied before.
        memory.update_written(KEY, times(2, 3), &stats(2));
        assert_eq!(count(&mut memory), 3);
        memory.remove(&first.operation);
        assert_eq!(count(&mut memory), 3);
        memory.remove(&second.operation);
        assert_eq!(count(&mut memory), 3);
    }
}
