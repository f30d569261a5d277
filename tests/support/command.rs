//! The binary as a command that ends by itself.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use super::servers::service::SERVICE;

/// The output and the status of a command that has ended.
pub(crate) struct Ended {
    is_success: bool,
    /// Absent if a signal has ended it.
    code: Option<i32>,
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
            code: output.status.code(),
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

    #[track_caller]
    pub(crate) fn ended_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.printed());
        self
    }

    /// Returns its standard output, then its standard error.
    pub(crate) fn printed(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Returns the command `anomaly-counter` with these arguments.
pub(crate) fn anomaly_counter(arguments: &[&str]) -> Command {
    let mut command = Command::new(SERVICE);
    command.args(arguments);
    command
}

/// Runs the binary in a folder, on a terminal of its own with this many columns, and returns
/// everything that is printed there.
pub(crate) fn on_a_terminal(
    dir: &Path,
    columns: usize,
    arguments: &str,
    environment: &[(&str, &str)],
) -> String {
    let mut command = Command::new("script");
    let line = format!("stty cols {columns} rows 40; {SERVICE} {arguments}");
    command.args(["-qec", &line, "/dev/null"]).current_dir(dir).stdin(Stdio::null());
    let output = command.env_remove("NO_COLOR").envs(environment.iter().copied()).output();
    String::from_utf8(output.expect("script(1) is in bsdutils").stdout).unwrap()
}
