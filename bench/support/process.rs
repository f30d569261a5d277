//! Programs that end with the tool, and the folders in which they keep their data.

use std::{
    ffi::OsStr,
    io,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    Outcome,
    servers::{
        process::{Process, START_TIMEOUT, ending_with_parent},
        service::listening_address,
    },
};

const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// A server and the port on which it listens.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) process: Process,
    pub(crate) port: u16,
}

impl Listening {
    /// Starts a server in `dir`, and waits until its log says where it listens.
    ///
    /// Must be called from the main thread: the server ends with the thread that starts it.
    pub(crate) fn start(command: &Command, dir: &Path) -> Outcome<Self> {
        let mut process = Process::spawn_with_parent(command, dir)?;
        let deadline = Instant::now() + START_TIMEOUT;
        let address = loop {
            if let Some(address) = listening_address(&process.log()) {
                break address;
            }
            process.must_be_starting(deadline)?;
            thread::sleep(POLL_INTERVAL);
        };
        let (_, port) = address.rsplit_once(':').ok_or("an address without a port")?;
        Ok(Self { process, port: port.parse()? })
    }
}

/// Returns the output of a program; an error if it fails.
pub(crate) fn output(program: impl AsRef<OsStr>, arguments: &[&str]) -> Outcome<String> {
    let program = program.as_ref();
    let output = ending_with_parent(Command::new(program).args(arguments)).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} has failed: {text}{error}", program.display()).into());
    }
    Ok(text)
}

/// Creates a folder for one program's data, beside the build. In /tmp, which may be memory, an
/// fsync could cost nothing.
pub(crate) fn data_dir() -> io::Result<TempDir> {
    TempDir::with_prefix_in("bench-", env!("CARGO_TARGET_TMPDIR"))
}
