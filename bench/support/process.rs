//! Child processes that end with the tool, however it ends.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::Outcome;

const START_PATIENCE: Duration = Duration::from_secs(120);
/// Of all machines that Linux runs on here; `getconf PAGESIZE` tells.
const PAGE_BYTES: u64 = 4096;

/// A running program; killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` in `dir`, where its log goes, and waits until `is_ready`.
    ///
    /// Must be called from the main thread: the child is told to die with the thread that starts it.
    pub(crate) fn start(
        command: &mut Command,
        dir: &Path,
        mut is_ready: impl FnMut() -> bool,
    ) -> Outcome<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let log = dir.join("log");
        let file = File::create(&log)?;
        let child = ending_with_parent(command)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        let mut process = Self { name, child, log };
        let deadline = Instant::now() + START_PATIENCE;
        while !is_ready() {
            if process.child.try_wait()?.is_some() || Instant::now() > deadline {
                return Err(format!("{} does not start: {}", process.name, process.log()).into());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(process)
    }

    /// What it has in memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> Outcome<u64> {
        let pages = fs::read_to_string(format!("/proc/{}/statm", self.child.id()))?;
        let resident = pages.split_whitespace().nth(1).ok_or("no resident pages in statm")?;
        Ok(resident.parse::<u64>()? * PAGE_BYTES)
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kill();
    }
}

/// The same command, told to die with the thread that spawns it: `Drop` does not run when the tool
/// itself is killed. Done by a program of util-linux, since prctl(2) would be unsafe code.
pub(crate) fn ending_with_parent(command: &Command) -> Command {
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program());
    wrapped.args(command.get_args());
    wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    wrapped
}

/// What a program prints; an error where it fails.
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

/// A folder for one program's data. Beside the build and not in /tmp, which may be memory: an fsync
/// costs nothing there.
pub(crate) fn data_dir() -> io::Result<TempDir> {
    TempDir::with_prefix_in("bench-", env!("CARGO_TARGET_TMPDIR"))
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
