//! The history of an anomaly as a picture: occurrences, the count of 24 hours that determines its
//! level, the level over time, repairs and marks.

use super::{
    answers::{Band, Bucket, Event, History},
    screen::{
        Screen, chart, local_multiple, merged, short_time, span, spark, style, width, wrapped,
    },
};
use crate::domain::Timestamp;

/// The height of the chart of occurrences.
const LINES: usize = 6;
/// Maximum number of columns of one bar.
const MAX_THICKNESS: usize = 4;
/// Minimum number of columns between two times on the axis.
const BETWEEN_TIMES: usize = 10;
/// The times that an axis may have: those of hours, and of days.
const TIMES_SECONDS: [i64; 11] = [
    900,
    1_800,
    3_600,
    7_200,
    10_800,
    21_600,
    43_200,
    DAY_SECONDS,
    2 * DAY_SECONDS,
    5 * DAY_SECONDS,
    10 * DAY_SECONDS,
];
const DAY_SECONDS: i64 = 86_400;

/// The levels by the count of 24 hours alone.
#[derive(Debug)]
pub(super) struct Levels<'a> {
    /// The thresholds of the levels, the lowest level first.
    thresholds: Vec<(&'a str, u64)>,
    /// True if there are other conditions, which may raise the level.
    pub(super) is_partial: bool,
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
    /// The largest count of 24 hours, if any is known.
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
    let bar_seconds = history.step_seconds * i64::try_from(per_bar).unwrap_or(1);
    text += &axis(bar_seconds, &bars, margin, thickness, screen);
    text += &lanes(&bars, &levels, margin, thickness, screen);
    text + &legend(bar_seconds, &bars, &levels, screen)
}

fn bar<'a>(part: &[Bucket], levels: &Levels<'a>) -> Bar<'a> {
    let count_24h = part.iter().filter_map(|bucket| bucket.count_24h).max();
    Bar {
        // A part has at least one bucket.
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

/// Gives each bar the sign of the event in its time; a mark takes precedence over a repair.
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

/// Returns the line of times, each below the first bar that begins at or after it.
fn axis(
    bar_seconds: i64,
    bars: &[Bar<'_>],
    margin: usize,
    thickness: usize,
    screen: Screen,
) -> String {
    let columns = |seconds: i64| seconds / bar_seconds.max(1) * thickness as i64;
    let is_apart = |seconds: &&i64| columns(**seconds) >= BETWEEN_TIMES as i64;
    let longest = TIMES_SECONDS[TIMES_SECONDS.len() - 1];
    let seconds = *TIMES_SECONDS.iter().find(is_apart).unwrap_or(&longest);
    let mut line = String::new();
    let mut before = None;
    for (index, bar) in bars.iter().enumerate() {
        let time = local_multiple(bar.start, seconds);
        let at = index * thickness;
        let is_new = before.replace(time).is_some_and(|before| before != time);
        let label = short_time(time, seconds >= DAY_SECONDS);
        if is_new && at > width(&line) && at + width(&label) <= bars.len() * thickness {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::answers::Estimate;

    fn time(seconds: i64) -> Timestamp {
        Timestamp::from_micros((1_764_000_000 + seconds) * 1_000_000)
    }

    fn band(level: &str, condition: &str) -> Band {
        Band { level: level.to_owned(), condition: condition.to_owned() }
    }

    fn history(buckets: i64) -> History {
        let bucket = |index: i64| Bucket {
            start: time(index * 3_600),
            count: index.unsigned_abs() % 5,
            count_24h: (index > 3).then_some(index.unsigned_abs()),
            exact: true,
        };
        let event = |hours: i64, event: &str, success: Option<bool>| Event {
            at: time(hours * 3_600 + 60),
            event: event.to_owned(),
            by: None,
            token: None,
            request_id: None,
            fix_description: None,
            reason: None,
            action: None,
            success,
        };
        History {
            from: time(0),
            to: time(buckets * 3_600),
            step_seconds: 3_600,
            total: 9,
            buckets: (0..buckets).map(bucket).collect(),
            events: vec![
                event(5, "repair_attempted", Some(true)),
                event(5, "marked_fixed", None),
                event(5, "repair_attempted", Some(false)),
            ],
            bands: vec![
                band("REPEAT", "5 in 24h"),
                band("ESCALATE", "8 in 24h"),
                band("ESCALATE", "4 in 1h"),
            ],
            estimate: Estimate { degraded: false, as_of: None },
        }
    }

    #[test]
    fn a_level_goes_by_the_conditions_of_24_hours_and_others_are_said_to_be_left_out() {
        let bands = [band("REPEAT", "3 in 24h"), band("ESCALATE", "20 in 7d and 2 in 24h")];
        let levels = Levels::of(&bands);
        assert_eq!(
            (levels.at(2), levels.at(3), levels.at(99)),
            (None, Some("REPEAT"), Some("REPEAT"))
        );
        assert!(levels.is_partial);
    }

    #[test]
    fn every_line_fits_into_any_terminal() {
        for columns in 20..140 {
            let screen = Screen { columns: Some(columns), has_colours: false };
            for buckets in [1, 2, 24, 96, 168, 1_000] {
                for line in rendered(&history(buckets), columns, screen).lines() {
                    assert!(width(line) <= columns, "{columns} {buckets}: {line}");
                }
            }
        }
    }

    #[test]
    fn the_lanes_stand_under_the_bars() {
        let screen = Screen { columns: Some(30), has_colours: false };
        let text = rendered(&history(12), 30, screen);
        let lane = |label: &str| text.lines().find(|line| line.starts_with(label)).unwrap();
        assert_eq!(lane("level"), "level  ????·RRREEEE");
        assert_eq!(lane("done"), "done        ⚑");
        assert!(text.contains("conditions are not shown"), "{text}");
        assert!(text.starts_with("    4 ┤    █    █\n"), "{text}");
    }
}
