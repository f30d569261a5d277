//! Judges the store's result for an occurrence. The count before an occurrence is the count after
//! it, minus one if the occurrence was counted and lies inside the window.

use crate::{
    domain::{Before, Counts, Frequency, NewestEvents, Occurrence, RuleRef, Window, WindowCounts},
    store::{RecordOutcome, Recorded},
};

/// Returns the frequency after an occurrence.
pub(super) fn judge_recorded(
    occurrence: &Occurrence,
    rule: RuleRef,
    recorded: &Recorded,
) -> Frequency {
    let Recorded { outcome, now, previous_count_24h, stats, newest, .. } = recorded;
    let is_counted = *outcome == RecordOutcome::Counted;
    let is_inside = |seconds: i64| is_counted && occurrence.at >= now.minus_seconds(seconds);
    let before = |count: u64, seconds: i64| count.saturating_sub(u64::from(is_inside(seconds)));
    let of_four = |count: u64, window: Window| before(count, window.length_seconds());
    let windows = WindowCounts {
        hour: of_four(stats.counts.hour, Window::Hour),
        day: *previous_count_24h,
        week: of_four(stats.counts.week, Window::Week),
        month: of_four(stats.counts.month, Window::Month),
    };
    let mut extra = stats.extra.clone();
    for window in &mut extra {
        window.count = before(window.count, window.seconds.into());
    }
    let counts = Counts { windows, extra: &extra, is_approximate: stats.is_approximate };
    let events = NewestEvents { at: occurrence.at, now: *now, times: newest };
    let before = Before { counts, is_counted, events: Some(events) };
    Frequency::judge(occurrence.key, stats.clone().into(), rule, Some(before))
}
