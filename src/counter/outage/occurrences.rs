//! The occurrences that wait for one anomaly, counted by window.

use std::collections::BTreeMap;

use crate::domain::{ExtraWindow, MAX_EXTRA_WINDOWS, RETENTION, Timestamp, Window, WindowCounts};

const WINDOWS: [Window; 4] = [Window::Hour, Window::Day, Window::Week, Window::Month];

/// Returns the counts of one occurrence.
pub(super) fn counts_of_one(at: Timestamp, now: Timestamp) -> WindowCounts {
    let [hour, day, week, month] = WINDOWS.map(|window| u64::from(at >= window.start(now)));
    WindowCounts { hour, day, week, month }
}

/// The numbers of occurrences in the additional windows of a rule, in the order of the windows.
pub(super) type ExtraNumbers = [u64; MAX_EXTRA_WINDOWS];

/// Returns the numbers of one occurrence: 1 for each of a rule's `windows` that contains it.
pub(super) fn extra_of_one(at: Timestamp, now: Timestamp, windows: &[ExtraWindow]) -> ExtraNumbers {
    by_window(windows, |window| u64::from(at >= window.start(now)))
}

fn by_window(windows: &[ExtraWindow], number: impl Fn(&ExtraWindow) -> u64) -> ExtraNumbers {
    let mut numbers = ExtraNumbers::default();
    for (slot, window) in numbers.iter_mut().zip(windows) {
        *slot = number(window);
    }
    numbers
}

/// Occurrences by id and by time.
#[derive(Debug)]
pub(super) struct Occurrences {
    by_id: BTreeMap<u64, Timestamp>,
    by_time: BTreeMap<Timestamp, u32>,
    /// The start of each window, and the number of occurrences since then. An event leaves a window
    /// only once, so that moving the starts is cheap.
    counted: [(Timestamp, u64); 4],
}

impl Default for Occurrences {
    fn default() -> Self {
        let counted = [(Timestamp::from_micros(i64::MIN), 0); 4];
        Self { by_id: BTreeMap::new(), by_time: BTreeMap::new(), counted }
    }
}

impl Occurrences {
    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Returns the counts of the occurrences with one of `ids`.
    pub(super) fn counts_of(&self, now: Timestamp, ids: impl Iterator<Item = u64>) -> WindowCounts {
        ids.filter_map(|id| self.by_id.get(&id))
            .fold(WindowCounts::default(), |counts, at| counts.plus(counts_of_one(*at, now)))
    }

    /// Returns the numbers of the occurrences with one of `ids` in a rule's `windows`.
    pub(super) fn extra_of(
        &self,
        now: Timestamp,
        windows: &[ExtraWindow],
        ids: impl Iterator<Item = u64>,
    ) -> ExtraNumbers {
        let mut numbers = ExtraNumbers::default();
        for at in ids.filter_map(|id| self.by_id.get(&id)) {
            let one = extra_of_one(*at, now, windows);
            numbers.iter_mut().zip(one).for_each(|(sum, one)| *sum += one);
        }
        numbers
    }

    /// Returns the numbers in a rule's `windows`. Reads the newest occurrences, and only as many as
    /// the rule counts.
    pub(super) fn extra(&self, now: Timestamp, windows: &[ExtraWindow]) -> ExtraNumbers {
        by_window(windows, |window| {
            let mut number = 0;
            for same in self.by_time.range(window.start(now)..).rev().map(|(_, same)| *same) {
                number += u64::from(same);
                if number >= window.most {
                    break;
                }
            }
            number
        })
    }

    pub(super) fn insert(&mut self, at: Timestamp, id: u64) -> bool {
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

    /// Removes an occurrence. Returns true if there was one.
    pub(super) fn remove(&mut self, id: u64) -> bool {
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

    pub(super) fn counts(&mut self, now: Timestamp) -> WindowCounts {
        for (window, (start, count)) in WINDOWS.into_iter().zip(&mut self.counted) {
            let moved_to = window.start(now);
            let between = |from, to| -> u64 {
                self.by_time.range(from..to).map(|(_, same)| u64::from(*same)).sum()
            };
            // If the clock was set back, the start moves back too.
            *count += if moved_to < *start { between(moved_to, *start) } else { 0 };
            *count -= if *start < moved_to { between(*start, moved_to) } else { 0 };
            *start = moved_to;
        }
        let [(_, hour), (_, day), (_, week), (_, month)] = self.counted;
        WindowCounts { hour, day, week, month }
    }

    pub(super) fn span(&self, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let mut inside = self.by_time.range(RETENTION.start(now)..).map(|(at, _)| *at);
        let first = inside.next()?;
        Some((first, inside.next_back().unwrap_or(first)))
    }
}
