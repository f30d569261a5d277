//! The commands that ask a running service about anomalies, for people at a terminal and for
//! scripts. They call the HTTP API as any client does, and read nothing of the service's own
//! configuration.
//!
//! Imports in here run `screen → answers → failure → settings → service → output → list → target →`
//! the commands.

mod answers;
mod audit;
mod failure;
mod fix;
mod history;
mod history_chart;
mod list;
mod output;
mod repairs;
mod screen;
mod service;
mod settings;
mod show;
mod target;
mod top;

use std::process::ExitCode;

use clap::Subcommand;

use self::{
    failure::{EXIT_CODES, Failure},
    fix::{FixCommand, UnfixCommand},
    history::HistoryCommand,
    output::Output,
    service::Service,
    settings::{CONFIGURATION, ServiceOptions, Settings},
    target::TargetArguments,
    top::TopCommand,
};
use crate::{counter::SystemClock, printable::Printable};

/// The commands that call a running service.
#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// List the anomalies that matter most now, or those that are asked for
    #[command(after_help = help(top::EXAMPLES))]
    Top {
        #[command(flatten)]
        command: Box<TopCommand>,
        #[command(flatten)]
        service: ServiceOptions,
    },
    /// Show everything that is known of an anomaly
    #[command(after_help = help(SHOW_EXAMPLES))]
    Show {
        #[command(flatten)]
        target: TargetArguments,
        #[command(flatten)]
        service: ServiceOptions,
    },
    /// Show how often an anomaly has occurred over time, its levels, and what was done about it
    #[command(after_help = help(HISTORY_EXAMPLES))]
    History {
        #[command(flatten)]
        command: HistoryCommand,
        #[command(flatten)]
        service: ServiceOptions,
    },
    /// Show which automatic repairs were tried on an anomaly, and which of them work
    #[command(after_help = help(""))]
    Repairs {
        #[command(flatten)]
        target: TargetArguments,
        #[command(flatten)]
        service: ServiceOptions,
    },
    /// Show who has changed what about an anomaly
    #[command(after_help = help(""))]
    Audit {
        #[command(flatten)]
        target: TargetArguments,
        #[command(flatten)]
        service: ServiceOptions,
    },
    /// Mark the cause of an anomaly as fixed: it is loud when it comes back
    #[command(after_help = help(FIX_EXAMPLES))]
    Fix {
        #[command(flatten)]
        command: FixCommand,
        #[command(flatten)]
        service: ServiceOptions,
    },
    /// Take back the mark that the cause of an anomaly is fixed
    #[command(after_help = help(""))]
    Unfix {
        #[command(flatten)]
        command: UnfixCommand,
        #[command(flatten)]
        service: ServiceOptions,
    },
}

const SHOW_EXAMPLES: &str = "\
An anomaly by its key, by the labels of an alert, by words:
  anomaly-counter show 6a0d01fd615acb3c
  anomaly-counter show alertname=HighCPU job=api namespace=shop
  anomaly-counter show highcpu api";

const HISTORY_EXAMPLES: &str = "\
What has happened in the last week, an hour a bar?
  anomaly-counter history --window 7d --step 1h HighCPU api
For a spreadsheet, a line an hour:
  anomaly-counter history --window 7d --step 1h HighCPU api | cat";

const FIX_EXAMPLES: &str = "\
Where the service requires tokens, it takes one with the scope `operate`; to find the anomaly by
words or fields, the scope `read` too:
  anomaly-counter fix 6a0d01fd615acb3c -m 'raised the CPU limit' --by ana";

/// Returns the end of a command's help: examples, then what all of these commands share.
fn help(examples: &str) -> String {
    let parts = [examples, CONFIGURATION, EXIT_CODES].into_iter().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("\n\n")
}

impl ClientCommand {
    fn service(&self) -> &ServiceOptions {
        match self {
            Self::Top { service, .. }
            | Self::Show { service, .. }
            | Self::History { service, .. }
            | Self::Repairs { service, .. }
            | Self::Audit { service, .. }
            | Self::Fix { service, .. }
            | Self::Unfix { service, .. } => service,
        }
    }

    fn call(&self, service: &Service, output: Output) -> Result<(), Failure> {
        match self {
            Self::Top { command, .. } => command.run(service, output),
            Self::Show { target, .. } => show::run(target, service, output),
            Self::History { command, .. } => command.run(service, output),
            Self::Repairs { target, .. } => repairs::run(target, service, output),
            Self::Audit { target, .. } => audit::run(target, service, output),
            Self::Fix { command, .. } => command.run(service, output),
            Self::Unfix { command, .. } => command.run(service, output),
        }
    }
}

/// Runs a command. `has_config` says that a configuration of the service is named, which is none of
/// the client's.
pub(super) fn run(command: &ClientCommand, has_config: bool) -> ExitCode {
    let mut output = Output::of_standard_output(SystemClock.now());
    let result = if has_config { Err(foreign_config()) } else { ask(command, &mut output) };
    let Err(failure) = result else { return ExitCode::SUCCESS };
    if let (true, Some(body)) = (output.is_json(), failure.body()) {
        // Where it can't be printed, the failure below says enough.
        let _ = output.print_json(body);
    }
    eprintln!("anomaly-counter: {}", Printable(&failure));
    for line in failure.near() {
        eprintln!("  {}", Printable(line));
    }
    ExitCode::from(failure.exit_code())
}

fn ask(command: &ClientCommand, output: &mut Output) -> Result<(), Failure> {
    let settings = Settings::gather(command.service())?;
    output.format = settings.output;
    let service = Service::new(settings)?;
    command.call(&service, *output)
}

fn foreign_config() -> Failure {
    Failure::Misuse(
        "--config is the configuration of the service, which this command does not read: give \
         --url, or write client.toml (see --help)"
            .to_owned(),
    )
}
