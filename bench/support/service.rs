//! The servers under load: the service on either store, and the ceiling.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::Command,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    Outcome,
    http::{Connection, get, post},
    process::{Listening, data_dir},
    redis::RedisServer,
    servers::{
        process::START_TIMEOUT,
        service::{SERVICE, service_command},
    },
    workload::Anomaly,
};

/// In which stat(2) counts, whatever the file system's own are.
const BLOCK_BYTES: u64 = 512;
const READY_POLL_INTERVAL: Duration = Duration::from_millis(2);

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
    // Ends before what it stands on.
    server: Listening,
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
        let server = start_service(redis.as_deref(), dir.path())?;
        // A script that Redis meets for the first time looks like one that it has forgotten, and has
        // the service send its last writes again: that is to happen before anything is measured.
        let mut connection = Connection::open(server.port)?;
        let first = Anomaly::new("first");
        connection.call(&post("/anomalies", &first.body()))?;
        connection.call(&get(&first.frequency_path()))?;
        Ok(Self { server, redis, dir })
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.port
    }

    /// The Redis that it stands on.
    pub(crate) fn redis(&self) -> Outcome<&RedisServer> {
        Ok(self.redis.as_deref().ok_or("the embedded store has no Redis")?)
    }

    pub(crate) fn resident_bytes(&self) -> Outcome<u64> {
        Ok(self.server.process.memory_bytes("VmRSS:")?)
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
        self.server.process.kill()?;
        let begun = Instant::now();
        self.server = start_service(self.redis.as_deref(), self.dir.path())?;
        Ok(begun.elapsed())
    }

    /// Makes sure that it has not been degraded, and has counted `least` occurrences of `anomalies`.
    pub(crate) fn must_have_counted(&self, anomalies: &[Anomaly], least: u64) -> Outcome<()> {
        let mut connection = Connection::open(self.port())?;
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
    server: Listening,
    _dir: TempDir,
}

impl Ceiling {
    pub(crate) fn start() -> Outcome<Self> {
        let program = Path::new(SERVICE).with_file_name("examples").join("ceiling");
        if !program.exists() {
            return Err(format!("{} is not built: use `make bench`", program.display()).into());
        }
        let dir = data_dir()?;
        let mut command = Command::new(program);
        command.args(["--listen", "127.0.0.1:0"]);
        Ok(Self { server: Listening::start(&command, dir.path())?, _dir: dir })
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.port
    }
}

/// Starts the service, and waits until it is ready.
fn start_service(redis: Option<&RedisServer>, dir: &Path) -> Outcome<Listening> {
    let url = redis.map(RedisServer::url).unwrap_or_default();
    let environment = [("ANOMALY_COUNTER__REDIS__URL".to_owned(), url)];
    let command = service_command(Command::new(SERVICE), &environment);
    let mut server = Listening::start(&command, dir)?;
    let deadline = Instant::now() + START_TIMEOUT;
    while !is_ready(server.port) {
        server.process.must_be_starting(deadline)?;
        thread::sleep(READY_POLL_INTERVAL);
    }
    Ok(server)
}

fn is_ready(port: u16) -> bool {
    Connection::open(port).is_ok_and(|mut connection| connection.call(&get("/readyz")).is_ok())
}
