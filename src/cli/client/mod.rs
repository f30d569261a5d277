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
use crate::{cli::streams::errln, counter::SystemClock, printable::Printable};

/// The commands that call a running service.
#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// List the most frequent anomalies, or those that words and options select
    #[command(after_help = help(top::EXAMPLES))]
    Top {
        #[command(flatten)]
        command: Box<TopCommand>,
        #[command(flatten)]
        service: ServiceOptions,
    },
    /// Show all details of an anomaly
    #[command(after_help = help(SHOW_EXAMPLES))]
    Show {
        #[command(flatten)]
        target: TargetArguments,
        #[command(flatten)]
        service: ServiceOptions,
    },
    /// Show the occurrences of an anomaly over time, its levels, and the repairs and marks
    #[command(after_help = help(HISTORY_EXAMPLES))]
    History {
        #[command(flatten)]
        command: HistoryCommand,
        #[command(flatten)]
        service: ServiceOptions,
    },
    /// Show the repair attempts on an anomaly, and which of them worked
    #[command(after_help = help(""))]
    Repairs {
        #[command(flatten)]
        target: TargetArguments,
        #[command(flatten)]
        service: ServiceOptions,
    },
    /// Show who changed what about an anomaly
    #[command(after_help = help(""))]
    Audit {
        #[command(flatten)]
        target: TargetArguments,
        #[command(flatten)]
        service: ServiceOptions,
    },
    /// Mark the cause of an anomaly as fixed, so that a later occurrence is reported as a
    /// regression
    #[command(after_help = help(FIX_EXAMPLES))]
    Fix {
        #[command(flatten)]
        command: FixCommand,
        #[command(flatten)]
        service: ServiceOptions,
    },
    /// Remove the mark that the cause of an anomaly is fixed
    #[command(after_help = help(""))]
    Unfix {
        #[command(flatten)]
        command: UnfixCommand,
        #[command(flatten)]
        service: ServiceOptions,
    },
}

const SHOW_EXAMPLES: &str = "\
Select an anomaly by its key, by the labels of an alert, or by words:
  anomaly-counter show 6a0d01fd615acb3c
  anomaly-counter show alertname=HighCPU job=api namespace=shop
  anomaly-counter show highcpu api";

const HISTORY_EXAMPLES: &str = "\
Show the last week, with one bar per hour:
  anomaly-counter history --window 7d --step 1h HighCPU api
Print one line per hour, for a spreadsheet:
  anomaly-counter history --window 7d --step 1h HighCPU api | cat";

const FIX_EXAMPLES: &str = "\
If the service requires tokens, this command needs the scope `operate`, and to find the anomaly by
words or fields also `read`:
  anomaly-counter fix 6a0d01fd615acb3c -m 'raised the CPU limit' --by ana";

/// Returns the end of a command's help: examples, then the text that all of these commands share.
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

/// Runs a command. `has_config` is true if the command line names a configuration of the service,
/// which the client does not read.
pub(super) fn run(command: &ClientCommand, has_config: bool) -> ExitCode {
    let mut output = Output::of_standard_output(SystemClock.now());
    let result = if has_config { Err(foreign_config()) } else { ask(command, &mut output) };
    let Err(failure) = result else { return ExitCode::SUCCESS };
    if let (true, Some(body)) = (output.is_json(), failure.body()) {
        // Where it can't be printed, the failure below says enough.
        let _ = output.print_json(body);
    }
    errln!("anomaly-counter: {}", Printable(&failure));
    for line in failure.near() {
        errln!("  {}", Printable(line));
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
        "--config is the configuration of the service, which this command does not read: use --url \
         or client.toml (see --help)"
            .to_owned(),
    )
}
