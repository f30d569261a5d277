//! fred's connections to one server, and the tasks that keep them connected and count their resets.

use std::{collections::BTreeSet, mem, num::NonZeroU32, sync::Arc, time::Duration};

use fred::{
    clients::{Client as Connection, Pool},
    error::Error,
    interfaces::{ClientLike as _, EventInterface as _},
    types::{
        ConnectHandle,
        config::{
            Config, ConnectionConfig, PerformanceConfig, ReconnectPolicy, Server, ServerConfig,
            TcpConfig,
        },
    },
};
use parking_lot::Mutex;
use tokio::{
    sync::{broadcast, watch},
    task::JoinHandle,
};

use super::{
    config::{RedisConfig, RedisUrl},
    identity,
    tls::RedisTlsError,
};
use crate::store::Resets;

/// The pause between two attempts to connect grows from this minimum to the maximum.
const RECONNECT_MIN_MS: u32 = 50;
const RECONNECT_MAX_MS: u32 = 1_000;

/// Time after which a socket with unacknowledged data is considered dead.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(2);

/// Timeout of QUIT. It is short, because the server may be unavailable.
const QUIT_TIMEOUT: Duration = Duration::from_millis(200);

/// The settings of all connections to one server.
#[derive(Clone)]
pub(super) struct ClientConfig {
    server: Config,
    /// The server's name in the log.
    pub(super) shown: String,
    connections: usize,
    pub(super) command_timeout: Duration,
    pub(super) connect_timeout: Duration,
    /// The servers, with their policies, for which a warning about eviction was logged.
    evicting: Arc<Mutex<BTreeSet<(String, String)>>>,
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
            evicting: Arc::default(),
        })
    }

    /// Returns the same settings for one server of a cluster.
    pub(super) fn of_node(&self, node: Server) -> Self {
        let mut config = Self { shown: node.to_string(), ..self.clone() };
        config.server.server = ServerConfig::Centralized { server: node };
        config
    }

    /// Returns the server, without further attempts after a failed one.
    pub(super) fn for_one_attempt(&self) -> Config {
        Config { fail_fast: true, ..self.server.clone() }
    }

    /// Returns true if connections must be encrypted.
    pub(super) fn is_tls(&self) -> bool {
        self.server.tls.is_some()
    }

    /// Returns the addresses of the server or servers.
    pub(super) fn servers(&self) -> &ServerConfig {
        &self.server.server
    }

    /// Warns about a server that may evict keys, once for each policy.
    fn warn_of_eviction(&self, policy: &str) {
        let server = &self.shown;
        if self.evicting.lock().insert((server.clone(), policy.to_owned())) {
            tracing::warn!(
                server,
                maxmemory_policy = policy,
                "Redis may evict anomalies when its memory is full, and evicted anomalies are \
                 lost: set `maxmemory-policy noeviction`"
            );
        }
    }
}

/// The error of the last connection that failed.
pub(super) type LastError = Arc<Mutex<Option<Error>>>;

/// fred's connections, and the tasks that keep them connected.
pub(super) struct Link {
    pub(super) pool: Pool,
    tasks: Vec<JoinHandle<()>>,
}

impl Link {
    pub(super) fn open(
        config: &ClientConfig,
        resets: &Arc<watch::Sender<Resets>>,
        last_error: &LastError,
    ) -> Self {
        let pool = pool(config);
        let mut tasks = Vec::new();
        for connection in pool.clients() {
            // Started before it connects, so that no reconnection is missed.
            tasks.push(tokio::spawn(count_resets(connection.reconnect_rx(), Arc::clone(resets))));
            tasks.push(tokio::spawn(keep_error(connection.error_rx(), Arc::clone(last_error))));
        }
        if let Some(connection) = pool.clients().first() {
            let connected = connection.reconnect_rx();
            tasks.push(tokio::spawn(watch_eviction(connected, connection.clone(), config.clone())));
        }
        for connection in pool.clients() {
            tasks.push(tokio::spawn(stay_connected(connection.clone())));
        }
        Self { pool, tasks }
    }

    /// Returns the connections that are up.
    pub(super) fn connected(&self) -> impl Iterator<Item = &Connection> {
        self.pool.clients().iter().filter(|connection| connection.is_connected())
    }

    /// Sends QUIT if there is a connection, and ends the tasks.
    pub(super) async fn close(&self) {
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

/// fred's task of a connection. It must be aborted, because it may otherwise connect for ever: it
/// handles a QUIT only between two attempts.
struct ConnectionTask(ConnectHandle);

impl Drop for ConnectionTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Returns fred's settings of a connection.
pub(super) fn connection_settings(config: &ClientConfig) -> (PerformanceConfig, ConnectionConfig) {
    let performance = PerformanceConfig {
        default_command_timeout: config.command_timeout,
        ..PerformanceConfig::default()
    };
    let connection = ConnectionConfig {
        connection_timeout: config.connect_timeout,
        internal_command_timeout: config.connect_timeout,
        // A command whose connection was lost may have run. The caller, who knows its id, decides
        // whether to send it again.
        max_command_attempts: 1,
        // The client decides this itself, at most once a second and for all connections.
        reconnect_errors: Vec::new(),
        tcp: TcpConfig {
            nodelay: Some(true),
            user_timeout: Some(TCP_USER_TIMEOUT),
            ..TcpConfig::default()
        },
        ..ConnectionConfig::default()
    };
    (performance, connection)
}

fn pool(config: &ClientConfig) -> Pool {
    let (performance, connection) = connection_settings(config);
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

/// Connects again whenever fred gives up, as it does after some errors of the server.
async fn stay_connected(connection: Connection) {
    loop {
        let mut task = ConnectionTask(connection.connect());
        let ended = (&mut task.0).await;
        if let Ok(Err(error)) = ended {
            tracing::debug!(%error, "the connection to Redis is closed");
        }
        tokio::time::sleep(Duration::from_millis(RECONNECT_MAX_MS.into())).await;
    }
}

/// Counts reconnections, each of which may lead to a restarted or promoted server. fred also
/// reports the first connection, before which nothing could be forgotten.
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

/// Keeps the last of fred's errors for our own log. fred's log is off, because an outage would
/// produce many lines.
async fn keep_error(mut errors: broadcast::Receiver<(Error, Option<Server>)>, last: LastError) {
    loop {
        match errors.recv().await {
            Ok((error, _)) => *last.lock() = Some(error),
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Checks for each connected server whether it may evict keys.
async fn watch_eviction(
    mut connected: broadcast::Receiver<Server>,
    connection: Connection,
    config: ClientConfig,
) {
    while !matches!(connected.recv().await, Err(broadcast::error::RecvError::Closed)) {
        if let Some(policy) = identity::eviction_policy(&connection).await {
            config.warn_of_eviction(&policy);
        }
    }
}
