//! The command `audit`: who has changed what about an anomaly.

use super::{
    answers::{Audit, Event},
    failure::Failure,
    output::Output,
    screen::{Cell, Column, Table, style},
    service::{Call, Service},
    target::TargetArguments,
};

pub(super) fn run(
    target: &TargetArguments,
    service: &Service,
    output: Output,
) -> Result<(), Failure> {
    let target = target.find(service, output)?;
    let call = Call::get(["anomalies", &target.key, "audit"]);
    let answer = target.call(service, output, &call)?;
    if output.is_json() {
        return output.print_json(&answer.body);
    }
    let audit: Audit = service.read(&answer)?;
    let mut text = target.title(service, output);
    if audit.entries.is_empty() && output.screen.is_terminal() {
        text += "no changes are recorded\n";
    } else {
        text += &events(&audit.entries, output).render(output.screen);
    }
    output.print(&text)?;
    output.note_estimate(audit.estimate);
    Ok(())
}

/// Returns events as a table.
pub(super) fn events<'a>(events: impl IntoIterator<Item = &'a Event>, output: Output) -> Table {
    let mut columns = vec![
        Column::new("WHEN").goes_at(2),
        Column::number("AGO").goes_at(3),
        Column::new("EVENT"),
        Column::new("BY").shrinks_to(6).may_be_empty(),
        Column::new("TOKEN").shrinks_to(6).may_be_empty().goes_at(1),
        Column::new("WHAT").shrinks_to(12).may_be_empty(),
    ];
    if output.is_wide() {
        columns.push(Column::new("REQUEST").goes_at(1));
    }
    let mut table = Table::new(columns);
    for event in events {
        let (words, style) = in_words(event);
        let what = [&event.fix_description, &event.reason, &event.action];
        let what = what.into_iter().find_map(|what| what.as_deref()).unwrap_or_default();
        let mut row = vec![
            Cell::new(output.time(event.at)).styled(style::QUIET),
            Cell::new(output.age(event.at)),
            Cell::new(words).styled(style),
            Cell::new(event.by.as_deref().unwrap_or_default()),
            Cell::new(event.token.as_deref().unwrap_or_default()),
            Cell::new(what),
        ];
        if output.is_wide() {
            row.push(Cell::new(event.request_id.as_deref().unwrap_or_default()));
        }
        table.push(row);
    }
    table
}

/// Returns the event in words.
pub(super) fn in_words(event: &Event) -> (&str, anstyle::Style) {
    match (event.event.as_str(), event.success) {
        ("marked_fixed", _) => ("marked as fixed", style::NAME),
        ("unmarked_fixed", _) => ("mark removed", style::ALARM),
        ("repair_attempted", Some(true)) => ("repair worked", style::GOOD),
        ("repair_attempted", Some(false)) => ("repair failed", style::BAD),
        (other, _) => (other, style::PLAIN),
    }
}
