//! The command `top`: the anomalies that matter most now.

use clap::{Args, builder::PossibleValuesParser};

use super::{
    answers::List,
    failure::Failure,
    list::{self, ListView},
    output::Output,
    screen::style,
    service::{Call, Service},
};

const SORTS: [&str; 7] =
    ["count_24h", "count_1h", "count_7d", "count_30d", "last_seen", "first_seen", "key"];
const LEVELS: [&str; 3] = ["REPEAT", "ESCALATE", "PERMANENT_FIX"];
const LEVELS_AND_NONE: [&str; 4] = ["REPEAT", "ESCALATE", "PERMANENT_FIX", "none"];

pub(super) const EXAMPLES: &str = "\
List the worst anomalies at present, in all namespaces of the shop:
  anomaly-counter top --namespace 'shop-*' --min-level ESCALATE

List anomalies that came back after a fix, and anomalies that fire:
  anomaly-counter top --regressed
  anomaly-counter top --firing --sort last_seen

Print all anomalies for a program, page by page (pass `next_cursor` to --cursor):
  anomaly-counter top -n 200 --sort key -o json";

/// The parameters of the list.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Selection")]
pub(in crate::cli) struct TopCommand {
    /// Words, each of which must be in one of the four fields or begin the key
    #[arg(value_name = "WORDS", help_heading = "Arguments")]
    words: Vec<String>,
    /// Maximum number of anomalies to list
    #[arg(
        short = 'n', long, value_name = "NUMBER", default_value_t = 20,
        value_parser = clap::value_parser!(u8).range(1..=200),
    )]
    limit: u8,
    /// The value to sort by, the largest or newest first
    #[arg(long, value_name = "BY", value_parser = PossibleValuesParser::new(SORTS))]
    sort: Option<String>,
    /// The direction, when sorting by a time or the key
    #[arg(long, value_name = "ORDER", value_parser = PossibleValuesParser::new(["asc", "desc"]))]
    order: Option<String>,
    /// Only anomalies at one of these levels
    #[arg(
        long, value_name = "LEVEL", value_delimiter = ',', ignore_case = true,
        value_parser = PossibleValuesParser::new(LEVELS_AND_NONE),
    )]
    level: Vec<String>,
    /// Only anomalies at this level or above
    #[arg(
        long, value_name = "LEVEL", ignore_case = true,
        value_parser = PossibleValuesParser::new(LEVELS),
    )]
    min_level: Option<String>,
    /// Only anomalies with this alert name; with `*` or `?`, it is a pattern that ignores case.
    /// Repeat the option to select one of several
    #[arg(long, value_name = "PATTERN", visible_alias = "alertname")]
    alert_name: Vec<String>,
    /// Only anomalies of this service, as --alert-name
    #[arg(long, value_name = "PATTERN", visible_alias = "job")]
    service: Vec<String>,
    /// Only anomalies in this namespace, as --alert-name
    #[arg(long, value_name = "PATTERN")]
    namespace: Vec<String>,
    /// Only anomalies with this kind of error, as --alert-name
    #[arg(long, value_name = "PATTERN", visible_alias = "reason")]
    error_type: Vec<String>,
    /// Only anomalies of this rule. Repeat the option to select one of several
    #[arg(long, value_name = "NAME")]
    rule: Vec<String>,
    /// Only anomalies with an alert that fires; `=false`: only those without
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true",
    )]
    firing: Option<bool>,
    /// Only anomalies that are marked as fixed; `=false`: only those that are not
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true",
    )]
    fixed: Option<bool>,
    /// Only anomalies that came back after the mark; `=false`: only those that did not
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true",
    )]
    regressed: Option<bool>,
    /// Only anomalies with a repair attempt; `=false`: only those without
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true",
    )]
    repaired: Option<bool>,
    /// Only anomalies last seen within this age, such as 90m, 24h or 7d, or since this time
    #[arg(long, value_name = "TIME")]
    last_seen_after: Option<String>,
    /// Only anomalies last seen before this age or time
    #[arg(long, value_name = "TIME")]
    last_seen_before: Option<String>,
    /// Only anomalies first seen (in 30 days) within this age, or since this time
    #[arg(long, value_name = "TIME")]
    first_seen_after: Option<String>,
    /// Only anomalies first seen before this age or time
    #[arg(long, value_name = "TIME")]
    first_seen_before: Option<String>,
    /// Only anomalies with at least this number of occurrences in an hour
    #[arg(long = "min-count-1h", value_name = "NUMBER")]
    min_count_1h: Option<u64>,
    /// Only anomalies with at least this number of occurrences in 24 hours
    #[arg(long = "min-count-24h", value_name = "NUMBER")]
    min_count_24h: Option<u64>,
    /// Only anomalies with at least this number of occurrences in 7 days
    #[arg(long = "min-count-7d", value_name = "NUMBER")]
    min_count_7d: Option<u64>,
    /// Only anomalies with at least this number of occurrences in 30 days
    #[arg(long = "min-count-30d", value_name = "NUMBER")]
    min_count_30d: Option<u64>,
    /// Show the occurrences over this window; the default on a terminal is 24h
    #[arg(long, value_name = "TIME", value_parser = PossibleValuesParser::new(["24h", "7d"]))]
    series: Option<String>,
    /// Continue after the page with this `next_cursor`
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
}

/// Returns a level as the service writes it; a person may write it in any case.
fn level_name(level: &str) -> String {
    let known = LEVELS_AND_NONE.into_iter().find(|known| known.eq_ignore_ascii_case(level));
    known.unwrap_or(level).to_owned()
}

/// The minimum width of a terminal that has room for the occurrences over time.
const ROOM_FOR_SERIES: usize = 90;

impl TopCommand {
    fn call(&self, series: Option<&str>) -> Call<'_> {
        let text = |flag: Option<bool>| flag.map(|flag| flag.to_string());
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let words = (!self.words.is_empty()).then(|| self.words.join(" "));
        let levels: Vec<String> = self.level.iter().map(|level| level_name(level)).collect();
        let levels = (!levels.is_empty()).then(|| levels.join(","));
        let mut call = Call::get(["anomalies"])
            .with("q", words)
            .with("limit", self.limit.to_string())
            .with("sort", self.sort.clone())
            .with("order", self.order.clone())
            .with("level", levels)
            .with("min_level", self.min_level.as_deref().map(level_name))
            .with("firing", text(self.firing))
            .with("fixed", text(self.fixed))
            .with("regressed", text(self.regressed))
            .with("repaired", text(self.repaired))
            .with("last_seen_after", self.last_seen_after.clone())
            .with("last_seen_before", self.last_seen_before.clone())
            .with("first_seen_after", self.first_seen_after.clone())
            .with("first_seen_before", self.first_seen_before.clone())
            .with("min_count_1h", number(self.min_count_1h))
            .with("min_count_24h", number(self.min_count_24h))
            .with("min_count_7d", number(self.min_count_7d))
            .with("min_count_30d", number(self.min_count_30d))
            .with("series", series.map(str::to_owned))
            .with("cursor", self.cursor.clone());
        for (name, values) in [
            ("alert_name", &self.alert_name),
            ("service", &self.service),
            ("namespace", &self.namespace),
            ("error_type", &self.error_type),
            ("rule", &self.rule),
        ] {
            call = values.iter().fold(call, |call, value| call.with(name, value.clone()));
        }
        call
    }

    /// Returns true if it lists all anomalies.
    fn selects_all(&self) -> bool {
        self.call(None).parameters().all(|name| ["limit", "sort", "order"].contains(&name))
    }

    pub(super) fn run(&self, service: &Service, output: Output) -> Result<(), Failure> {
        let has_room = output.screen.columns.is_some_and(|columns| columns >= ROOM_FOR_SERIES);
        let series = match &self.series {
            Some(series) => Some(series.as_str()),
            None => (has_room && !output.is_json()).then_some("24h"),
        };
        let answer = service.call(&self.call(series))?;
        if output.is_json() {
            return output.print_json(&answer.body);
        }
        let list: List = service.read(&answer)?;
        let is_empty = list.anomalies.is_empty();
        let view = ListView {
            series_title: series.map(|series| match series {
                "7d" => "LAST 7 D",
                _ => "LAST 24 H",
            }),
        };
        let mut text = String::new();
        if !is_empty || !output.screen.is_terminal() {
            text += &list::rendered(&list, output, view);
        }
        if output.screen.is_terminal() {
            text += &match is_empty {
                true => self.nothing(service, output),
                false => list::footer(&list, output),
            };
        }
        output.print(&text)?;
        list::note(&list, output);
        Ok(())
    }

    /// Returns the text of an empty list.
    fn nothing(&self, service: &Service, output: Output) -> String {
        if !self.selects_all() {
            return output.screen.styled(style::QUIET, "no anomaly matches") + "\n";
        }
        format!(
            "no anomaly has occurred in the last 30 days. To record a first one:\n  curl --json \
             '{{\"alert_name\":\"HighCPU\",\"service\":\"api\"}}' {}/anomalies\n",
            service.address()
        )
    }
}
