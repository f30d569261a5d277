//! One child process: its output goes to a file, and it is killed when it is dropped.

use std::{
    fs::{self, File},
    io,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Maximum time of a server's start. An idle machine needs less than a second.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Range of ports, below that from which Linux takes the ports of outgoing connections: a client
/// that keeps trying to reach a stopped server must not get the server's own port.
const PORTS: std::ops::Range<u16> = 18_000..32_000;
/// Number of ports that are tried if another process takes the chosen one first.
const START_ATTEMPTS: usize = 10;

/// A running program.
#[derive(Debug)]
pub(crate) struct Process {
    program: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` in `dir`, with no input and its output in a file there.
    pub(crate) fn spawn(command: &mut Command, dir: &Path) -> io::Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let log = dir.join("log");
        let file = File::create(&log)?;
        let spawned = command
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn();
        let child = spawned.map_err(|error| {
            io::Error::other(format!(
                "{program} can't be started: {error}. tests/install-programs.sh installs it"
            ))
        })?;
        Ok(Self { program, child, log })
    }

    /// Starts `command` so that it also ends when this thread ends for any reason.
    pub(crate) fn spawn_with_parent(command: &Command, dir: &Path) -> io::Result<Self> {
        let mut process = Self::spawn(&mut ending_with_parent(command), dir)?;
        process.program = command.get_program().to_string_lossy().into_owned();
        Ok(process)
    }

    /// Blocks until `is_ready`; fails when the process ends or takes longer than [`START_TIMEOUT`].
    pub(crate) fn wait_until(&mut self, mut is_ready: impl FnMut(&Self) -> bool) -> io::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while !is_ready(self) {
            self.must_be_starting(deadline)?;
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Fails when the process has ended or `deadline` has passed.
    pub(crate) fn must_be_starting(&mut self, deadline: Instant) -> io::Result<()> {
        if self.ended()?.is_none() && Instant::now() < deadline {
            return Ok(());
        }
        Err(io::Error::other(format!("{} does not start: {}", self.program, self.log())))
    }

    /// Returns the exit status, if the process has ended.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends the process at once, as a power cut would.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Sends a signal, named as `kill` names it: `-TERM`.
    pub(crate) fn signal(&self, signal: &str) -> io::Result<()> {
        let status = Command::new("kill").args([signal, &self.id().to_string()]).status()?;
        if status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("{} does not take {signal}", self.program)))
    }

    /// Returns one of the memory sizes in proc_pid_status(5), such as `VmRSS:`, in bytes.
    pub(crate) fn memory_bytes(&self, size: &str) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find(|line| line.starts_with(size));
        let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        Ok(kilobytes.ok_or_else(|| io::Error::other(format!("no {size} in {status}")))? * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kill();
        if thread::panicking() {
            eprintln!("--- the log of {} ---\n{}", self.program, self.log());
        }
    }
}

/// Returns the same command, killed by Linux when the thread that starts it ends: `Drop` does not
/// run in a tool that is killed itself. setpriv(1) is used because a call of prctl(2) would be
/// unsafe code.
pub(crate) fn ending_with_parent(command: &Command) -> Command {
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program());
    wrapped.args(command.get_args());
    wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    wrapped
}

/// Returns true if something accepts connections on a port of 127.0.0.1.
pub(crate) fn listens_on(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// Returns different ports of 127.0.0.1 on which nothing listens at this moment.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    let mut listeners = Vec::new();
    while listeners.len() < count {
        let port = rand::random_range(PORTS);
        listeners.extend(TcpListener::bind(("127.0.0.1", port)));
    }
    let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
    listeners.iter().flat_map(port).collect()
}

/// Calls `start` with a free port. Another process may take the port before `start` does, so a
/// failure is tried again with another port.
pub(crate) fn on_free_port<T>(mut start: impl FnMut(u16) -> io::Result<T>) -> io::Result<T> {
    let mut attempts = 1;
    loop {
        match start(free_ports(1)[0]) {
            Err(_) if attempts < START_ATTEMPTS => attempts += 1,
            started => return started,
        }
    }
}
