//! The load generator: `wrk`, with the same number of threads for all servers, and with requests
//! that are rendered before its clock starts.

use std::{
    fmt, fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::{Outcome, markdown::grouped, process::data_dir, servers::process::ending_with_parent};

/// Number of threads: one saturates the servers on a small machine, and leaves them most of it.
const THREADS: &str = "1";
const SCRIPT: &str = include_str!("wrk.lua");

/// Requests that are sent repeatedly, in random order.
#[derive(Debug)]
pub(crate) struct Requests {
    method: &'static str,
    dir: TempDir,
}

impl Requests {
    /// Creates requests to `POST /anomalies`, one with each of `bodies`.
    pub(crate) fn post(bodies: impl IntoIterator<Item = String>) -> Outcome<Self> {
        Self::write("POST", bodies)
    }

    /// Creates requests to `GET` each of `paths`.
    pub(crate) fn get(paths: impl IntoIterator<Item = String>) -> Outcome<Self> {
        Self::write("GET", paths)
    }

    fn write(method: &'static str, lines: impl IntoIterator<Item = String>) -> Outcome<Self> {
        let dir = data_dir()?;
        let lines: Vec<String> = lines.into_iter().collect();
        fs::write(dir.path().join("requests"), lines.join("\n"))?;
        fs::write(dir.path().join("wrk.lua"), SCRIPT)?;
        Ok(Self { method, dir })
    }

    /// Sends the requests over a number of connections for a window of whole seconds.
    pub(crate) fn send(&self, port: u16, connections: u16, window: Duration) -> Outcome<Load> {
        self.begin(port, connections, window)?.end()
    }

    /// Starts to send the requests, and does not wait for the end.
    pub(crate) fn begin(&self, port: u16, connections: u16, window: Duration) -> Outcome<UnderWay> {
        let (connections, seconds) = (connections.to_string(), window.as_secs());
        let mut command = Command::new("wrk");
        command
            .args(["-t", THREADS, "-c", &connections, "-d", &format!("{seconds}s")])
            .args(["--timeout", "30s", "-s"])
            .arg(self.file("wrk.lua"))
            .arg(format!("http://127.0.0.1:{port}"))
            .args(["--", self.method])
            .arg(self.file("requests"));
        let mut command = ending_with_parent(&command);
        Ok(UnderWay(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// A run of `wrk`.
#[derive(Debug)]
pub(crate) struct UnderWay(Child);

impl UnderWay {
    /// Waits for the results of the run.
    ///
    /// # Errors
    /// If any request has failed: a refusal is cheap, and would count as speed.
    pub(crate) fn end(self) -> Outcome<Load> {
        let output = self.0.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let figures = text.lines().find(|line| line.starts_with('{')).ok_or_else(|| {
            format!("wrk gave no figures: {text}{}", String::from_utf8_lossy(&output.stderr))
        })?;
        let load: Load = serde_json::from_str(figures)?;
        if load.refused + load.broken > 0 || load.requests == 0 {
            return Err(format!("some requests failed: {load:?}").into());
        }
        Ok(load)
    }
}

/// The results of a window of load.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Load {
    pub(crate) requests: u64,
    seconds: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    refused: u64,
    broken: u64,
}

impl Load {
    pub(crate) fn per_second(&self) -> f64 {
        self.requests as f64 / self.seconds
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50_ms, p99_ms) = (self.p50_us / 1_000.0, self.p99_us / 1_000.0);
        let rate = grouped(self.per_second());
        write!(f, "{rate}/s, p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms")
    }
}
