//! The command `show`: everything that is known of an anomaly.

use serde_json::Value;

use super::{
    answers::{Action, Anomaly, Firing, Fix},
    failure::Failure,
    output::{Output, counted, grouped, name_of},
    screen::{Card, Cell, Column, Table, fitted, one_line, style, width},
    service::{Call, Service},
    target::TargetArguments,
};
use crate::domain::Timestamp;

pub(super) fn run(
    target: &TargetArguments,
    service: &Service,
    output: Output,
) -> Result<(), Failure> {
    let mut target = target.find(service, output)?;
    let answer = match target.looked_up.take() {
        Some(answer) => answer,
        None => target.call(service, output, &Call::get(["anomalies", &target.key]))?,
    };
    if output.is_json() {
        return output.print_json(&answer.body);
    }
    let anomaly: Anomaly = service.read(&answer)?;
    output.print(&rendered(&anomaly, output))?;
    output.note_estimate(anomaly.estimate);
    Ok(())
}

fn rendered(anomaly: &Anomaly, output: Output) -> String {
    let screen = output.screen;
    let frequency = &anomaly.frequency;
    let name = match &anomaly.signature {
        Some(signature) => name_of(signature),
        None => "its fields are unknown".to_owned(),
    };
    let level = frequency.escalation_level.as_deref();
    let level_text = one_line(frequency.level_or("no level", "level unknown at present"));
    let because = one_line(&frequency.because);
    let room =
        screen.columns.map_or(usize::MAX, |columns| columns.saturating_sub(width(&level_text) + 2));
    let mut text = screen.line(style::NAME, &name);
    text += &screen.styled(style::of_level(level), &level_text);
    text += &format!("  {}\n\n", screen.styled(style::QUIET, &fitted(&because, room)));
    text += &counts(anomaly, output);
    text.push('\n');
    text += &card(anomaly, output).render(screen);
    if screen.is_terminal() {
        let key = one_line(&anomaly.anomaly_key);
        text.push('\n');
        text += &screen
            .line(style::QUIET, &format!("more: anomaly-counter history|repairs|audit {key}"));
    }
    text
}

fn counts(anomaly: &Anomaly, output: Output) -> String {
    let frequency = &anomaly.frequency;
    let titles = ["1 H", "24 H", "7 D", "30 D"];
    let mut table = Table::new(titles.into_iter().map(Column::number).collect());
    let counts = [frequency.count_1h, frequency.count_24h, frequency.count_7d, frequency.count_30d];
    table.push(counts.into_iter().map(|count| Cell::new(grouped(count))).collect());
    table.render(output.screen)
}

fn card(anomaly: &Anomaly, output: Output) -> Card {
    let frequency = &anomaly.frequency;
    let moment = |time: Timestamp| format!("{}, {}", output.ago(time), output.time(time));
    let mut card = Card::default();
    let seen = [
        ("last seen", frequency.last_seen),
        ("first seen", frequency.first_seen),
        ("known since", anomaly.known_since),
    ];
    for (label, time) in seen {
        if let Some(time) = time {
            card.add(label, moment(time));
        }
    }
    if let Some(Firing { episodes, since }) = &anomaly.firing {
        let alerts = counted(*episodes, "alert");
        card.add("firing", format!("{alerts}, since {}", moment(*since)));
    }
    add_fix(&mut card, anomaly, output);
    add_repairs(&mut card, anomaly);
    if output.is_wide() {
        card.add("rule", &frequency.rule);
    }
    add_fields(&mut card, anomaly, output);
    card.add("key", &anomaly.anomaly_key);
    card
}

fn add_fix(card: &mut Card, anomaly: &Anomaly, output: Output) {
    let is_back = anomaly.frequency.regressed == Some(true);
    match (&anomaly.permanent_fix, anomaly.frequency.permanent_fix_applied) {
        (Some(fix), _) => {
            let Fix { fix_description, fixed_by, fixed_at, expires_at } = fix;
            if is_back {
                card.add_styled("fix", "came back after it was marked as fixed", style::ALARM);
            } else {
                card.add_styled("fix", "marked as fixed", style::GOOD);
            }
            let by = fixed_by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
            let until = expires_at.map(|until| format!("; the mark ends {}", output.time(until)));
            let marked = format!("{}{by}, {}", output.ago(*fixed_at), output.time(*fixed_at));
            card.line(marked + &until.unwrap_or_default(), style::PLAIN);
            card.line(fix_description.as_deref().unwrap_or_default(), style::PLAIN);
        }
        (None, None) => card.add("fix", "unknown at present"),
        (None, Some(_)) if is_back => card.add_styled("fix", "came back", style::ALARM),
        (None, Some(_)) => {}
    }
}

fn add_repairs(card: &mut Card, anomaly: &Anomaly) {
    let Some(repairs) = &anomaly.repairs else {
        card.add("repairs", "unknown at present");
        return;
    };
    for (index, action) in repairs.iter().enumerate() {
        let Action { action: name, total, success, success_rate } = action;
        let style = if *success == 0 { style::BAD } else { style::PLAIN };
        let line = format!("{name}: {success} of {total} worked ({})", percent(*success_rate));
        if index == 0 {
            card.add_styled("repairs", line, style);
        } else {
            card.line(line, style);
        }
    }
}

/// Returns a share as a whole number of hundredths.
pub(super) fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn add_fields(card: &mut Card, anomaly: &Anomaly, output: Output) {
    let Some(fields) = &anomaly.metadata else {
        card.add("fields", "unknown at present");
        return;
    };
    /// The columns of the labels and their gap.
    const MARGIN: usize = 13;
    let room = output.screen.columns.filter(|_| !output.is_wide());
    for (index, (name, value)) in fields.iter().enumerate() {
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let line = one_line(&format!("{name}: {value}"));
        let line = fitted(&line, room.map_or(usize::MAX, |room| room.saturating_sub(MARGIN)));
        if index == 0 {
            card.add("fields", line);
        } else {
            card.line(line, style::PLAIN);
        }
    }
}
