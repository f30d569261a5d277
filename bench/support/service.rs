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

/// The unit of stat(2), whatever the block size of the file system is.
const BLOCK_BYTES: u64 = 512;
const READY_POLL_INTERVAL: Duration = Duration::from_millis(2);

/// The store of a service.
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

    /// Starts the Redis of a service, if it has one.
    fn start(self) -> Outcome<Option<Rc<RedisServer>>> {
        match self {
            Self::Redis => Ok(Some(Rc::new(RedisServer::start()?))),
            Self::Embedded => Ok(None),
        }
    }
}

/// A running instance of the service with its own defaults.
#[derive(Debug)]
pub(crate) struct Service {
    // Declared first, so that it is dropped before the store.
    server: Listening,
    redis: Option<Rc<RedisServer>>,
    dir: TempDir,
}

impl Service {
    /// Starts an instance on an empty store of its own.
    pub(crate) fn on(store: Store) -> Outcome<Self> {
        Self::with(store.start()?, data_dir()?)
    }

    /// Starts an instance on an empty store of its own, with a configuration file.
    pub(crate) fn configured(store: Store, config: &str) -> Outcome<Self> {
        let dir = data_dir()?;
        let folder = dir.path().join("config");
        fs::create_dir(&folder)?;
        fs::write(folder.join("bench.toml"), config)?;
        Self::with(store.start()?, dir)
    }

    /// Starts another instance on the same Redis.
    pub(crate) fn sibling(&self) -> Outcome<Self> {
        Self::with(self.redis.clone(), data_dir()?)
    }

    fn with(redis: Option<Rc<RedisServer>>, dir: TempDir) -> Outcome<Self> {
        let server = start_service(redis.as_deref(), dir.path())?;
        // On the first call of a script the service assumes that Redis has lost it, and sends its
        // last writes again. That must happen before anything is measured.
        let mut connection = Connection::open(server.port)?;
        let first = Anomaly::new("first");
        connection.call(&post("/anomalies", &first.body()))?;
        connection.call(&get(&first.frequency_path()))?;
        Ok(Self { server, redis, dir })
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.port
    }

    /// The Redis of the service.
    pub(crate) fn redis(&self) -> Outcome<&RedisServer> {
        Ok(self.redis.as_deref().ok_or("the embedded store has no Redis")?)
    }

    pub(crate) fn resident_bytes(&self) -> Outcome<u64> {
        Ok(self.server.process.memory_bytes("VmRSS:")?)
    }

    /// The space of its files on the disk, in bytes. Their lengths would include holes.
    pub(crate) fn disk_bytes(&self) -> Outcome<u64> {
        let mut bytes = 0;
        for file in fs::read_dir(self.dir.path().join("data"))? {
            bytes += file?.metadata()?.blocks() * BLOCK_BYTES;
        }
        Ok(bytes)
    }

    /// Kills it, starts it again on the same data, and returns the time until it was ready.
    pub(crate) fn restart(&mut self) -> Outcome<Duration> {
        self.server.process.kill()?;
        let begun = Instant::now();
        self.server = start_service(self.redis.as_deref(), self.dir.path())?;
        Ok(begun.elapsed())
    }

    /// Fails if it is degraded or has counted fewer than `least` occurrences of `anomalies`.
    pub(crate) fn must_have_counted(&self, anomalies: &[Anomaly], least: u64) -> Outcome<()> {
        let mut connection = Connection::open(self.port())?;
        let ready = connection.ask(&get("/readyz"))?;
        if ready["status"] != "ready" {
            return Err(format!("the service was not ready: {ready}").into());
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

/// The server that answers without any data, or with counts that are made in the cheapest way.
#[derive(Debug)]
pub(crate) struct Ceiling {
    // Declared first, so that it is dropped before the store.
    server: Listening,
    _redis: Option<RedisServer>,
    _dir: TempDir,
}

impl Ceiling {
    /// Starts the server without data.
    pub(crate) fn start() -> Outcome<Self> {
        Self::with(None)
    }

    /// Starts the bare server on an empty Redis of its own, which keeps as many events of an
    /// anomaly as a list as the service has it.
    pub(crate) fn on_redis() -> Outcome<Self> {
        Self::with(Some(RedisServer::with(&["--zset-max-ziplist-entries".into(), "32".into()])?))
    }

    fn with(redis: Option<RedisServer>) -> Outcome<Self> {
        let program = Path::new(SERVICE).with_file_name("examples").join("ceiling");
        if !program.exists() {
            return Err(format!("{} is not built: use `make bench`", program.display()).into());
        }
        let dir = data_dir()?;
        let mut command = Command::new(program);
        command.args(["--listen", "127.0.0.1:0"]);
        if let Some(redis) = &redis {
            command.args(["--redis", &redis.url()]);
        }
        Ok(Self { server: Listening::start(&command, dir.path())?, _redis: redis, _dir: dir })
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
