//! The command line: the commands and their exit codes.

mod client;
mod completions;
mod key;
mod local;
mod recover;
mod rules;
mod spool;
mod streams;
mod token;

use std::{future::Future, io, path::PathBuf, pin::pin, process::ExitCode, time::Duration};

use clap::{CommandFactory as _, Parser, Subcommand};
use reqwest::Method;
use tokio::{runtime::Runtime, signal};

use self::{
    client::ClientCommand,
    completions::Shell,
    key::KeyCommand,
    local::{Local, innermost},
    rules::RulesCommand,
    spool::{SPOOL_TOKEN, SpoolCommand},
    streams::{errln, outln},
    token::TokenCommand,
};
use crate::{
    app::{Application, Prepared},
    config::{Config, DEFAULTS, LoadedConfig},
    logging,
    printable::Printable,
    telemetry::flush_log,
};

/// Counts how often an anomaly happens, and says when to stop restarting and fix the cause.
///
/// Without a command, it serves HTTP, by default on 127.0.0.1:8080 with its data in ./data.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct CommandLine {
    /// Read this TOML file instead of config/*.toml
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Client(ClientCommand),
    /// Print the completions of these commands for a shell
    #[command(after_help = completions::EXAMPLES)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Check the configuration, and print it with the origin of each value, secrets hidden
    CheckConfig {
        /// Also check whether Redis is reachable and accepts writes
        #[arg(long)]
        connect: bool,
    },
    /// Print every option with its default and an explanation, as a configuration file
    DefaultConfig,
    /// Print the key of an anomaly, computed with the section `key` of the configuration
    Key(KeyCommand),
    /// Test the rules that set the levels of some anomalies
    #[command(subcommand, after_help = rules::EXAMPLES)]
    Rules(RulesCommand),
    /// Replace a damaged file of the embedded store by a new one with all readable rows
    #[command(after_help = recover::WHAT_IT_DOES)]
    Recover,
    /// List, retry or drop the writes that Redis refused permanently (dead letters)
    #[command(subcommand, after_help = SPOOL_TOKEN)]
    Spool(SpoolCommand),
    /// Create a token, which authenticates a caller
    #[command(subcommand)]
    Token(TokenCommand),
    /// Check whether the running service accepts calls; exits with 0 if so, also in an outage of
    /// Redis, for containers
    #[command(after_help = HEALTHCHECK_TOKEN)]
    Healthcheck,
}

const HEALTHCHECK_TOKEN: &str = "\
This command needs no token, because /readyz requires none. It sends the token in the environment
variable ANOMALY_COUNTER_TOKEN, if there is one.";

const EXAMPLES: &str = "\
Try it:
  anomaly-counter &
  curl --json '{\"alert_name\":\"HighCPU\",\"service\":\"api\"}' http://127.0.0.1:8080/anomalies

Sources of configuration, later ones override earlier ones: built-in defaults, config/*.toml or
--config FILE, the environment. The variable for `url` in section `redis` is
ANOMALY_COUNTER__REDIS__URL:
  ANOMALY_COUNTER__LISTEN=127.0.0.1:9000 anomaly-counter
  ANOMALY_COUNTER__REDIS__URL=redis://127.0.0.1:6379 anomaly-counter
`anomaly-counter default-config` prints every option with its default and an explanation.";

/// Runs the command of this process' command line.
pub fn run() -> ExitCode {
    let CommandLine { config, command } = CommandLine::parse();
    let load = || LoadedConfig::load(config.as_deref()).map_err(Failure::from);
    let result = match command {
        Some(Command::Client(command)) => return client::run(&command, config.is_some()),
        Some(Command::Completions { shell }) => {
            completions::print(shell, &mut CommandLine::command()).map_err(Failure::from)
        }
        Some(Command::Key(command)) => load().and_then(|loaded| key::run(&command, &loaded.config)),
        Some(Command::CheckConfig { connect }) => {
            load().and_then(|loaded| check_config(&loaded, connect))
        }
        Some(Command::DefaultConfig) => {
            streams::print(DEFAULTS);
            Ok(())
        }
        Some(Command::Healthcheck) => load().and_then(|loaded| healthcheck(&loaded.config)),
        Some(Command::Rules(command)) => {
            load().and_then(|loaded| rules::run(&command, &loaded.config))
        }
        Some(Command::Recover) => load().and_then(|loaded| recover::run(&loaded.config)),
        Some(Command::Spool(command)) => {
            load().and_then(|loaded| Runtime::new()?.block_on(spool::run(command, &loaded.config)))
        }
        Some(Command::Token(command)) => {
            token::run(&command);
            Ok(())
        }
        None => load().and_then(|loaded| serve(&loaded.config)),
    };
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            errln!("anomaly-counter: {}", Printable(error));
            ExitCode::FAILURE
        }
    };
    flush_log();
    code
}

type Failure = Box<dyn std::error::Error>;

fn serve(config: &Config) -> Result<(), Failure> {
    logging::start(&config.log);
    let (prepared, traces) = Prepared::new(config)?;
    let runtime = Runtime::new()?;
    let served = runtime.block_on(async {
        let mut stop = pin!(stop_signal()?);
        let _listening = signal::unix::signal(SIGXFSZ)?;
        let hangups = signal::unix::signal(signal::unix::SignalKind::hangup())?;
        let application = tokio::select! {
            built = Application::build(config, prepared) => built?,
            () = &mut stop => {
                tracing::info!("stopped before the service was ready");
                return Ok(());
            }
        };
        application.run(stop, hangups).await;
        Ok(())
    });
    // A disk that does not respond must not delay the exit.
    runtime.shutdown_timeout(END_TIMEOUT);
    traces.end();
    served
}

/// Prints the configuration, and fails if the service could not start with it. The report about
/// Redis is a comment, so that the output is a valid configuration file.
fn check_config(loaded: &LoadedConfig, connect: bool) -> Result<(), Failure> {
    streams::print(&loaded.to_string());
    logging::start(&loaded.config.log);
    let (prepared, traces) = Prepared::new(&loaded.config)?;
    streams::print(&rules::listed(prepared.rules().in_force().set()));
    prepared.try_store(&loaded.config)?;
    if connect {
        match Runtime::new()?.block_on(prepared.examine_redis()) {
            Some(report) => outln!("# {}", Printable(report?)),
            None => outln!("# `redis.url` is not set: there is no Redis to connect to"),
        }
    }
    traces.end();
    Ok(())
}

/// Maximum time that the process waits for its threads when it exits.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// A write beyond the limit of file size must fail like one on a full disk. Without a handler for
/// this signal, it would end the process. The number is the same on Linux and macOS; tokio has no
/// name for it.
const SIGXFSZ: signal::unix::SignalKind = signal::unix::SignalKind::from_raw(25);

/// Returns a future that completes at the first SIGTERM or Ctrl-C.
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminated = signal::unix::signal(signal::unix::SignalKind::terminate())?;
    let mut interrupted = signal::unix::signal(signal::unix::SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
    })
}

fn healthcheck(config: &Config) -> Result<(), Failure> {
    let local = Local::of(config)?;
    let url = local.url("/readyz");
    let asked = async {
        let answer = local.send(Method::GET, "/readyz").await?;
        Ok::<_, reqwest::Error>((answer.status(), answer.text().await?))
    };
    let (status, body) = Runtime::new()?.block_on(asked).map_err(|error| {
        let cause = innermost(&error);
        format!("{url} does not respond ({cause}): is the service running, with the same `listen`?")
    })?;
    outln!("{}", Printable(body.trim_end()));
    if status.is_success() { Ok(()) } else { Err(format!("{url} returns {status}").into()) }
}
