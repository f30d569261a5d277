//! The connections to one server, or to the master that a Sentinel names. Keeps trying to connect,
//! replaces a connection that has fallen silent, and loads a script that the server has forgotten.

use std::{future::Future, mem, num::NonZeroU32, sync::Arc, time::Duration};

use fred::{
    clients::{Client as Connection, Pool},
    error::Error,
    interfaces::{ClientLike as _, EventInterface as _},
    types::{
        ClusterHash, ConnectHandle, CustomCommand, Value,
        config::{
            Config, ConnectionConfig, PerformanceConfig, ReconnectPolicy, Server, ServerConfig,
            TcpConfig,
        },
    },
};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::{
    sync::{broadcast, watch},
    task::JoinHandle,
    time::Instant,
};

use super::{
    config::{RedisConfig, RedisUrl},
    fault::Declined,
    script::{Call, SeenScripts},
    tls::RedisTlsError,
};
use crate::store::StoreError;

/// The pause between two attempts to connect grows from the first to the second.
const RECONNECT_MIN_MS: u32 = 50;
const RECONNECT_MAX_MS: u32 = 1_000;

/// A socket whose data nobody acknowledges is dead after this long.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(2);

/// For taking leave of a server that may be gone.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(200);

/// A connection that is silent is connected anew, no more often than this.
const FORCE_INTERVAL: Duration = Duration::from_secs(1);
/// Where that does not help for so long, all connections are replaced.
const REPLACE_AFTER: Duration = Duration::from_secs(3);

/// All that it takes to connect, also once more.
#[derive(Clone)]
pub(super) struct ClientConfig {
    server: Config,
    /// What the log calls it.
    shown: String,
    connections: usize,
    command_timeout: Duration,
    connect_timeout: Duration,
}

impl ClientConfig {
    pub(super) fn new(config: &RedisConfig, url: &RedisUrl) -> Result<Self, RedisTlsError> {
        let mut server = url.server().clone();
        if url.is_tls() {
            server.tls = Some(config.tls.connector()?.into());
        }
        server.fail_fast = false;
        Ok(Self {
            server,
            shown: url.to_string(),
            connections: config.connections.get().into(),
            command_timeout: milliseconds(config.command_timeout_ms),
            connect_timeout: milliseconds(config.connect_timeout_ms),
        })
    }

    /// The same for one server of a cluster.
    pub(super) fn of_node(&self, node: Server) -> Self {
        let mut config = Self { shown: node.to_string(), ..self.clone() };
        config.server.server = ServerConfig::Centralized { server: node };
        config
    }

    /// Where the server or servers are.
    pub(super) fn servers(&self) -> &ServerConfig {
        &self.server.server
    }

    pub(super) fn command_timeout(&self) -> Duration {
        self.command_timeout
    }
}

pub(super) struct Client {
    config: ClientConfig,
    link: Mutex<Arc<Link>>,
    /// Grows with each reconnection, and when the server has forgotten a script.
    resets: Arc<watch::Sender<u64>>,
    /// Why the last connection failed.
    last_error: LastError,
    silence: Mutex<Option<Silence>>,
    seen: SeenScripts,
}

type LastError = Arc<Mutex<Option<Error>>>;

/// That a connection is up and does not answer.
struct Silence {
    since: Instant,
    forced_at: Option<Instant>,
}

impl Client {
    /// Begins to connect, and counts in `resets` when the server may have forgotten something.
    pub(super) fn start(config: ClientConfig, resets: Arc<watch::Sender<u64>>) -> Self {
        let last_error = LastError::default();
        let link = Mutex::new(Arc::new(Link::open(&config, &resets, &last_error)));
        Self {
            config,
            link,
            resets,
            last_error,
            silence: Mutex::default(),
            seen: SeenScripts::default(),
        }
    }

    /// Is done when it is connected or the time of a command has passed.
    pub(super) async fn connected(&self) {
        let link = self.link();
        let _ =
            tokio::time::timeout(self.config.command_timeout, link.pool.wait_for_connect()).await;
    }

    /// Runs a script.
    pub(super) async fn run(&self, call: Call) -> Result<Value, Declined> {
        let connection = self.connection().map_err(Declined::Fault)?;
        let (resets, seen) = (&self.resets, &self.seen);
        self.in_time(async move {
            match connection.custom(command("EVALSHA"), call.command_line(call.script.sha())).await
            {
                Err(error) if error.details().starts_with("NOSCRIPT") => {
                    if seen.forget(call.script) {
                        // A server that was started anew, or a replica that was promoted.
                        resets.send_modify(|resets| *resets += 1);
                    }
                    connection
                        .custom(command("EVAL"), call.command_line(call.script.source()))
                        .await
                }
                answer => {
                    if answer.is_ok() {
                        seen.add(call.script);
                    }
                    answer
                }
            }
        })
        .await
    }

    /// Runs a script on the server that a slot is just moving to, which takes calls for it only so.
    pub(super) async fn run_asking(&self, call: Call) -> Result<Value, Declined> {
        let connection = self.connection().map_err(Declined::Fault)?;
        self.in_time(async move {
            let pipeline = connection.pipeline();
            pipeline.custom::<(), _>(command("ASKING"), Vec::<Value>::new()).await?;
            let line = call.command_line(call.script.source());
            pipeline.custom::<(), _>(command("EVAL"), line).await?;
            pipeline.last().await
        })
        .await
    }

    /// Runs a command on one connection.
    pub(super) async fn ask(&self, words: &'static [&'static str]) -> Result<Value, StoreError> {
        let connection = self.connection()?;
        Ok(self.in_time(send(&connection, words)).await?)
    }

    /// Runs a command on every connection that is up, and gives the answer of one of them. A connection
    /// that does not answer fails it, and is connected anew: the other end may have forgotten it
    /// without telling, and fred does not notice.
    pub(super) async fn probe(&self, words: &'static [&'static str]) -> Result<Value, StoreError> {
        let link = self.link();
        let up = link.pool.clients().iter().filter(|connection| connection.is_connected());
        let probes = up.map(|connection| async move {
            (connection, self.in_time(send(connection, words)).await)
        });
        let mut answer = Err(self.not_connected());
        let mut silent = Vec::new();
        let mut silence = None;
        for (connection, result) in join_all(probes).await {
            match result {
                Err(Declined::Fault(fault @ StoreError::Indeterminate(_))) => {
                    silent.push(connection.clone());
                    silence = Some(fault);
                }
                other => answer = other.map_err(StoreError::from),
            }
        }
        self.unstick(silent);
        silence.map_or(answer, Err)
    }

    pub(super) async fn close(&self) {
        self.link().close().await;
    }

    /// A connection that is up. Without one the call fails at once: fred would keep the command,
    /// and run it long after its caller was told that it failed.
    fn connection(&self) -> Result<Connection, StoreError> {
        let link = self.link();
        let connection = link.pool.next_connected();
        if connection.is_connected() { Ok(connection.clone()) } else { Err(self.not_connected()) }
    }

    fn not_connected(&self) -> StoreError {
        let last_error = self.last_error.lock();
        let why = last_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        let shown = &self.config.shown;
        StoreError::Transient(format!("there is no connection to Redis ({shown}){why}"))
    }

    /// Waits for an answer no longer than a command may take: for a script that the server has forgotten two
    /// commands are sent, and nobody is to wait for two timeouts.
    async fn in_time(
        &self,
        answer: impl Future<Output = Result<Value, Error>> + Send,
    ) -> Result<Value, Declined> {
        match tokio::time::timeout(self.config.command_timeout, answer).await {
            Ok(answer) => answer.map_err(|error| Declined::from(&error)),
            Err(_) => {
                let shown = &self.config.shown;
                let late = format!("Redis did not answer within the command timeout ({shown})");
                Err(Declined::Fault(StoreError::Indeterminate(late)))
            }
        }
    }

    /// Connects the silent ones anew and, where that has not helped, replaces all.
    fn unstick(&self, silent: Vec<Connection>) {
        let mut silence = self.silence.lock();
        if silent.is_empty() {
            *silence = None;
            return;
        }
        let now = Instant::now();
        let begun = silence.get_or_insert(Silence { since: now, forced_at: None });
        if now - begun.since >= REPLACE_AFTER {
            *silence = None;
            self.replace_link();
        } else if begun.forced_at.is_none_or(|at| now - at >= FORCE_INTERVAL) {
            begun.forced_at = Some(now);
            let patience = self.config.connect_timeout;
            for connection in silent {
                tokio::spawn(async move {
                    // What hangs here is replaced later.
                    let _ = tokio::time::timeout(patience, connection.force_reconnection()).await;
                });
            }
        }
    }

    fn replace_link(&self) {
        tracing::debug!("the connections to Redis stay silent: they are replaced");
        let fresh = Arc::new(Link::open(&self.config, &self.resets, &self.last_error));
        let stuck = mem::replace(&mut *self.link.lock(), fresh);
        self.resets.send_modify(|resets| *resets += 1);
        tokio::spawn(async move { stuck.close().await });
    }

    fn link(&self) -> Arc<Link> {
        Arc::clone(&self.link.lock())
    }
}

/// fred's connections, and the tasks that keep each of them alive.
struct Link {
    pool: Pool,
    tasks: Vec<JoinHandle<()>>,
}

impl Link {
    fn open(
        config: &ClientConfig,
        resets: &Arc<watch::Sender<u64>>,
        last_error: &LastError,
    ) -> Self {
        let pool = pool(config);
        let mut tasks = Vec::new();
        for connection in pool.clients() {
            // Before it connects, so that no reconnection goes unseen.
            tasks.push(tokio::spawn(count_resets(connection.reconnect_rx(), Arc::clone(resets))));
            tasks.push(tokio::spawn(keep_error(connection.error_rx(), Arc::clone(last_error))));
            tasks.push(tokio::spawn(stay_connected(connection.clone())));
        }
        Self { pool, tasks }
    }

    /// Takes leave of the server where there is one. [`Drop`] ends the rest.
    async fn close(&self) {
        let _ = tokio::time::timeout(FAREWELL_TIMEOUT, self.pool.quit()).await;
        self.abort();
    }

    fn abort(&self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.abort();
    }
}

/// fred's task of a connection. Left to itself it connects for ever: it hears a QUIT only between two
/// attempts.
struct ConnectionTask(ConnectHandle);

impl Drop for ConnectionTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn pool(config: &ClientConfig) -> Pool {
    let performance = PerformanceConfig {
        default_command_timeout: config.command_timeout,
        ..PerformanceConfig::default()
    };
    let connection = ConnectionConfig {
        connection_timeout: config.connect_timeout,
        internal_command_timeout: config.connect_timeout,
        // A command whose connection broke may have run: whether to send it again is decided by
        // whoever knows its id.
        max_command_attempts: 1,
        tcp: TcpConfig {
            nodelay: Some(true),
            user_timeout: Some(TCP_USER_TIMEOUT),
            ..TcpConfig::default()
        },
        ..ConnectionConfig::default()
    };
    let reconnect = ReconnectPolicy::new_exponential(0, RECONNECT_MIN_MS, RECONNECT_MAX_MS, 2);
    let server = config.server.clone();
    match Pool::new(
        server,
        Some(performance),
        Some(connection),
        Some(reconnect),
        config.connections,
    ) {
        Ok(pool) => pool,
        Err(error) => unreachable!("a pool of at least one connection is refused: {error}"),
    }
}

fn milliseconds(number: NonZeroU32) -> Duration {
    Duration::from_millis(number.get().into())
}

fn command(name: &'static str) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::Random, false)
}

async fn send(connection: &Connection, words: &'static [&'static str]) -> Result<Value, Error> {
    let (name, arguments) = words.split_first().unwrap_or((&"PING", &[]));
    connection.custom(command(name), arguments.to_vec()).await
}

/// Connects again whenever fred gives up for good, as it does on some errors of the server.
async fn stay_connected(connection: Connection) {
    loop {
        let mut task = ConnectionTask(connection.connect());
        let ended = (&mut task.0).await;
        if let Ok(Err(error)) = ended {
            tracing::debug!(%error, "the connection to Redis has ended");
        }
        tokio::time::sleep(Duration::from_millis(RECONNECT_MAX_MS.into())).await;
    }
}

/// A reconnection may be to a server that was started anew or promoted. fred tells of the first
/// connection too, before which there was nothing to forget.
async fn count_resets(mut connected: broadcast::Receiver<Server>, resets: Arc<watch::Sender<u64>>) {
    let mut is_first = true;
    while !matches!(connected.recv().await, Err(broadcast::error::RecvError::Closed)) {
        if !mem::take(&mut is_first) {
            resets.send_modify(|resets| *resets += 1);
        }
    }
}

/// fred's own log is off: an outage would be many lines of it. The last of its errors is in ours.
async fn keep_error(mut errors: broadcast::Receiver<(Error, Option<Server>)>, last: LastError) {
    loop {
        match errors.recv().await {
            Ok((error, _)) => *last.lock() = Some(error),
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}
