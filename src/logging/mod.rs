//! Structured logs on standard error: for people on a terminal, JSON for machines.

#[cfg(test)]
mod captured;
mod pretty;
mod request_lines;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    env,
    io::{self, IsTerminal as _},
    panic::{self, PanicHookInfo},
    thread,
};

use serde::Deserialize;
use tracing_subscriber::{
    EnvFilter,
    filter::LevelFilter,
    fmt::{self, format::format},
    prelude::*,
};

use self::{pretty::pretty_fields, request_lines::RequestLines};
use crate::telemetry::{LogOutput, flush_log};

/// The section `log` of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// The form of the lines.
    pub format: LogFormat,
    /// The filter of the lines.
    pub level: LogLevel,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// A checked filter, as tracing's `EnvFilter` takes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct LogLevel(String);

impl TryFrom<String> for LogLevel {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let no_level = |why: &str| {
            format!("{text:?} is not a log level ({why}): use error, warn, info, debug or trace")
        };
        // tracing takes a bare word that is no level for the name of a module.
        let is_known = |directive: &str| {
            let level = directive.rsplit('=').next().unwrap_or_default();
            level.parse::<LevelFilter>().is_ok()
        };
        if !text.split(',').all(is_known) {
            return Err(no_level("an unknown word"));
        }
        match EnvFilter::try_new(&text) {
            Ok(_) => Ok(Self(text)),
            Err(error) => Err(no_level(&error.to_string())),
        }
    }
}

/// Returns whether lines have colours: on a terminal, unless <https://no-color.org> is followed.
fn is_coloured() -> bool {
    io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Silences libraries that log each failure of an outage, which the service logs once.
const QUIET: &str = "fred=off,";

/// Starts logging. Only the first call of a process has an effect.
pub fn start(config: &LogConfig) {
    let filter = EnvFilter::new(format!("{QUIET}{}", config.level.0));
    let is_json = match config.format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Pretty => false,
        LogFormat::Json => true,
    };
    let lines = fmt::layer().with_writer(|| LogOutput);
    let registry = tracing_subscriber::registry().with(filter);
    let started = if is_json {
        let form = RequestLines::of_json(format().json().flatten_event(true));
        registry.with(lines.json().event_format(form)).try_init()
    } else {
        let form = RequestLines::of_text(format().with_ansi(is_coloured()));
        registry.with(lines.event_format(form).fmt_fields(pretty_fields!())).try_init()
    };
    // It fails where a test of this process has started logging before.
    if started.is_ok() {
        panic::set_hook(Box::new(log_panic));
    }
}

/// Logs a panic as any other line: Rust's own hook would wait for a reader that stands still.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let thread = thread.name().unwrap_or_default();
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    let backtrace = backtrace.as_ref().map(tracing::field::display);
    tracing::error!(thread, backtrace, "a thread {panic}");
    // The process may end now.
    flush_log();
}
