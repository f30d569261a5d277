//! The binary as a command that ends by itself.

use std::process::Command;

use super::servers::service::SERVICE;

/// What a command has printed, and whether it went well.
pub(crate) struct Ended {
    is_success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Runs a command to its end.
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            is_success: output.status.success(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert!(self.is_success, "{}", self.printed());
        self
    }

    #[track_caller]
    pub(crate) fn failed(self) -> Self {
        assert!(!self.is_success, "{}", self.printed());
        self
    }

    /// Its standard output, then its standard error.
    pub(crate) fn printed(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// `anomaly-counter` with these arguments.
pub(crate) fn anomaly_counter(arguments: &[&str]) -> Command {
    let mut command = Command::new(SERVICE);
    command.args(arguments);
    command
}
