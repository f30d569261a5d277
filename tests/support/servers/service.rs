//! The service itself.

use std::process::Command;

use serde_json::Value;

/// The binary that cargo has built for this test or benchmark.
pub(crate) const SERVICE: &str = env!("CARGO_BIN_EXE_anomaly-counter");

/// Makes `command` serve on a port that Linux chooses, with more variables in its environment.
pub(crate) fn service_command(mut command: Command, environment: &[(String, String)]) -> Command {
    command.env("ANOMALY_COUNTER__LISTEN", "127.0.0.1:0");
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command
}

/// Returns the address on which a server listens, from its line in the log.
pub(crate) fn listening_address(log: &str) -> Option<String> {
    log.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|line| line["address"].as_str().map(str::to_owned))
}
