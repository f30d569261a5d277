//! The connections to one server, or to the master that a Sentinel names. Keeps trying to connect,
//! replaces a connection that does not answer, and loads a script that the server has forgotten.

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
use crate::store::{Cause, FaultClass, Resets, StoreError};

/// The pause between two attempts to connect grows from the minimum to the maximum.
const RECONNECT_MIN_MS: u32 = 50;
const RECONNECT_MAX_MS: u32 = 1_000;

/// The time after which a socket whose data are not acknowledged is dead.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(2);

/// Timeout of QUIT, because the server may be unavailable.
const QUIT_TIMEOUT: Duration = Duration::from_millis(200);

/// Minimum time between two reconnections of a connection that does not answer.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(1);
/// The time after which all connections are replaced, if reconnecting does not help.
const REPLACE_AFTER: Duration = Duration::from_secs(3);

/// The settings of all connections to one server.
#[derive(Clone)]
pub(super) struct ClientConfig {
    server: Config,
    /// The server's name in the log.
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

    /// Returns the same settings for one server of a cluster.
    pub(super) fn of_node(&self, node: Server) -> Self {
        let mut config = Self { shown: node.to_string(), ..self.clone() };
        config.server.server = ServerConfig::Centralized { server: node };
        config
    }

    /// Returns the addresses of the server or servers.
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
    resets: Arc<watch::Sender<Resets>>,
    /// The error of the last connection that failed.
    last_error: LastError,
    silence: Mutex<Option<Silence>>,
    seen: SeenScripts,
}

type LastError = Arc<Mutex<Option<Error>>>;

/// The state of connections that are up and do not answer.
struct Silence {
    since: Instant,
    reconnected_at: Option<Instant>,
}

impl Client {
    /// Begins to connect. `resets` grows when the server may have forgotten something.
    pub(super) fn start(config: ClientConfig, resets: Arc<watch::Sender<Resets>>) -> Self {
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

    /// Waits until it is connected, but no longer than a command may take.
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
                        // The server was restarted, or a replica was promoted.
                        resets.send_modify(|resets| resets.suspected += 1);
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

    /// Runs a script on the server that a slot is moving to, which takes calls for it only after
    /// ASKING.
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

    /// Runs a command on every connection that is up, and returns the answer of one of them. A
    /// connection that does not answer makes it fail, and is reconnected: the other end may have
    /// dropped it silently, and fred does not notice.
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
                Err(Declined::Fault(fault)) if fault.class() == FaultClass::Indeterminate => {
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

    /// Returns a connection that is up. Without one the call fails at once: fred would keep the
    /// command, and run it long after its caller got an error.
    fn connection(&self) -> Result<Connection, StoreError> {
        let link = self.link();
        let connection = link.pool.next_connected();
        if connection.is_connected() { Ok(connection.clone()) } else { Err(self.not_connected()) }
    }

    fn not_connected(&self) -> StoreError {
        let last_error = self.last_error.lock();
        let why = last_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        let shown = &self.config.shown;
        StoreError::transient(
            Cause::Unreachable,
            format!("there is no connection to Redis ({shown}){why}"),
        )
    }

    /// Waits for an answer no longer than a command may take: two commands are sent for a script
    /// that the server has forgotten, and no caller is to wait for two timeouts.
    async fn in_time(
        &self,
        answer: impl Future<Output = Result<Value, Error>> + Send,
    ) -> Result<Value, Declined> {
        match tokio::time::timeout(self.config.command_timeout, answer).await {
            Ok(answer) => answer.map_err(|error| Declined::from(&error)),
            Err(_) => {
                let shown = &self.config.shown;
                let late = format!("Redis did not answer within the command timeout ({shown})");
                Err(Declined::Fault(StoreError::indeterminate(Cause::Timeout, late)))
            }
        }
    }

    /// Reconnects the silent connections or, if that has not helped, replaces all.
    fn unstick(&self, silent: Vec<Connection>) {
        let mut silence = self.silence.lock();
        if silent.is_empty() {
            *silence = None;
            return;
        }
        let now = Instant::now();
        let begun = silence.get_or_insert(Silence { since: now, reconnected_at: None });
        if now - begun.since >= REPLACE_AFTER {
            *silence = None;
            self.replace_link();
        } else if begun.reconnected_at.is_none_or(|at| now - at >= RECONNECT_INTERVAL) {
            begun.reconnected_at = Some(now);
            let timeout = self.config.connect_timeout;
            for connection in silent {
                tokio::spawn(async move {
                    // If it hangs here, it is replaced later.
                    let _ = tokio::time::timeout(timeout, connection.force_reconnection()).await;
                });
            }
        }
    }

    fn replace_link(&self) {
        tracing::debug!("the connections to Redis do not answer: they are replaced");
        let fresh = Arc::new(Link::open(&self.config, &self.resets, &self.last_error));
        let stuck = mem::replace(&mut *self.link.lock(), fresh);
        self.resets.send_modify(|resets| resets.suspected += 1);
        tokio::spawn(async move { stuck.close().await });
    }

    fn link(&self) -> Arc<Link> {
        Arc::clone(&self.link.lock())
    }
}

/// fred's connections, and the tasks that keep them connected.
struct Link {
    pool: Pool,
    tasks: Vec<JoinHandle<()>>,
}

impl Link {
    fn open(
        config: &ClientConfig,
        resets: &Arc<watch::Sender<Resets>>,
        last_error: &LastError,
    ) -> Self {
        let pool = pool(config);
        let mut tasks = Vec::new();
        for connection in pool.clients() {
            // Before it connects, so that no reconnection is missed.
            tasks.push(tokio::spawn(count_resets(connection.reconnect_rx(), Arc::clone(resets))));
            tasks.push(tokio::spawn(keep_error(connection.error_rx(), Arc::clone(last_error))));
            tasks.push(tokio::spawn(stay_connected(connection.clone())));
        }
        Self { pool, tasks }
    }

    /// Sends QUIT if there is a connection, and ends the tasks.
    async fn close(&self) {
        let _ = tokio::time::timeout(QUIT_TIMEOUT, self.pool.quit()).await;
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

/// fred's task of a connection. Unless it is aborted, it may connect for ever: it handles a QUIT
/// only between two attempts.
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
        // A command whose connection broke may have run: the caller, who knows its id, decides
        // whether to send it again.
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

/// Connects again whenever fred gives up, as it does on some errors of the server.
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

/// Counts reconnections, each of which may be to a server that was restarted or promoted. fred
/// reports the first connection too, before which there was nothing to forget.
async fn count_resets(
    mut connected: broadcast::Receiver<Server>,
    resets: Arc<watch::Sender<Resets>>,
) {
    let mut is_first = true;
    while !matches!(connected.recv().await, Err(broadcast::error::RecvError::Closed)) {
        if !mem::take(&mut is_first) {
            resets.send_modify(|resets| resets.suspected += 1);
        }
    }
}

/// Keeps the last of fred's errors for our own log. fred's is off: an outage would be many lines of
/// it.
async fn keep_error(mut errors: broadcast::Receiver<(Error, Option<Server>)>, last: LastError) {
    loop {
        match errors.recv().await {
            Ok((error, _)) => *last.lock() = Some(error),
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}
