//! The commands `fix` and `unfix`: they mark the cause of an anomaly as fixed, and take that back.

use clap::Args;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{
    answers::{Fix, Unfix},
    failure::Failure,
    output::Output,
    screen::{one_line, style},
    service::{Answer, Call, Service},
    target::{Target, TargetArguments},
};

/// The arguments of `fix`.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct FixCommand {
    #[command(flatten)]
    target: TargetArguments,
    /// A description of the fix
    #[arg(short, long, value_name = "TEXT")]
    message: String,
    /// The person who fixed it; the default is the name of the token
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

/// The arguments of `unfix`.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct UnfixCommand {
    #[command(flatten)]
    target: TargetArguments,
    /// The reason why it is not fixed
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// The person who removes the mark; the default is the name of the token
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

impl FixCommand {
    pub(super) fn run(&self, service: &Service, output: Output) -> Result<(), Failure> {
        let target = self.target.find_to_change(service, output)?;
        let mut body = json!({"anomaly_key": target.key, "fix_description": self.message});
        if let Some(by) = &self.by {
            body["fixed_by"] = json!(by);
        }
        let call = Call::new(Method::PUT, ["permanent-fix"]).body(body);
        let answer = target.call(service, output, &call)?;
        if output.is_json() {
            output.print_json(&answer.body)?;
            note_waiting(&answer, output);
            return Ok(());
        }
        let fix: Fix = service.read(&answer)?;
        let by = fix.fixed_by.map(|by| format!(" by {}", one_line(&by))).unwrap_or_default();
        let until = fix.expires_at.map(|until| format!(", until {}", output.time(until)));
        let done = format!("marked as fixed{by}{}", until.unwrap_or_default());
        report(&answer, &done, &target, service, output)
    }
}

impl UnfixCommand {
    pub(super) fn run(&self, service: &Service, output: Output) -> Result<(), Failure> {
        let target = self.target.find_to_change(service, output)?;
        let mut body = json!({});
        for (member, value) in [("removed_by", &self.by), ("reason", &self.message)] {
            if let Some(value) = value {
                body[member] = json!(value);
            }
        }
        let call = Call::new(Method::DELETE, ["permanent-fix", &target.key]).body(body);
        let answer = target.call(service, output, &call)?;
        if output.is_json() {
            output.print_json(&answer.body)?;
            note_waiting(&answer, output);
            return Ok(());
        }
        let unfix: Unfix = service.read(&answer)?;
        let done = match unfix.removed {
            Some(false) => "there was no mark to remove",
            _ => "mark removed",
        };
        report(&answer, done, &target, service, output)
    }
}

fn report(
    answer: &Answer,
    done: &str,
    target: &Target,
    service: &Service,
    output: Output,
) -> Result<(), Failure> {
    let (sign, style) = match answer.status {
        StatusCode::ACCEPTED => ("accepted, waiting for Redis: ", style::ALARM),
        _ => ("", style::GOOD),
    };
    let done = output.screen.styled(style, &format!("{sign}{done}"));
    output.print(&format!("{}{done}\n", target.heading(service, output)))
}

/// Notes on standard error that the write is not in the store yet.
fn note_waiting(answer: &Answer, output: Output) {
    if answer.status == StatusCode::ACCEPTED {
        output.note("accepted, waiting for Redis");
    }
}
