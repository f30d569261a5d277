//! A list of anomalies as a table.

use super::{
    answers::{List, Listed, Signature},
    output::{Output, grouped},
    screen::{Cell, Column, Table, spark, style},
};
use crate::domain::Timestamp;

/// The parts of a list beside the anomalies themselves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ListView {
    /// The title of the occurrences over time, if requested.
    pub(super) series_title: Option<&'static str>,
}

/// The columns of a terminal with room for a bar for each number.
const WIDE_SCREEN: usize = 140;

/// Returns a list as a table.
pub(super) fn rendered(list: &List, output: Output, view: ListView) -> String {
    // On a narrow terminal, two numbers share one bar.
    let per_bar = match output.screen.columns {
        Some(columns) if columns < WIDE_SCREEN => 2,
        _ => 1,
    };
    let mut columns = vec![
        Column::new("LEVEL"),
        Column::number("24H"),
        Column::number("1H").goes_at(5),
        Column::number("7D").goes_at(2),
        Column::number("30D").goes_at(1),
        Column::number("LAST").goes_at(8),
        Column::new("NAME").shrinks_to(18),
        Column::new("SERVICE").shrinks_to(8).goes_at(9),
        Column::new("NAMESPACE").shrinks_to(9).goes_at(7).may_be_empty(),
        Column::new("ERROR").shrinks_to(8).goes_at(3).may_be_empty(),
        Column::new("STATE").goes_at(6).may_be_empty(),
    ];
    if let Some(title) = view.series_title {
        columns.push(Column::new(title).goes_at(4));
    }
    columns.push(Column::new("KEY").prefix_of(8).goes_at(10));
    if output.is_wide() {
        columns.extend([
            Column::number("FIRST").goes_at(3),
            Column::number("REPAIRS").goes_at(3),
            Column::new("RULE").shrinks_to(8).goes_at(2),
            Column::new("BECAUSE").shrinks_to(20).goes_at(1),
        ]);
    }
    let mut table = Table::new(columns);
    for listed in &list.anomalies {
        table.push(row(listed, output, view, per_bar));
    }
    table.render(output.screen)
}

fn row(listed: &Listed, output: Output, view: ListView, per_bar: usize) -> Vec<Cell> {
    let Listed { anomaly_key, signature, frequency, .. } = listed;
    let level = frequency.escalation_level.as_deref();
    let level_style = style::of_level(level);
    let unknown = Signature { alert_name: "?".to_owned(), ..Signature::default() };
    let Signature { alert_name, service, namespace, error_type } =
        signature.as_ref().unwrap_or(&unknown);
    let count = |count: u64| match count {
        0 => Cell::from(0).styled(style::QUIET),
        _ => Cell::from(count),
    };
    let age =
        |then: Option<Timestamp>| Cell::new(then.map(|then| output.age(then)).unwrap_or_default());
    let mut row = vec![
        Cell::new(frequency.level_or("none", "?")).styled(level_style),
        count(frequency.count_24h),
        count(frequency.count_1h),
        count(frequency.count_7d),
        count(frequency.count_30d),
        age(frequency.last_seen),
        Cell::new(alert_name).styled(style::NAME),
        Cell::new(service),
        Cell::new(namespace),
        Cell::new(error_type),
        state(listed),
    ];
    if view.series_title.is_some() {
        let bars = listed.series.as_deref().map(|series| {
            let pairs: Vec<u64> = series.chunks(per_bar).map(|pair| pair.iter().sum()).collect();
            spark(&pairs)
        });
        row.push(Cell::bars(bars.unwrap_or_default()).styled(level_style));
    }
    row.push(Cell::new(anomaly_key).styled(style::QUIET));
    if output.is_wide() {
        let repairs = frequency.auto_repair_count.map_or_else(|| Cell::new("?"), count);
        row.extend([
            age(frequency.first_seen),
            repairs,
            Cell::new(&frequency.rule),
            Cell::new(&frequency.because).styled(style::QUIET),
        ]);
    }
    row
}

/// The present state: alerts that fire, and whether the mark of a fix holds.
fn state(listed: &Listed) -> Cell {
    let firing = listed.firing.as_ref().map(|firing| match firing.episodes {
        1 => "firing".to_owned(),
        episodes => format!("{episodes} firing"),
    });
    let is_back = listed.frequency.regressed == Some(true);
    let mark = match listed.fixed_at {
        _ if is_back => Some("came back".to_owned()),
        Some(_) => Some("fixed".to_owned()),
        None => None,
    };
    let words: Vec<String> = [firing, mark].into_iter().flatten().collect();
    let style = if is_back { style::ALARM } else { style::PLAIN };
    Cell::new(words.join(", ")).styled(style)
}

/// Returns the line below a list: the number of anomalies.
pub(super) fn footer(list: &List, output: Output) -> String {
    let shown = u64::try_from(list.anomalies.len()).unwrap_or(u64::MAX);
    let noun = if list.total == 1 { "anomaly" } else { "anomalies" };
    let total = grouped(list.total);
    let mut parts = vec![match list.total > shown {
        true => format!("{shown} of {total} {noun}"),
        false => format!("{total} {noun}"),
    }];
    if list.next_cursor.is_some() {
        parts.push("more with -n".to_owned());
    }
    if let Some(as_of) = list.as_of {
        parts.push(format!("as of {}", output.time(as_of)));
    }
    output.screen.line(style::QUIET, &parts.join(" · "))
}

/// Notes on standard error that a list is incomplete or not in exact order.
pub(super) fn note(list: &List, output: Output) {
    if list.degraded {
        output.note(
            "the service's store is unavailable: the figures are the last known ones plus the \
             writes that wait",
        );
    }
    if !list.complete {
        let known = list.loaded.map(grouped).unwrap_or_else(|| "some".to_owned());
        output.note(&match list.reason.as_deref() {
            Some("denied") => format!(
                "the store does not permit the service to list its keys: {known} anomalies are \
                 known"
            ),
            Some("behind") => format!(
                "there are more anomalies than the service can list: {known} of them are known"
            ),
            _ => format!(
                "the service is still reading its store: {known} anomalies are known so far"
            ),
        });
    }
    if list.ranking.as_deref() == Some("approximate") {
        output.note("the order is approximate: some counts are not current");
    }
}
