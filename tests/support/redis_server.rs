//! A Redis of a test's own: a real `redis-server` on a free port, killed with the test.

use std::{fs, io, path::Path};

use tempfile::TempDir;

use super::servers::{
    process::{Process, on_free_port},
    redis::{redis_command, start_redis},
};

/// Stands for the server's port in its options.
const PORT: &str = "{port}";

pub(crate) struct RedisServer {
    port: u16,
    dir: TempDir,
    options: Vec<String>,
    /// Absent while it is stopped.
    process: Option<Process>,
}

impl RedisServer {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server that listens with TLS instead of plain TCP.
    pub(crate) fn start_tls(options: &[(&str, &str)]) -> Self {
        let mut all = vec!["--port", "0", "--tls-port", PORT];
        all.extend(options.iter().flat_map(|(name, value)| [*name, *value]));
        Self::start_with(&all)
    }

    /// Starts a server with more options, in which [`PORT`] is replaced by the server's port.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        let started = on_free_port(|port| {
            let with_port = |option: &&str| option.replace(PORT, &port.to_string());
            Self::start_on(port, TempDir::new()?, options.iter().map(with_port).collect())
        });
        started.unwrap()
    }

    /// Starts a server on a port. Fails if another process has the port.
    pub(super) fn start_on(port: u16, dir: TempDir, options: Vec<String>) -> io::Result<Self> {
        let mut server = Self { port, dir, options, process: None };
        server.try_restart()?;
        Ok(server)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends the process at once. Its data are lost, except for those that it saved.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Starts the process again on the same port.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.try_restart().unwrap();
    }

    /// Starts it again without anything that it had saved.
    pub(crate) fn restart_empty(&mut self) {
        self.kill();
        self.dir = TempDir::new().unwrap();
        self.restart();
    }

    /// Starts it again with the data of a snapshot (`dump.rdb`) and nothing else.
    pub(crate) fn restart_with_snapshot(&mut self, snapshot: &Path) {
        self.kill();
        self.dir = TempDir::new().unwrap();
        fs::copy(snapshot, self.dir.path().join("dump.rdb")).unwrap();
        self.restart();
    }

    /// Stops the process with SIGSTOP, so that it does not answer but its connections stay open.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn try_restart(&mut self) -> io::Result<()> {
        let mut command = redis_command(self.port, &self.options);
        let process = Process::spawn(&mut command, self.dir.path())?;
        self.process = Some(start_redis(process)?);
        Ok(())
    }

    fn signal(&self, signal: &str) {
        self.process.as_ref().unwrap().signal(signal).unwrap();
    }
}
