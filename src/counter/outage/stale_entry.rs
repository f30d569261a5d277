//! The last known state of one anomaly. Parts of it may not have been seen.

use crate::{
    domain::{
        AnomalyStats, KnownDetails, KnownMark, KnownStats, PermanentFix, RETENTION, RecentAttempt,
        RepairHistory, Timestamp,
    },
    store::AnomalyDetails,
};

/// Approximate size of an entry without details, including its overhead in the cache, in bytes.
pub(super) const ENTRY_BYTES: usize = size_of::<StaleEntry>() + 96;

/// If an entry is ahead of a new reply by more than this, the clock was set back in between, in
/// seconds.
const SET_BACK_SECONDS: i64 = 60;

/// Maximum difference between the clocks of instances, in seconds: an event that has expired for
/// one of them is gone for all.
pub(super) const SKEW_SECONDS: i64 = 60;

/// Maximum difference between two times of one mark, in seconds: the time of an older writer's mark
/// is derived from its remaining TTL.
const MARK_TOLERANCE_SECONDS: i64 = 2;

/// The last known state of an anomaly. Parts that were not seen are absent.
#[derive(Clone, Debug)]
pub(crate) struct StaleEntry {
    stats: Option<Seen<AnomalyStats>>,
    /// The time at which the reply with `stats` arrived.
    stats_arrived_at: Timestamp,
    details: Option<Box<SeenDetails>>,
    /// The time at which the last reply that it is based on arrived. It may include writes that
    /// were sent before.
    arrived_at: Timestamp,
    /// Absent if the last reply does not bound later ones.
    floor: Option<Floor>,
}

/// A value, and the time at which it was current.
#[derive(Clone, Debug)]
pub(crate) struct Seen<T> {
    pub(crate) as_of: Timestamp,
    pub(crate) value: T,
}

/// The details of an anomaly, each of which may not have been seen.
#[derive(Clone, Debug, Default)]
struct SeenDetails {
    signature_json: Option<String>,
    known_since: Option<Timestamp>,
    fix: Option<Seen<Option<PermanentFix>>>,
    repairs: Option<Seen<RepairHistory>>,
}

/// A bound for the replies to later calls: their count is not lower while all of these events are
/// inside 30 days.
#[derive(Clone, Copy, Debug)]
struct Floor {
    count: u64,
    first_seen: Timestamp,
    /// Only calls that began later are bound.
    arrived_at: Timestamp,
}

/// A 30-day count that is lower than an earlier one and what was added to that, although no event
/// has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fall {
    /// The lowest count that is possible.
    pub(crate) expected: u64,
    pub(crate) to: u64,
    /// The time of the reply with the earlier count.
    pub(crate) seen_at: Timestamp,
}

/// The beginning of a call to the store, and the arrival of its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallTimes {
    pub(crate) began_at: Timestamp,
    pub(crate) arrived_at: Timestamp,
}

impl CallTimes {
    /// Returns the time before which events may have expired for one of the instances when the
    /// reply arrived. (Calls are executed in batches, with the time of the latest call.)
    pub(super) fn may_have_left(self) -> Timestamp {
        RETENTION.start(self.arrived_at).plus_seconds(SKEW_SECONDS)
    }
}

impl Floor {
    fn of(arrived_at: Timestamp, stats: &AnomalyStats) -> Option<Self> {
        let first_seen = stats.first_seen.filter(|_| !stats.is_approximate)?;
        Some(Self { count: stats.counts.month, first_seen, arrived_at })
    }
}

impl StaleEntry {
    pub(super) fn new(arrived_at: Timestamp) -> Self {
        let stats_arrived_at = Timestamp::MIN;
        Self { stats: None, stats_arrived_at, details: None, arrived_at, floor: None }
    }

    /// Returns its approximate size in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let extra = self.stats.as_ref().map_or(0, |stats| size_of_val(&*stats.value.extra));
        ENTRY_BYTES + extra + self.details.as_deref().map_or(0, SeenDetails::bytes)
    }

    /// Returns true if it may include a write that was sent at this time.
    pub(crate) fn may_hold(&self, sent_at: Timestamp) -> bool {
        self.arrived_at >= sent_at
    }

    /// Returns the last seen stats, as they were then.
    pub(crate) fn last_stats(&self) -> Option<&AnomalyStats> {
        self.stats.as_ref().map(|stats| &stats.value)
    }

    /// Returns the known stats at `now`, and the time at which they were current. If none were
    /// seen, the number of repairs is that of [`repairs`](Self::repairs).
    pub(crate) fn stats(&self, now: Timestamp) -> Seen<KnownStats> {
        if let Some(Seen { as_of, value }) = &self.stats {
            let value = KnownStats::from(value.clone()).aged(*as_of, now);
            return Seen { as_of: *as_of, value };
        }
        let (fix, repairs) = (self.seen_fix(), self.repairs());
        let times = [fix.map(|fix| fix.as_of), repairs.map(|repairs| repairs.as_of)];
        let mark = fix.map_or(KnownMark::Unknown, |fix| mark_of(fix).into());
        let value = KnownStats { mark, ..KnownStats::unknown() };
        Seen { as_of: times.into_iter().flatten().min().unwrap_or(self.arrived_at), value }
    }

    /// Returns the repairs, if they were seen.
    pub(crate) fn repairs(&self) -> Option<&Seen<RepairHistory>> {
        self.details.as_ref()?.repairs.as_ref()
    }

    fn seen_fix(&self) -> Option<&Seen<Option<PermanentFix>>> {
        self.details.as_ref()?.fix.as_ref()
    }

    /// Returns the mark, if it was seen after this time.
    pub(crate) fn mark_after(&self, time: Timestamp) -> Option<KnownMark> {
        let fix = self.seen_fix().filter(|fix| fix.as_of > time)?;
        Some(mark_of(fix).into())
    }

    /// Returns the details that were seen, and the time of the oldest of them. The fix does not
    /// include waiting marks.
    pub(crate) fn details(&self) -> (Option<Timestamp>, KnownDetails) {
        let Some(details) = &self.details else { return Default::default() };
        let fix = details.fix.as_ref().map(|fix| fix.as_of);
        let times = [fix, details.repairs.as_ref().map(|repairs| repairs.as_of)];
        let known = KnownDetails {
            signature_json: details.signature_json.clone(),
            signature: None,
            known_since: details.known_since,
            fix: details.fix.as_ref().and_then(|fix| fix.value.clone()),
            repairs: details.repairs.as_ref().map(|repairs| repairs.value.clone()),
            firing: None,
        };
        (times.into_iter().flatten().min(), known)
    }

    /// Notes a reply. Returns true if its call began after all earlier replies.
    fn arrive(&mut self, times: CallTimes) -> bool {
        if self.arrived_at > times.arrived_at.plus_seconds(SET_BACK_SECONDS) {
            self.arrived_at = times.arrived_at;
            return true;
        }
        let is_later = times.began_at > self.arrived_at;
        self.arrived_at = self.arrived_at.max(times.arrived_at);
        is_later
    }

    /// Updates the stats, which this call has raised by `added`. Returns the fall of the count, if
    /// it fell.
    pub(super) fn update_stats(
        &mut self,
        times: CallTimes,
        stats: &AnomalyStats,
        added: u64,
    ) -> Option<Fall> {
        self.arrive(times);
        let as_of = times.began_at;
        let Some(mut known_at) = self.stats.as_ref().map(|stats| stats.as_of) else {
            self.set_stats(as_of, stats.clone());
            self.stats_arrived_at = times.arrived_at;
            self.floor = Floor::of(times.arrived_at, stats);
            return None;
        };
        if known_at > times.arrived_at.plus_seconds(SET_BACK_SECONDS) {
            (known_at, self.floor) = (Timestamp::MIN, None);
            self.stats_arrived_at = Timestamp::MIN;
        }
        // Replies may arrive in another order than their calls: of two that overlap, the one with
        // more events was executed later.
        let is_later = times.began_at >= self.stats_arrived_at;
        let known = self.stats.as_ref().map_or(0, |seen| seen.value.counts.month);
        if is_later || (known, known_at) <= (stats.counts.month, as_of) {
            self.set_stats(as_of.max(known_at), stats.clone());
            self.stats_arrived_at = times.arrived_at;
        }
        self.compare(times, stats, added)
    }

    fn set_stats(&mut self, as_of: Timestamp, mut stats: AnomalyStats) {
        if let Some(fix) = self.seen_fix().filter(|fix| fix.as_of > as_of) {
            stats.fixed_at = mark_of(fix);
        }
        self.stats = Some(Seen { as_of, value: stats });
        self.forget_outdated();
    }

    /// Updates the stats and the details. Returns the fall of the count, if it fell.
    pub(super) fn update_details(
        &mut self,
        times: CallTimes,
        details: &AnomalyDetails,
    ) -> Option<Fall> {
        self.update_repairs(times, &details.repairs, false);
        self.set_fix(times.began_at, times, details.fix.as_ref());
        let seen = self.details.get_or_insert_default();
        seen.signature_json.clone_from(&details.signature_json);
        seen.known_since = details.known_since;
        self.update_stats(times, &details.stats, 0)
    }

    /// Updates the repairs. `are_in_stats` says that none of them also waits.
    pub(super) fn update_repairs(
        &mut self,
        times: CallTimes,
        history: &RepairHistory,
        are_in_stats: bool,
    ) {
        let is_later = self.arrive(times);
        let repairs = &mut self.details.get_or_insert_default().repairs;
        // Replies may arrive in another order than their calls: of two that overlap, the one with
        // more attempts was executed later.
        if is_later || repairs.as_ref().is_none_or(|seen| seen.value.total <= history.total) {
            *repairs = Some(Seen { as_of: times.began_at, value: history.clone() });
        }
        if are_in_stats {
            self.settle_repairs();
        }
    }

    /// Raises the number of repairs in the stats to that of the history, if that is higher.
    pub(super) fn settle_repairs(&mut self) {
        let Some(attempts) = self.repairs().map(|seen| seen.value.total) else { return };
        if let Some(stats) = &mut self.stats {
            stats.value.repair_attempts = stats.value.repair_attempts.max(attempts);
        }
    }

    /// Updates the mark, which was just set or removed. It is current when the reply arrives, so it
    /// wins over a read that ran at the same time.
    pub(super) fn update_fix(&mut self, times: CallTimes, fix: Option<&PermanentFix>) {
        self.set_fix(times.arrived_at, times, fix);
    }

    fn set_fix(&mut self, as_of: Timestamp, times: CallTimes, fix: Option<&PermanentFix>) {
        self.arrive(times);
        let seen = &mut self.details.get_or_insert_default().fix;
        let is_ahead = |known_at: Timestamp| {
            as_of < known_at && known_at <= times.arrived_at.plus_seconds(SET_BACK_SECONDS)
        };
        if seen.as_ref().is_some_and(|seen| is_ahead(seen.as_of)) {
            return;
        }
        *seen = Some(Seen { as_of, value: fix.cloned() });
        if let Some(stats) = self.stats.as_mut().filter(|stats| !is_ahead(stats.as_of)) {
            stats.value.fixed_at = fix.map(|fix| fix.marked_at);
        }
    }

    /// Forgets the details if they are larger than this.
    pub(super) fn limit_details(&mut self, max_bytes: usize) {
        self.details.take_if(|details| details.bytes() > max_bytes);
    }

    /// Returns the fall of the count, if it had one, because the store does not know the anomaly;
    /// and whether the call began after the last reply, so that the whole entry is obsolete.
    pub(super) fn note_unknown(&mut self, times: CallTimes) -> (Option<Fall>, bool) {
        let is_later = self.arrive(times);
        (self.compare(times, &AnomalyStats::default(), 0), is_later)
    }

    /// Forgets details that newer stats have shown to be out of date.
    fn forget_outdated(&mut self) {
        let (Some(stats), Some(details)) = (&self.stats, &mut self.details) else { return };
        let attempts = stats.value.repair_attempts;
        details.repairs.take_if(|seen| seen.as_of <= stats.as_of && seen.value.total < attempts);
        let fixed_at = stats.value.fixed_at;
        details.fix.take_if(|seen| {
            seen.as_of <= stats.as_of && !is_mark_of(seen.value.as_ref(), fixed_at)
        });
    }

    /// Compares the count of a reply with earlier ones, and remembers it for later ones. This
    /// call has raised it by `added`.
    pub(super) fn compare(
        &mut self,
        times: CallTimes,
        stats: &AnomalyStats,
        added: u64,
    ) -> Option<Fall> {
        let CallTimes { began_at, arrived_at } = times;
        let Some(floor) = self.floor else {
            self.floor = Floor::of(arrived_at, stats);
            return None;
        };
        // A reply to a call that overlapped the earlier one says nothing. It must not advance the
        // time of the floor: under load, one call would always overlap the next.
        if began_at <= floor.arrived_at {
            return None;
        }
        self.floor = Floor::of(arrived_at, stats);
        let are_inside = floor.first_seen >= times.may_have_left();
        let (expected, to) = (floor.count + added, stats.counts.month);
        let fall = Fall { expected, to, seen_at: floor.arrived_at };
        (are_inside && !stats.is_approximate && to < expected).then_some(fall)
    }
}

impl SeenDetails {
    /// Returns the approximate size in memory, in bytes.
    fn bytes(&self) -> usize {
        let Self { signature_json, fix, repairs, .. } = self;
        let fix = fix.as_ref().and_then(|fix| fix.value.as_ref()).map_or(0, |fix| {
            [&fix.description, &fix.fixed_by].into_iter().flatten().map(String::len).sum()
        });
        let repairs = repairs.as_ref().map_or(0, |repairs| {
            let attempts = repairs.value.recent.iter();
            attempts.map(|a| size_of::<RecentAttempt>() + a.action.len()).sum()
        });
        size_of::<Self>() + signature_json.as_ref().map_or(0, String::len) + fix + repairs
    }
}

fn mark_of(fix: &Seen<Option<PermanentFix>>) -> Option<Timestamp> {
    fix.value.as_ref().map(|fix| fix.marked_at)
}

/// Returns true if a fix belongs to the mark that was set at `marked_at`.
pub(crate) fn is_mark_of(fix: Option<&PermanentFix>, marked_at: Option<Timestamp>) -> bool {
    match (fix, marked_at) {
        (None, None) => true,
        (Some(fix), Some(at)) => {
            let micros = fix.marked_at.as_micros().abs_diff(at.as_micros());
            micros <= MARK_TOLERANCE_SECONDS.unsigned_abs() * 1_000_000
        }
        _ => false,
    }
}
