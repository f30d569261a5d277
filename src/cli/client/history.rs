//! The command `history`: how often an anomaly has occurred over time, and what was done about it.

use clap::{Args, builder::PossibleValuesParser};

use super::{
    answers::{Bucket, Event, History},
    audit,
    failure::Failure,
    history_chart,
    output::{Output, counted, grouped},
    screen::{Cell, Column, Table, span, style},
    service::{Call, Service},
    target::TargetArguments,
};
use crate::domain::Timestamp;

const STEPS: [&str; 8] = ["5m", "15m", "30m", "1h", "2h", "6h", "12h", "1d"];

/// Maximum number of events below a chart.
const LISTED_EVENTS: usize = 8;

/// The parameters of a history.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct HistoryCommand {
    #[command(flatten)]
    target: TargetArguments,
    /// The length of the history up to now: a number with m, h or d, from 1h to 30d; the default is
    /// 24h
    #[arg(short, long, value_name = "TIME", conflicts_with_all = ["from", "to"])]
    window: Option<String>,
    /// The beginning of the history, such as 2026-11-22T14:00:00Z
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// The end of the history; the default is now
    #[arg(long, value_name = "TIME", requires = "from")]
    to: Option<String>,
    /// The time of one bar; the default depends on the window
    #[arg(short, long, value_name = "TIME", value_parser = PossibleValuesParser::new(STEPS))]
    step: Option<String>,
}

impl HistoryCommand {
    pub(super) fn run(&self, service: &Service, output: Output) -> Result<(), Failure> {
        let target = self.target.find(service, output)?;
        let call = Call::get(["anomalies", &target.key, "history"])
            .with("window", self.window.clone())
            .with("from", self.from.clone())
            .with("to", self.to.clone())
            .with("step", self.step.clone());
        let answer = target.call(service, output, &call)?;
        if output.is_json() {
            return output.print_json(&answer.body);
        }
        let history: History = service.read(&answer)?;
        let text = match output.screen.columns {
            Some(columns) if !output.is_wide() => {
                target.title(service, output) + &pictured(&history, columns, output)
            }
            _ => {
                let levels = history_chart::Levels::of(&history.bands);
                if levels.is_partial {
                    output.note("levels by other conditions than `N in 24h` are not in the table");
                }
                buckets(&history, &levels, output).render(output.screen)
            }
        };
        output.print(&text)?;
        output.note_estimate(history.estimate);
        Ok(())
    }
}

fn pictured(history: &History, columns: usize, output: Output) -> String {
    let mut text = history_chart::rendered(history, columns, output.screen);
    let seconds = (history.to.as_micros() - history.from.as_micros()) / 1_000_000;
    let mut summary = format!("{} in {}", counted(history.total, "occurrence"), span(seconds));
    if history.buckets.iter().any(|bucket| !bucket.exact) {
        summary += ", some of them at times that are exact to the hour only";
    }
    text += &output.screen.line(style::QUIET, &summary);
    if history.events.is_empty() {
        return text;
    }
    let newest = history.events.iter().rev().take(LISTED_EVENTS);
    text += "\n";
    text += &audit::events(newest, output).render(output.screen);
    if let Some(earlier) = history.events.len().checked_sub(LISTED_EVENTS + 1) {
        let line = format!("{} more: see `anomaly-counter audit`", grouped(earlier as u64 + 1));
        text += &output.screen.line(style::QUIET, &line);
    }
    text
}

/// Returns a row for each bucket.
fn buckets(history: &History, levels: &history_chart::Levels<'_>, output: Output) -> Table {
    let mut table = Table::new(vec![
        Column::new("START"),
        Column::number("COUNT"),
        Column::number("24H"),
        Column::new("LEVEL").goes_at(1),
        Column::new("EXACT").goes_at(2),
        Column::new("EVENTS").shrinks_to(12).may_be_empty(),
    ]);
    for (index, bucket) in history.buckets.iter().enumerate() {
        let Bucket { start, count, count_24h, exact } = bucket;
        let end = history.buckets.get(index + 1).map_or(Timestamp::MAX, |next| next.start);
        let inside = |event: &&Event| event.at >= *start && event.at < end;
        let events: Vec<String> =
            history.events.iter().filter(inside).map(event_in_words).collect();
        let events = events.chunk_by(|event, next| event == next).map(|same| match same.len() {
            1 => same.concat(),
            times => format!("{times} times {}", same[0]),
        });
        let events: Vec<String> = events.collect();
        let level = count_24h.and_then(|count| levels.at(count));
        let without_level = if count_24h.is_none() || levels.is_partial { "?" } else { "none" };
        table.push(vec![
            Cell::new(output.time(*start)),
            Cell::from(*count),
            Cell::new(count_24h.map(|count| count.to_string()).unwrap_or_default()),
            Cell::new(level.unwrap_or(without_level)).styled(style::of_level(level)),
            Cell::new(if *exact { "yes" } else { "no" }),
            Cell::new(events.join("; ")),
        ]);
    }
    table
}

fn event_in_words(event: &Event) -> String {
    let (words, _) = audit::in_words(event);
    let action = event.action.as_ref().map(|action| format!(" ({action})")).unwrap_or_default();
    let by = event.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
    format!("{words}{action}{by}")
}
