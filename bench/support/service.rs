//! The servers under load: the service on either store, and the ceiling.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    Outcome,
    http::{Connection, get, post},
    process::{Process, data_dir, free_port},
    redis::{RedisServer, START_ATTEMPTS},
    workload::Anomaly,
};

const SERVICE: &str = env!("CARGO_BIN_EXE_anomaly-counter");

/// In which stat(2) counts, whatever the file system's own are.
const BLOCK_BYTES: u64 = 512;

/// What the service stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Redis,
    Embedded,
}

impl Store {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Embedded => "embedded",
        }
    }
}

/// A running instance of the service, as released, with its own defaults.
#[derive(Debug)]
pub(crate) struct Service {
    port: u16,
    // Ends before what it stands on.
    process: Process,
    redis: Option<Rc<RedisServer>>,
    dir: TempDir,
}

impl Service {
    /// On an empty store of its own.
    pub(crate) fn on(store: Store) -> Outcome<Self> {
        let redis = match store {
            Store::Redis => Some(Rc::new(RedisServer::start()?)),
            Store::Embedded => None,
        };
        Self::with(redis, data_dir()?)
    }

    /// Another instance on the same Redis.
    pub(crate) fn sibling(&self) -> Outcome<Self> {
        Self::with(self.redis.clone(), data_dir()?)
    }

    fn with(redis: Option<Rc<RedisServer>>, dir: TempDir) -> Outcome<Self> {
        let url = redis.as_ref().map(|redis| redis.url());
        let (port, process) = start(|port| service_command(port, url.as_deref()), dir.path())?;
        // A script that Redis meets for the first time looks like one that it has forgotten, and has
        // the service send its last writes again: that is to happen before anything is measured.
        let mut connection = Connection::open(port)?;
        let first = Anomaly::new("first");
        connection.call(&post("/anomalies", &first.body()))?;
        connection.call(&get(&first.frequency_path()))?;
        Ok(Self { port, process, redis, dir })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The Redis that it stands on.
    pub(crate) fn redis(&self) -> Outcome<&RedisServer> {
        Ok(self.redis.as_deref().ok_or("the embedded store has no Redis")?)
    }

    pub(crate) fn resident_bytes(&self) -> Outcome<u64> {
        self.process.resident_bytes()
    }

    /// What its files take of the disk, in bytes. Not their lengths: a file may have holes.
    pub(crate) fn disk_bytes(&self) -> Outcome<u64> {
        let mut bytes = 0;
        for file in fs::read_dir(self.dir.path().join("data"))? {
            bytes += file?.metadata()?.blocks() * BLOCK_BYTES;
        }
        Ok(bytes)
    }

    /// Ends it without warning, starts it again on the same data, and gives the time until it was ready.
    pub(crate) fn restart(&mut self) -> Outcome<Duration> {
        self.process.kill()?;
        let begun = Instant::now();
        let url = self.redis.as_ref().map(|redis| redis.url());
        let (port, process) = start(|port| service_command(port, url.as_deref()), self.dir.path())?;
        (self.port, self.process) = (port, process);
        Ok(begun.elapsed())
    }

    /// Makes sure that it has not been degraded, and has counted `least` occurrences of `anomalies`.
    pub(crate) fn must_have_counted(&self, anomalies: &[Anomaly], least: u64) -> Outcome<()> {
        let mut connection = Connection::open(self.port)?;
        let ready = connection.ask(&get("/readyz"))?;
        if ready["status"] != "ready" {
            return Err(format!("the service was not well: {ready}").into());
        }
        let mut counted = 0;
        for anomaly in anomalies {
            let frequency = connection.ask(&get(&anomaly.frequency_path()))?;
            counted += frequency["count_30d"].as_u64().unwrap_or_default();
        }
        if counted < least {
            let lost = format!("{least} occurrences were acknowledged, {counted} are counted");
            return Err(lost.into());
        }
        Ok(())
    }
}

/// The server that answers from nothing.
#[derive(Debug)]
pub(crate) struct Ceiling {
    port: u16,
    _process: Process,
    _dir: TempDir,
}

impl Ceiling {
    pub(crate) fn start() -> Outcome<Self> {
        let program = Path::new(SERVICE).with_file_name("examples").join("ceiling");
        if !program.exists() {
            return Err(format!("{} is not built: use `make bench`", program.display()).into());
        }
        let dir = data_dir()?;
        let (port, process) = start(|port| ceiling_command(&program, port), dir.path())?;
        Ok(Self { port, _process: process, _dir: dir })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

fn service_command(port: u16, redis_url: Option<&str>) -> Command {
    let mut command = Command::new(SERVICE);
    command.env("ANOMALY_COUNTER__LISTEN", format!("127.0.0.1:{port}"));
    command.env("ANOMALY_COUNTER__REDIS__URL", redis_url.unwrap_or_default());
    command
}

fn ceiling_command(program: &PathBuf, port: u16) -> Command {
    let mut command = Command::new(program);
    command.args(["--listen", &format!("127.0.0.1:{port}")]);
    command
}

/// Starts a server on a free port; on another one where that was taken meanwhile.
fn start(command: impl Fn(u16) -> Command, dir: &Path) -> Outcome<(u16, Process)> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let port = free_port()?;
        match Process::start(&mut command(port), dir, || answers(port)) {
            Err(_) if attempts < START_ATTEMPTS => {}
            started => return Ok((port, started?)),
        }
    }
}

/// Whether a server is ready. The ceiling, which has no `/readyz`, is so once it listens.
fn answers(port: u16) -> bool {
    let Ok(mut connection) = Connection::open(port) else { return false };
    match connection.call(&get("/readyz")) {
        Ok(_) => true,
        Err(error) => error.to_string().contains("404"),
    }
}
