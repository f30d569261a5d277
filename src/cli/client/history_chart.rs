//! The history of an anomaly as a picture: occurrences, the count of 24 hours that its level goes
//! by, the level as it was, and what was done.

use super::{
    answers::{Band, Bucket, Event, History},
    screen::{Screen, chart, merged, short_time, span, spark, style, width, wrapped},
};
use crate::domain::Timestamp;

/// The height of the chart of occurrences.
const LINES: usize = 6;
/// Maximum number of columns of one bar.
const MAX_THICKNESS: usize = 4;
/// Columns from the beginning of one time on the axis to the next one, at least.
const BETWEEN_TIMES: usize = 12;
/// From a history of this length on the axis has days.
const HISTORY_OF_DAYS_SECONDS: i64 = 3 * 86_400;

/// The levels by the count of 24 hours alone.
#[derive(Debug)]
pub(super) struct Levels<'a> {
    /// The counts from which on there is a level, the lowest level first.
    thresholds: Vec<(&'a str, u64)>,
    /// True if there are conditions of another kind, by which a level may be higher.
    is_partial: bool,
}

impl<'a> Levels<'a> {
    pub(super) fn of(bands: &'a [Band]) -> Self {
        let threshold = |band: &'a Band| {
            let count = band.condition.strip_suffix(" in 24h")?.parse().ok()?;
            Some((band.level.as_str(), count))
        };
        let thresholds: Vec<_> = bands.iter().filter_map(threshold).collect();
        let is_partial = thresholds.len() < bands.len();
        Self { thresholds, is_partial }
    }

    /// Returns the level at a count of 24 hours.
    pub(super) fn at(&self, count: u64) -> Option<&'a str> {
        let reached = self.thresholds.iter().filter(|(_, threshold)| count >= *threshold);
        reached.map(|(level, _)| *level).next_back()
    }
}

/// Some buckets as one bar.
struct Bar<'a> {
    start: Timestamp,
    count: u64,
    /// The largest count of 24 hours; absent if none is known.
    count_24h: Option<u64>,
    level: Option<&'a str>,
    sign: char,
}

/// Returns the lines of the picture, which fit into a terminal of `columns`.
pub(super) fn rendered(history: &History, columns: usize, screen: Screen) -> String {
    let levels = Levels::of(&history.bands);
    let highest = history.buckets.iter().map(|bucket| bucket.count).max().unwrap_or_default();
    let margin = 7.max(highest.to_string().len() + 2);
    let room = columns.saturating_sub(margin).max(1);
    let per_bar = history.buckets.len().div_ceil(room).max(1);
    let mut bars = merged(&history.buckets, per_bar, |part| bar(part, &levels));
    sign(&mut bars, &history.events);
    let thickness = (room / bars.len().max(1)).clamp(1, MAX_THICKNESS);

    let mut text = occurrences(&bars, margin, thickness, screen);
    text += &axis(history, &bars, margin, thickness, screen);
    text += &lanes(&bars, &levels, margin, thickness, screen);
    let step = history.step_seconds * i64::try_from(per_bar).unwrap_or(1);
    text + &legend(step, &bars, &levels, screen)
}

fn bar<'a>(part: &[Bucket], levels: &Levels<'a>) -> Bar<'a> {
    let count_24h = part.iter().filter_map(|bucket| bucket.count_24h).max();
    Bar {
        // A part has a bucket at least.
        start: part.first().map_or(Timestamp::MIN, |bucket| bucket.start),
        count: part.iter().map(|bucket| bucket.count).sum(),
        count_24h,
        level: count_24h.and_then(|count| levels.at(count)),
        sign: ' ',
    }
}

const MARKED: char = '⚑';
const UNMARKED: char = '⚐';
const FAILED: char = '✗';
const WORKED: char = '✓';

/// Gives each bar the sign of what was done in its time; a mark is shown before a repair.
fn sign(bars: &mut [Bar<'_>], events: &[Event]) {
    for event in events {
        let Some(bar) = bars.iter_mut().rev().find(|bar| bar.start <= event.at) else { continue };
        let sign = match (event.event.as_str(), event.success) {
            ("marked_fixed", _) => MARKED,
            ("unmarked_fixed", _) => UNMARKED,
            (_, Some(false)) => FAILED,
            (_, Some(true)) => WORKED,
            _ => continue,
        };
        let is_mark = |sign| matches!(sign, MARKED | UNMARKED);
        if !is_mark(bar.sign) || is_mark(sign) {
            bar.sign = sign;
        }
    }
}

fn occurrences(bars: &[Bar<'_>], margin: usize, thickness: usize, screen: Screen) -> String {
    let counts: Vec<u64> = bars.iter().map(|bar| bar.count).collect();
    let highest = counts.iter().copied().max().unwrap_or_default();
    let mut text = String::new();
    for (index, line) in chart(&counts, LINES, thickness).iter().enumerate() {
        let label = if index == 0 { highest.to_string() } else { String::new() };
        let tick = if index == 0 { '┤' } else { '│' };
        let left = format!("{label:>width$} {tick}", width = margin - 2);
        text += &screen.styled(style::QUIET, &left);
        text += line.trim_end();
        text.push('\n');
    }
    let ground =
        format!("{:>width$} └{}", 0, "─".repeat(bars.len() * thickness), width = margin - 2);
    text + &screen.styled(style::QUIET, &ground) + "\n"
}

fn axis(
    history: &History,
    bars: &[Bar<'_>],
    margin: usize,
    thickness: usize,
    screen: Screen,
) -> String {
    let seconds = (history.to.as_micros() - history.from.as_micros()) / 1_000_000;
    let has_days = seconds >= HISTORY_OF_DAYS_SECONDS;
    let all = bars.len() * thickness;
    let mut line = String::new();
    let mut before = String::new();
    for (index, bar) in bars.iter().enumerate() {
        let label = short_time(bar.start, has_days);
        // A day stands where it begins.
        let is_new = label != std::mem::replace(&mut before, label.clone());
        let at = index * thickness;
        let is_free = line.is_empty() && at == 0
            || at >= width(&line).next_multiple_of(BETWEEN_TIMES).max(width(&line) + 2);
        if is_new && is_free && at + width(&label) <= all {
            line += &" ".repeat(at - width(&line));
            line += &label;
        }
    }
    format!("{}{}\n", " ".repeat(margin), screen.styled(style::QUIET, &line))
}

fn lanes(
    bars: &[Bar<'_>],
    levels: &Levels<'_>,
    margin: usize,
    thickness: usize,
    screen: Screen,
) -> String {
    let lane = |label: &str, cells: String| {
        let label = screen.styled(style::QUIET, label) + &" ".repeat(margin - width(label));
        format!("{label}{}\n", cells.trim_end())
    };
    let sums: Vec<u64> = bars.iter().map(|bar| bar.count_24h.unwrap_or_default()).collect();
    let sums = spark(&sums);
    let mut text = lane("24 h", by_level(bars, sums.chars(), thickness, screen));
    if !levels.thresholds.is_empty() {
        let letters = bars.iter().map(|bar| match (bar.count_24h, bar.level) {
            (None, _) => '?',
            (Some(_), None) => '·',
            (Some(_), Some(level)) => level.chars().next().unwrap_or('·'),
        });
        text += &lane("level", by_level(bars, letters, thickness, screen));
    }
    if bars.iter().any(|bar| bar.sign != ' ') {
        let mut signs = String::new();
        for bar in bars {
            let style = match bar.sign {
                FAILED => style::BAD,
                WORKED => style::GOOD,
                MARKED | UNMARKED => style::ALARM,
                _ => style::PLAIN,
            };
            signs += &screen.styled(style, &bar.sign.to_string());
            signs += &" ".repeat(thickness - 1);
        }
        text += &lane("done", signs);
    }
    text
}

/// Returns a sign for each bar in the colour of its level, with neighbours of one colour together.
fn by_level(
    bars: &[Bar<'_>],
    signs: impl Iterator<Item = char>,
    thickness: usize,
    screen: Screen,
) -> String {
    let bars: Vec<_> = bars.iter().zip(signs).collect();
    let runs = bars.chunk_by(|(bar, _), (next, _)| bar.level == next.level);
    let run = |run: &[(&Bar<'_>, char)]| {
        let signs: String =
            run.iter().map(|(_, sign)| sign.to_string().repeat(thickness)).collect();
        let level = run.first().and_then(|(bar, _)| bar.level);
        screen.styled(style::of_level(level), &signs)
    };
    runs.map(run).collect()
}

fn legend(step_seconds: i64, bars: &[Bar<'_>], levels: &Levels<'_>, screen: Screen) -> String {
    let mut parts = vec![format!("a bar is {}", span(step_seconds))];
    for (level, threshold) in &levels.thresholds {
        let letter = level.chars().next().unwrap_or('·');
        parts.push(format!("{letter} {level} from {threshold} in 24 h"));
    }
    if levels.is_partial {
        parts.push("other conditions are not shown".to_owned());
    }
    for (sign, words) in [
        (FAILED, "repair failed"),
        (WORKED, "repair worked"),
        (MARKED, "marked as fixed"),
        (UNMARKED, "mark removed"),
    ] {
        if bars.iter().any(|bar| bar.sign == sign) {
            parts.push(format!("{sign} {words}"));
        }
    }
    let text = parts.join(" · ");
    let lines = wrapped(&text, screen.columns.unwrap_or(usize::MAX));
    lines.iter().map(|line| screen.styled(style::QUIET, line) + "\n").collect()
}
