//! A row: the facts of an anomaly that a list needs, as of the last reply about it, in 80 bytes.

use std::cell::Cell;

use crate::{
    catalogue::{judge::Judge, visited::Visited},
    domain::{
        AnomalyKey, AnomalyStats, EscalationLevel, FIX_VALIDITY_SECONDS, FieldIds, Firing,
        KnownStats, LevelSet, Listable, RuleRef, Texts, Timestamp, Window, WindowCounts,
    },
};

/// A row. There may be a million of them, so times are microseconds, and counts that do not fit are
/// the highest number that does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) key: AnomalyKey,
    as_of: Timestamp,
    first_seen: i64,
    last_seen: i64,
    fixed_at: i64,
    /// The counts by window, from the shortest on.
    counts: [u32; 4],
    /// Absent if the identifying fields are not known.
    pub(super) fields: Option<FieldIds>,
    repair_attempts: u32,
    flags: Flags,
    pub(super) news: News,
    /// The tick at which it was last announced.
    pub(super) announced_at: u16,
}

/// The changes of a row that are not announced to other instances yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing has changed.
    #[default]
    None,
    /// Something has changed.
    Some,
    /// Its level or its mark has changed, which is announced at once.
    Urgent,
}

const _: () = assert!(size_of::<Row>() == 80);

/// The facts that are known of a row, in a byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Flags(u8);

impl Flags {
    /// A count may be too high, or the oldest event's time too early.
    const APPROXIMATE: u8 = 1;
    /// Alerts fire: its segment knows which.
    const FIRING: u8 = 2;
    /// True if its firing alerts are to be read.
    const FIRING_UNREAD: u8 = 4;
    /// The level by a rule with windows of its own is known.
    const LEVEL_KNOWN: u8 = 8;
    /// The first of two bits of the level.
    const LEVEL_SHIFT: u32 = 4;

    fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    fn set(&mut self, flag: u8, is_set: bool) {
        self.0 = if is_set { self.0 | flag } else { self.0 & !flag };
    }

    fn level(self) -> Option<Option<EscalationLevel>> {
        let index = usize::from(self.0 >> Self::LEVEL_SHIFT & 3);
        self.has(Self::LEVEL_KNOWN).then(|| LevelSet::EACH[index])
    }

    fn set_level(&mut self, level: Option<Option<EscalationLevel>>) {
        let index = level.map_or(0, LevelSet::index) as u8;
        self.0 = self.0 & !(3 << Self::LEVEL_SHIFT) | index << Self::LEVEL_SHIFT;
        self.set(Self::LEVEL_KNOWN, level.is_some());
    }
}

/// Stands for an absent time.
const ABSENT: i64 = i64::MIN;

/// Maximum age of a row that counts as current, in seconds.
const CURRENT_SECONDS: i64 = 2;

/// Age of a row from which its firing alerts are read again, in seconds.
const FIRING_SECONDS: i64 = 1_800;

const WINDOWS: [Window; 4] = [Window::Hour, Window::Day, Window::Week, Window::Month];

impl Row {
    pub(super) fn new(key: AnomalyKey, as_of: Timestamp, stats: &AnomalyStats) -> Self {
        let AnomalyStats { counts, .. } = stats;
        let micros = |time: Option<Timestamp>| time.map_or(ABSENT, Timestamp::as_micros);
        let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let mut flags = Flags::default();
        flags.set(Flags::APPROXIMATE, stats.is_approximate);
        Self {
            key,
            as_of,
            first_seen: micros(stats.first_seen),
            last_seen: micros(stats.last_seen),
            fixed_at: micros(stats.fixed_at),
            counts: counts.by_length().map(count),
            fields: None,
            repair_attempts: count(stats.repair_attempts),
            flags,
            news: News::None,
            announced_at: 0,
        }
    }

    /// The time at which the stats were current.
    pub(super) fn as_of(&self) -> Timestamp {
        self.as_of
    }

    /// Returns the number of events of 30 days.
    pub(super) fn events(&self) -> u64 {
        self.counts[3].into()
    }

    /// Applies newer stats, with the level by the rule's own windows if that is known. Returns true
    /// if they differ.
    pub(super) fn update(
        &mut self,
        as_of: Timestamp,
        stats: &AnomalyStats,
        level: Option<Option<EscalationLevel>>,
    ) -> bool {
        let before = *self;
        let Self { fields, news, announced_at, .. } = before;
        *self = Self { fields, news, announced_at, ..Self::new(self.key, as_of, stats) };
        for flag in [Flags::FIRING, Flags::FIRING_UNREAD] {
            self.flags.set(flag, before.flags.has(flag));
        }
        self.flags.set_level(level);
        self.figures() != before.figures()
    }

    /// Returns the level as of the row, or its upper bound.
    pub(super) fn level_by(&self, rule: &RuleRef) -> Option<EscalationLevel> {
        let [hour, day, week, month] = self.counts.map(u64::from);
        self.level_of(rule, WindowCounts { hour, day, week, month })
    }

    #[inline]
    fn level_of(&self, rule: &RuleRef, counts: WindowCounts) -> Option<EscalationLevel> {
        let at_most = rule.level_at_most(counts);
        self.flags.level().map_or(at_most, |known| known.min(at_most))
    }

    /// Forgets the level, because other rules are in force.
    pub(super) fn forget_level(&mut self) {
        self.flags.set_level(None);
    }

    /// Returns true if alerts are known to fire.
    pub(super) fn is_firing(&self) -> bool {
        self.flags.has(Flags::FIRING)
    }

    pub(super) fn set_firing(&mut self, is_firing: bool) {
        self.flags.set(Flags::FIRING, is_firing);
        self.flags.set(Flags::FIRING_UNREAD, false);
    }

    /// Returns true if its firing alerts are to be read.
    pub(super) fn is_firing_unread(&self) -> bool {
        self.flags.has(Flags::FIRING_UNREAD)
    }

    pub(super) fn set_firing_unread(&mut self) {
        self.flags.set(Flags::FIRING_UNREAD, true);
    }

    fn figures(&self) -> ([u32; 4], [i64; 3], u32) {
        let Self { counts, first_seen, last_seen, fixed_at, repair_attempts, .. } = self;
        (*counts, [*first_seen, *last_seen, *fixed_at], *repair_attempts)
    }

    /// Returns the time of the mark; the lowest number without one.
    pub(super) fn mark(&self) -> i64 {
        self.fixed_at
    }

    /// Returns true if the count of a window is to be read again: the window begins between the
    /// oldest event and the newest, and has moved by a 48th since the row was read. Firing alerts
    /// are read again because they may end without a delivery to this instance.
    pub(super) fn is_due(&self, now: Timestamp, times: &Times) -> bool {
        let age = now.as_micros() - self.as_of.as_micros();
        self.is_firing() && age > FIRING_SECONDS * 1_000_000
            || WINDOWS.iter().zip(times.starts).any(|(window, start)| {
                let is_cut = self.first_seen < start && start <= self.last_seen;
                is_cut && age > window.length_seconds() * 1_000_000 / 48
            })
    }

    /// Sets the mark. Returns true if it differs.
    pub(super) fn set_mark(&mut self, fixed_at: Option<Timestamp>) -> bool {
        let fixed_at = fixed_at.map_or(ABSENT, Timestamp::as_micros);
        std::mem::replace(&mut self.fixed_at, fixed_at) != fixed_at
    }

    /// Sets the number of repair attempts. Returns true if it differs.
    pub(super) fn set_repair_attempts(&mut self, attempts: u64) -> bool {
        let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
        std::mem::replace(&mut self.repair_attempts, attempts) != attempts
    }

    /// Raises the number of repair attempts. Returns true if it was lower.
    pub(super) fn raise_repair_attempts(&mut self, attempts: u64) -> bool {
        self.set_repair_attempts(attempts.max(self.repair_attempts.into()))
    }

    /// Returns the time of the newest event; the lowest number without one.
    pub(super) fn quiet_since(&self) -> i64 {
        self.last_seen
    }

    /// Returns the stats as they were read.
    pub(super) fn stats(&self) -> AnomalyStats {
        let [hour, day, week, month] = self.counts.map(u64::from);
        AnomalyStats {
            counts: WindowCounts { hour, day, week, month },
            extra: Vec::new(),
            is_approximate: self.flags.has(Flags::APPROXIMATE),
            first_seen: time(self.first_seen),
            last_seen: time(self.last_seen),
            repair_attempts: self.repair_attempts.into(),
            fixed_at: time(self.fixed_at),
        }
    }

    /// Returns the known stats at a time, if nothing has happened since: see [`RowAt::count`].
    pub(super) fn stats_at(&self, times: &Times) -> KnownStats {
        KnownStats {
            counts: self.counts_at(times),
            extra: Vec::new(),
            is_approximate: self.flags.has(Flags::APPROXIMATE) || !self.is_current(times),
            first_seen: self.first_seen_at(times),
            last_seen: self.last_seen_at(times),
            repair_attempts: Some(self.repair_attempts.into()),
            mark: self.mark_at(times).into(),
            is_partial: false,
        }
    }

    /// Returns the count of a window, which is never too low: 0 if the window begins after the
    /// newest event, the count of 30 days if it begins before the oldest, and otherwise the count
    /// as it was read.
    #[inline]
    fn count_at(&self, times: &Times, window: usize) -> u64 {
        let start = times.starts[window];
        // Both counts are read before one is selected, so that no branch is needed: a query does
        // this for a million rows.
        let [of_month, as_read] = [self.counts[3], self.counts[window]];
        let if_any = if self.first_seen >= start { of_month } else { as_read };
        let count = if self.last_seen < start { 0 } else { if_any };
        count.into()
    }

    #[inline]
    fn counts_at(&self, times: &Times) -> WindowCounts {
        let [hour, day, week, month] = [0, 1, 2, 3].map(|window| self.count_at(times, window));
        WindowCounts { hour, day, week, month }
    }

    fn first_seen_at(&self, times: &Times) -> Option<Timestamp> {
        let [.., start] = times.starts;
        if self.first_seen >= start { time(self.first_seen) } else { None }
    }

    fn last_seen_at(&self, times: &Times) -> Option<Timestamp> {
        let [.., start] = times.starts;
        if self.last_seen >= start { time(self.last_seen) } else { None }
    }

    fn mark_at(&self, times: &Times) -> Option<Timestamp> {
        if self.fixed_at > times.marks_from { time(self.fixed_at) } else { None }
    }

    /// Returns true if the stats at a time are exact, if nothing has happened since: they have just
    /// been read, or no window begins between the oldest event and the newest.
    fn is_current(&self, times: &Times) -> bool {
        self.as_of >= times.current_from
            || times.starts.iter().all(|start| self.last_seen < *start || self.first_seen >= *start)
    }
}

/// The times that the rows of a query are compared with, in microseconds.
#[derive(Debug)]
pub(super) struct Times {
    /// The starts of the windows, from the shortest on.
    starts: [i64; 4],
    /// Marks that were set later than this hold.
    marks_from: i64,
    current_from: Timestamp,
}

impl Times {
    pub(super) fn at(now: Timestamp) -> Self {
        Self {
            starts: WINDOWS.map(|window| window.start(now).as_micros()),
            marks_from: now.minus_seconds(FIX_VALIDITY_SECONDS).as_micros(),
            current_from: now.minus_seconds(CURRENT_SECONDS),
        }
    }
}

/// A row as it is at a time.
pub(super) struct RowAt<'a> {
    pub(super) row: &'a Row,
    pub(super) times: &'a Times,
    pub(super) texts: &'a Texts,
    pub(super) judge: &'a Judge,
    /// Present once it was asked for. It is not a `OnceCell`, which takes longer the first time:
    /// most queries ask for it once for each row. The counts are not kept, because to compute them
    /// again takes less time than to read what was just written.
    pub(super) rule: Cell<Option<&'a RuleRef>>,
    /// Returns the alerts of a row that fire.
    pub(super) firing: &'a dyn Fn(AnomalyKey) -> Option<Firing>,
}

impl RowAt<'_> {
    /// Returns true if the level is that of these counts, and not only an upper bound.
    fn is_level_exact(&self) -> bool {
        self.row.flags.has(Flags::LEVEL_KNOWN) || !self.rule().needs_counts(self.counts())
    }
}

impl Listable for RowAt<'_> {
    fn key(&self) -> AnomalyKey {
        self.row.key
    }

    fn count(&self, window: Window) -> u64 {
        self.row.count_at(self.times, window as usize)
    }

    fn first_seen(&self) -> Option<Timestamp> {
        self.row.first_seen_at(self.times)
    }

    fn last_seen(&self) -> Option<Timestamp> {
        self.row.last_seen_at(self.times)
    }

    #[inline]
    fn level(&self) -> Option<Option<EscalationLevel>> {
        Some(self.row.level_of(self.rule(), self.counts()))
    }

    fn rule_name(&self) -> &str {
        self.rule().rule().name()
    }

    fn is_firing(&self) -> Option<bool> {
        (!self.row.is_firing_unread()).then(|| self.row.is_firing())
    }

    fn is_fixed(&self) -> Option<bool> {
        Some(self.row.mark_at(self.times).is_some())
    }

    fn has_regressed(&self) -> Option<bool> {
        Some(self.row.mark_at(self.times).is_some_and(|mark| self.last_seen() > Some(mark)))
    }

    fn was_repaired(&self) -> Option<bool> {
        Some(self.row.repair_attempts > 0)
    }
}

impl Visited for RowAt<'_> {
    fn fields(&self) -> Option<FieldIds> {
        self.row.fields
    }

    fn texts(&self) -> &Texts {
        self.texts
    }

    #[inline]
    fn counts(&self) -> WindowCounts {
        self.row.counts_at(self.times)
    }

    fn as_of(&self) -> Option<Timestamp> {
        Some(self.row.as_of)
    }

    fn is_current(&self) -> bool {
        let own_windows = self.rule().extra_windows();
        let is_level_current = own_windows.is_empty()
            || self.is_level_exact() && self.row.as_of >= self.times.current_from;
        is_level_current && self.row.is_current(self.times)
    }

    fn is_estimate(&self) -> bool {
        false
    }

    fn is_settled(&self) -> bool {
        self.row.as_of >= self.times.current_from
            && !self.row.is_firing_unread()
            && self.is_level_exact()
    }

    fn stats(&self) -> KnownStats {
        self.row.stats_at(self.times)
    }

    #[inline]
    fn rule(&self) -> &RuleRef {
        self.rule.get().unwrap_or_else(|| {
            let rule = self.judge.rule(self.texts, self.row.fields);
            self.rule.set(Some(rule));
            rule
        })
    }

    fn firing(&self) -> Option<Firing> {
        if self.row.is_firing() { (self.firing)(self.row.key) } else { None }
    }
}

fn time(micros: i64) -> Option<Timestamp> {
    (micros != ABSENT).then(|| Timestamp::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn stats_of(events: &[Timestamp], now: Timestamp) -> AnomalyStats {
        let since = |window: Window| {
            let inside = events.iter().filter(|at| **at >= window.start(now) && **at <= now);
            inside.count() as u64
        };
        let month: Vec<_> = events
            .iter()
            .copied()
            .filter(|at| *at >= Window::Month.start(now) && *at <= now)
            .collect();
        AnomalyStats {
            counts: WindowCounts {
                hour: since(Window::Hour),
                day: since(Window::Day),
                week: since(Window::Week),
                month: since(Window::Month),
            },
            first_seen: month.iter().min().copied(),
            last_seen: month.iter().max().copied(),
            ..AnomalyStats::default()
        }
    }

    proptest! {
        /// Compares the counts of a row with those of the events themselves.
        #[test]
        fn counts_are_never_too_low_and_right_where_they_are_said_to_be_current(
            ages in vec(prop_oneof![0..90_i64, 0..2_000_i64, 0..60_000_i64], 1..8),
            later in prop_oneof![0..3_i64, 0..2_000_i64, 0..60_000_i64],
        ) {
            let read_at = Timestamp::from_micros(1_774_799_738_000_000);
            // In minutes.
            let events: Vec<_> = ages.iter().map(|age| read_at.minus_seconds(age * 60)).collect();
            let row = Row::new(AnomalyKey::from_bits(7), read_at, &stats_of(&events, read_at));
            let now = read_at.plus_seconds(later * 60);
            let (truth, row_says) = (stats_of(&events, now), row.stats_at(&Times::at(now)));
            let pairs = row_says.counts.by_length().into_iter().zip(truth.counts.by_length());
            for (said, true_count) in pairs {
                prop_assert!(said >= true_count);
            }
            prop_assert_eq!(row_says.last_seen, truth.last_seen);
            if row.is_current(&Times::at(now)) {
                prop_assert_eq!(row_says, KnownStats::from(truth));
            }
        }
    }
}
