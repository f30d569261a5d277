//! The command `repairs`: which automatic repairs were tried on an anomaly, and which of them work.

use super::{
    answers::{Action, Attempt, Repairs},
    failure::Failure,
    output::{Output, counted},
    screen::{Cell, Column, Table, style},
    service::{Call, Service},
    show::percent,
    target::TargetArguments,
};

/// The length of the bar of an action that always works.
const FULL_BAR: usize = 20;
/// Maximum number of attempts that a terminal lists, unless all are asked for.
const LISTED: usize = 10;

pub(super) fn run(
    target: &TargetArguments,
    service: &Service,
    output: Output,
) -> Result<(), Failure> {
    let target = target.find(service, output)?;
    let call = Call::get(["anomalies", &target.key, "repairs"]);
    let answer = target.call(service, output, &call)?;
    if output.is_json() {
        return output.print_json(&answer.body);
    }
    let repairs: Repairs = service.read(&answer)?;
    let mut text = target.title(service, output);
    if repairs.actions.is_empty() && output.screen.is_terminal() {
        text += "no repair attempts are recorded\n";
    } else {
        text += &actions(&repairs.actions, output).render(output.screen);
        text.push('\n');
        text += &attempts(&repairs, output);
    }
    output.print(&text)?;
    output.note_estimate(repairs.estimate);
    Ok(())
}

fn actions(actions: &[Action], output: Output) -> Table {
    let mut columns = vec![
        Column::new("ACTION").shrinks_to(12),
        Column::number("WORKED"),
        Column::number("TRIED"),
        Column::number("RATE"),
    ];
    if output.screen.is_terminal() {
        columns.push(Column::new("").goes_at(1));
    }
    let mut table = Table::new(columns);
    for Action { action, total, success, success_rate } in actions {
        let style = if *success == 0 { style::BAD } else { style::PLAIN };
        let mut row = vec![
            Cell::new(action).styled(style::NAME),
            Cell::from(*success),
            Cell::from(*total),
            Cell::new(percent(*success_rate)).styled(style),
        ];
        if output.screen.is_terminal() {
            let filled = (success_rate.clamp(0.0, 1.0) * FULL_BAR as f64).round() as usize;
            let bar = "━".repeat(filled) + &"╌".repeat(FULL_BAR - filled);
            let style = if *success == 0 { style::BAD } else { style::GOOD };
            row.push(Cell::bars(bar).styled(style));
        }
        table.push(row);
    }
    table
}

fn attempts(repairs: &Repairs, output: Output) -> String {
    let mut table = Table::new(vec![
        Column::new("WHEN").goes_at(1),
        Column::number("AGO"),
        Column::new("RESULT"),
        Column::new("ACTION").shrinks_to(12),
    ]);
    let is_short = output.screen.is_terminal() && !output.is_wide();
    let listed = if is_short { LISTED } else { usize::MAX };
    for Attempt { action, success, timestamp } in repairs.attempts.iter().take(listed) {
        let (words, style) =
            if *success { ("worked", style::GOOD) } else { ("failed", style::BAD) };
        table.push(vec![
            Cell::new(timestamp.map(|at| output.time(at)).unwrap_or_default()).styled(style::QUIET),
            Cell::new(timestamp.map(|at| output.age(at)).unwrap_or_default()),
            Cell::new(words).styled(style),
            Cell::new(action),
        ]);
    }
    let mut text = table.render(output.screen);
    let shown = u64::try_from(repairs.attempts.len().min(listed)).unwrap_or(u64::MAX);
    let earlier = repairs.auto_repair_count.saturating_sub(shown);
    if output.screen.is_terminal() && earlier > 0 {
        let more = if is_short && repairs.attempts.len() > listed { ": see -o wide" } else { "" };
        let line = format!("{} earlier{more}", counted(earlier, "attempt"));
        text += &output.screen.line(style::QUIET, &line);
    }
    text
}
