//! The memory for answers while the store does not answer: the waiting operations, the last known
//! state of anomalies, and how the two make an estimate.
//!
//! An estimate is a lower bound of the state after all waiting operations are applied. Operations
//! that the store can't have are added to the known state. An operation whose id a caller gave may
//! be a second copy, and an operation that was sent may have been applied: of these and the known
//! state, the larger number counts.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    occurrences::counts_of_one,
    pending::Pending,
    reported::Reported,
    stale_cache::StaleCache,
    stale_entry::{CallTimes, Fall, Seen, is_mark_of},
    waiting::{Amounts, Summary},
};
use crate::{
    catalogue::{Catalogue, Noted, NotedFiring},
    domain::{
        AnomalyKey, AnomalyStats, ExtraCount, ExtraWindow, KnownDetails, KnownMark, KnownStats,
        Occurrence, Operation, PermanentFix, RepairHistory, RuleRef, Signature, Timestamp,
    },
    spool::SpoolWrite,
    store::{AnomalyDetails, RecordOutcome, Recorded, StoredRow},
};

#[derive(Debug)]
pub(super) struct Memory {
    pub(super) pending: Pending,
    pub(super) stale: StaleCache,
    pub(super) reported: Reported,
    /// Contains the last known counts of all anomalies.
    pub(super) catalogue: Arc<Catalogue>,
    /// The newest stats of anomalies for which operations that were sent still wait. It is not
    /// known which of these operations the stats include.
    applied: BTreeMap<AnomalyKey, (CallTimes, AnomalyStats)>,
}

/// Stats from the last known ones and the waiting operations.
#[derive(Clone, Debug)]
pub(crate) struct Estimate {
    /// The time at which the last known stats were current; `None` if there are none.
    pub(crate) as_of: Option<Timestamp>,
    pub(crate) stats: KnownStats,
}

/// A waiting operation, once it is durable.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    /// False if another copy of it already waits.
    pub(crate) is_first: bool,
    /// The stats that were known just before it.
    pub(crate) before: KnownStats,
    pub(crate) estimate: Estimate,
}

impl Memory {
    pub(super) fn new(
        pending: Pending,
        stale: StaleCache,
        reported: Reported,
        catalogue: Arc<Catalogue>,
    ) -> Self {
        Self { pending, stale, reported, catalogue, applied: BTreeMap::new() }
    }

    /// Returns an estimate for an anomaly; `None` if nothing is known about its occurrences.
    /// `windows` are the additional windows of its rule.
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

    /// Returns the known stats of an anomaly: lower bounds of the later state.
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
        let is_partial = stale.as_ref().is_none_or(|seen| seen.value.is_partial);
        let row = if is_partial { self.catalogue.known(key, now) } else { None };
        let mut estimate = if let Some((as_of, mut base)) = row {
            base.mark = entry.and_then(|entry| entry.mark_after(as_of)).unwrap_or(base.mark);
            // The stats may have been read after operations were sent.
            Estimate { as_of: Some(as_of), stats: raised(base, windows, summary.unsent, &summary) }
        } else {
            let (as_of, base) = stale.map(|Seen { as_of, value }| (as_of, value)).unzip();
            let base = base.unwrap_or_else(KnownStats::unknown);
            Estimate { as_of, stats: raised(base, windows, summary.fresh, &summary) }
        };
        // If operations were sent again, the newest reply may include some of them.
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

    /// Returns the number of repair attempts in the last known history, if there is one.
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

    /// Adds an operation before it is durable. An operation that may have been sent was sent after
    /// `now`.
    pub(super) fn reserve(&mut self, now: Timestamp, write: &SpoolWrite) -> Accepted {
        let SpoolWrite { operation, maybe_sent } = write;
        let key = operation.key();
        let windows = operation.rule().map(RuleRef::extra_windows).unwrap_or_default();
        let mut before = self.known(key, now, windows).stats;
        // A row has the time of the read, and not that of the reply.
        let may_hold = self.stale.get(key).map(|entry| entry.may_hold(now));
        let may_be_known = *maybe_sent && may_hold.unwrap_or_else(|| self.catalogue.has(key));
        let is_doubtful = !operation.id().is_made_up() || may_be_known;
        let is_first = self.pending.add(now, operation, is_doubtful);
        if let Operation::Occurrence(occurrence) = operation {
            self.catalogue.note_waiting(key, || signature_of(occurrence));
        }
        if *maybe_sent {
            self.pending.mark_sent(operation);
        }
        let mut estimate = self.known(key, now, windows);
        if let Operation::Occurrence(Occurrence { at, episode: Some(_), .. }) = operation {
            if !self.is_count_known(key, now) {
                // A zero would be wrong: this is an occurrence, or belongs to an incident that has
                // one.
                estimate.stats.counts = estimate.stats.counts.max(counts_of_one(*at, now));
            }
            // It is not decided whether this is an occurrence, so it is no step.
            before = estimate.stats.clone();
        }
        Accepted { is_first, before, estimate }
    }

    /// Returns true if the number of an anomaly's occurrences is known.
    fn is_count_known(&mut self, key: AnomalyKey, now: Timestamp) -> bool {
        let stale = self.stale.get(key).map(|entry| entry.stats(now).value);
        stale.is_some_and(|stats| !stats.is_partial) || self.catalogue.has(key)
    }

    /// Adds the waiting operations to the stats that the store has just returned; `None` if the
    /// store knows none, and no occurrence waits. Nothing is counted twice.
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

    /// Returns the repairs of an anomaly as they will be after all waiting operations are applied,
    /// and the time at which their last known part was current; `None` if they were not seen.
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

    /// Updates the last known repairs of an anomaly. The history may include any of the waiting
    /// ones.
    pub(super) fn update_repairs(
        &mut self,
        key: AnomalyKey,
        times: CallTimes,
        history: &RepairHistory,
    ) {
        self.catalogue.note_repairs(key, history);
        let are_in_stats = !self.pending.is_uncertain(key);
        self.stale.update_repairs(key, times, history, are_in_stats);
    }

    /// Completes details with the waiting operations, given the resulting stats.
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
        details.signature = self.catalogue.signature(key);
        // A waiting alert may change it.
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

    /// Updates the last known stats of an anomaly, which has occurred. Returns the fall of its
    /// count, if it fell.
    pub(super) fn update_recorded(
        &mut self,
        occurrence: &Occurrence,
        times: CallTimes,
        Recorded { outcome, stats, .. }: &Recorded,
    ) -> Option<Fall> {
        let key = occurrence.key;
        let is_inside = occurrence.at >= times.may_have_left();
        let is_added = *outcome == RecordOutcome::Counted && is_inside;
        let added = u64::from(is_added);
        if self.pending.is_uncertain(key) {
            self.applied.insert(key, (times, stats.clone()));
            // Later ones raise the count again: only the first reply shows what the store has lost.
            return self.stale.compare(key, times, stats, added);
        }
        self.note_recorded(occurrence, times, stats);
        self.stale.update_recorded(key, times, stats, added)
    }

    fn note_recorded(&self, occurrence: &Occurrence, times: CallTimes, stats: &AnomalyStats) {
        let is_alert = occurrence.episode.is_some();
        let noted = Noted {
            key: occurrence.key,
            began_at: Some(times.began_at),
            as_of: times.arrived_at,
            stats,
            rule: occurrence.rule.as_ref(),
            firing: if is_alert { NotedFiring::Unread } else { NotedFiring::Unchanged },
            is_news: true,
        };
        self.catalogue.note(&noted, || signature_of(occurrence));
    }

    /// Updates the last known stats of an anomaly, unless they may include one of its waiting
    /// operations; `None` if the store does not know it. If this instance has written, they are
    /// announced to other instances.
    pub(super) fn update_stats(
        &mut self,
        key: AnomalyKey,
        times: CallTimes,
        stats: Option<&AnomalyStats>,
        is_written: bool,
    ) -> Option<Fall> {
        if self.pending.is_uncertain(key) {
            return None;
        }
        let Some(stats) = stats else { return self.note_unknown(key, times) };
        let noted = Noted {
            key,
            began_at: Some(times.began_at),
            as_of: times.arrived_at,
            stats,
            rule: None,
            firing: NotedFiring::Unchanged,
            is_news: is_written,
        };
        self.catalogue.note(&noted, || None);
        if is_written {
            // Announced even without a difference: this instance knows the mark already, as of an
            // earlier time.
            self.catalogue.announce(key);
        }
        self.stale.update_stats(key, times, stats)
    }

    /// Updates the row of an anomaly that a list has read, as [`Memory::update_stats`] does.
    pub(super) fn update_row(
        &mut self,
        key: AnomalyKey,
        times: CallTimes,
        rule: Option<&RuleRef>,
        row: Option<&StoredRow>,
    ) -> Option<Fall> {
        if self.pending.is_uncertain(key) {
            return None;
        }
        let Some(StoredRow { stats, signature_json, firing }) = row else {
            return self.note_unknown(key, times);
        };
        let (began_at, as_of) = (Some(times.began_at), times.arrived_at);
        let (firing, is_news) = (NotedFiring::Read(*firing), false);
        self.catalogue.note(&Noted { key, began_at, as_of, stats, rule, firing, is_news }, || {
            signature_json.as_deref().and_then(Signature::from_stored)
        });
        self.stale.update_stats(key, times, stats)
    }

    /// Updates the mark of an anomaly, which was just set or removed.
    pub(super) fn update_fix(
        &mut self,
        key: AnomalyKey,
        times: CallTimes,
        fix: Option<&PermanentFix>,
    ) {
        let fixed_at = fix.map(|fix| fix.marked_at);
        if let Some((_, stats)) = self.applied.get_mut(&key) {
            stats.fixed_at = fixed_at;
        }
        self.catalogue.note_mark(key, fixed_at);
        self.stale.update_fix(key, times, fix);
    }

    /// Updates the last known details of an anomaly, as [`Memory::update_stats`] does.
    pub(super) fn update_details(
        &mut self,
        key: AnomalyKey,
        times: CallTimes,
        details: Option<&AnomalyDetails>,
    ) -> Option<Fall> {
        if self.pending.is_uncertain(key) {
            return None;
        }
        let Some(details) = details else { return self.note_unknown(key, times) };
        let signature = || details.signature_json.as_deref().and_then(Signature::from_stored);
        let noted = Noted {
            key,
            began_at: Some(times.began_at),
            as_of: times.arrived_at,
            stats: &details.stats,
            rule: None,
            firing: NotedFiring::Read(details.firing),
            is_news: false,
        };
        self.catalogue.note(&noted, signature);
        self.stale.update_details(key, times, details)
    }

    fn note_unknown(&mut self, key: AnomalyKey, times: CallTimes) -> Option<Fall> {
        self.catalogue.note_unknown(key, times.began_at);
        self.stale.note_unknown(key, times)
    }

    /// Removes an operation that no longer waits. If no other operation that was sent waits, adopts
    /// the stats that the store has returned for them.
    pub(super) fn remove(&mut self, operation: &Operation) -> Option<Fall> {
        let key = operation.key();
        self.pending.remove(operation);
        if !self.pending.holds(key) {
            self.catalogue.forget_waiting(key);
        }
        if self.pending.is_uncertain(key) {
            return None;
        }
        let fall = self.applied.remove(&key).and_then(|(times, stats)| {
            let noted = Noted {
                key,
                began_at: Some(times.began_at),
                as_of: times.arrived_at,
                stats: &stats,
                rule: None,
                firing: NotedFiring::Unchanged,
                is_news: true,
            };
            self.catalogue.note(&noted, || match operation {
                Operation::Occurrence(occurrence) => signature_of(occurrence),
                _ => None,
            });
            self.stale.update_stats(key, times, &stats)
        });
        if matches!(operation, Operation::Occurrence(Occurrence { episode: Some(_), .. })) {
            self.catalogue.doubt_firing(key);
        }
        self.stale.settle_repairs(key);
        fall
    }
}

/// Returns the identifying fields of an occurrence.
pub(super) fn signature_of(occurrence: &Occurrence) -> Option<Signature> {
    Signature::from_stored(&occurrence.signature_json.to_stored())
}

/// Returns lower bounds of the state after the waiting operations are applied. `base` includes none
/// of the operations in `surely_new`, and may include any of the others.
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
