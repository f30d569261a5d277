//! The connections to Redis. Turns fred's errors into the three classes of [`StoreError`], keeps
//! trying to connect, and loads a script that the server has forgotten.

use std::{future::Future, num::NonZeroU32, sync::Arc, time::Duration};

use fred::{
    clients::Pool,
    error::{Error, ErrorKind},
    interfaces::{ClientLike as _, EventInterface as _},
    types::{
        ClusterHash, CustomCommand, Value,
        config::{ConnectionConfig, PerformanceConfig, ReconnectPolicy, Server, TcpConfig},
    },
};
use tokio::{
    sync::{broadcast, watch},
    task::JoinHandle,
};

use super::{
    config::{RedisConfig, RedisUrl},
    script::Call,
    tls::RedisTlsError,
};
use crate::store::StoreError;

/// The pause between two attempts to connect grows from the first to the second.
const RECONNECT_MIN_MS: u32 = 50;
const RECONNECT_MAX_MS: u32 = 1_000;

/// A socket whose data nobody acknowledges is dead after this long.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Client {
    pool: Pool,
    /// Keeps each connection's tasks alive.
    tasks: Vec<JoinHandle<()>>,
    /// Grows with each reconnection, and when the server has forgotten a script.
    resets: Arc<watch::Sender<u64>>,
}

impl Client {
    pub(super) async fn connect(
        config: &RedisConfig,
        url: &RedisUrl,
    ) -> Result<Self, RedisTlsError> {
        let pool = pool(config, url)?;
        let resets = Arc::new(watch::Sender::new(0));
        let mut tasks = Vec::new();
        for client in pool.clients() {
            // Before it connects, so that no reconnection goes unseen.
            tasks.push(tokio::spawn(count_resets(client.reconnect_rx(), Arc::clone(&resets))));
            tasks.push(tokio::spawn(stay_connected(client.clone())));
        }
        // With a Redis that is there, the first call finds it. Without one, nobody waits for long.
        let patience = milliseconds(config.command_timeout_ms);
        let _ = tokio::time::timeout(patience, pool.wait_for_connect()).await;
        Ok(Self { pool, tasks, resets })
    }

    /// Runs a script to its end, also when the caller goes away.
    pub(super) async fn run(&self, call: Call) -> Result<Value, StoreError> {
        let client = self.connected()?;
        let resets = Arc::clone(&self.resets);
        // A dropped future would leave its command on the way: what follows it must run too.
        to_the_end(async move {
            let known = CustomCommand::new_static("EVALSHA", ClusterHash::Random, false);
            match client.custom(known, call.command_line(call.script.sha())).await {
                Err(error) if error.details().starts_with("NOSCRIPT") => {
                    // A server that was started anew, or a replica that was promoted.
                    resets.send_modify(|resets| *resets += 1);
                    let source = CustomCommand::new_static("EVAL", ClusterHash::Random, false);
                    client.custom(source, call.command_line(call.script.source())).await
                }
                answer => answer,
            }
        })
        .await
    }

    pub(super) fn resets(&self) -> watch::Receiver<u64> {
        self.resets.subscribe()
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        let client = self.connected()?;
        to_the_end(async move { client.ping::<Value>(None).await }).await.map(|_| ())
    }

    pub(super) async fn close(&self) {
        for task in &self.tasks {
            task.abort();
        }
        // It fails only where there is no connection to end.
        let _ = self.pool.quit().await;
    }

    /// A connection that is up. Without one the call fails at once: fred would keep the command,
    /// and run it long after its caller was told that it failed.
    fn connected(&self) -> Result<fred::clients::Client, StoreError> {
        let client = self.pool.next_connected();
        if client.is_connected() {
            Ok(client.clone())
        } else {
            Err(StoreError::Transient("there is no connection to Redis".to_owned()))
        }
    }
}

fn pool(config: &RedisConfig, url: &RedisUrl) -> Result<Pool, RedisTlsError> {
    let mut server = url.server().clone();
    if url.is_tls() {
        server.tls = Some(config.tls.connector()?.into());
    }
    server.fail_fast = false;
    let performance = PerformanceConfig {
        default_command_timeout: milliseconds(config.command_timeout_ms),
        ..PerformanceConfig::default()
    };
    let connection = ConnectionConfig {
        connection_timeout: milliseconds(config.connect_timeout_ms),
        internal_command_timeout: milliseconds(config.connect_timeout_ms),
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
    let size = usize::from(config.connections.get());
    match Pool::new(server, Some(performance), Some(connection), Some(reconnect), size) {
        Ok(pool) => Ok(pool),
        Err(error) => unreachable!("a pool of at least one connection is refused: {error}"),
    }
}

fn milliseconds(number: NonZeroU32) -> Duration {
    Duration::from_millis(number.get().into())
}

/// Connects again whenever fred gives up for good, as it does on some errors of the server.
async fn stay_connected(client: fred::clients::Client) {
    loop {
        let ended = client.connect().await;
        if let Ok(Err(error)) = ended {
            tracing::debug!(%error, "the connection to Redis has ended");
        }
        tokio::time::sleep(Duration::from_millis(RECONNECT_MAX_MS.into())).await;
    }
}

/// A reconnection may be to a server that was started anew or promoted.
async fn count_resets(
    mut reconnections: broadcast::Receiver<Server>,
    resets: Arc<watch::Sender<u64>>,
) {
    while !matches!(reconnections.recv().await, Err(broadcast::error::RecvError::Closed)) {
        resets.send_modify(|resets| *resets += 1);
    }
}

async fn to_the_end(
    command: impl Future<Output = Result<Value, Error>> + Send + 'static,
) -> Result<Value, StoreError> {
    match tokio::spawn(command).await {
        Ok(answer) => answer.map_err(|error| classify(&error)),
        Err(_) => Err(StoreError::Indeterminate("a Redis command was cut off".to_owned())),
    }
}

fn classify(error: &Error) -> StoreError {
    let text = error.to_string();
    match error.kind() {
        // The command was on its way when the connection broke or the time ran out.
        ErrorKind::IO | ErrorKind::Canceled | ErrorKind::Timeout => StoreError::Indeterminate(text),
        ErrorKind::Unknown | ErrorKind::InvalidArgument | ErrorKind::InvalidCommand => {
            server_fault(error.details())
        }
        ErrorKind::Parse | ErrorKind::Protocol | ErrorKind::NotFound => StoreError::Permanent(text),
        // Connecting, authenticating, finding the server: nothing was run.
        ErrorKind::Config
        | ErrorKind::Auth
        | ErrorKind::Routing
        | ErrorKind::Url
        | ErrorKind::Cluster
        | ErrorKind::Sentinel
        | ErrorKind::Tls
        | ErrorKind::Backpressure => StoreError::Transient(text),
    }
}

/// Classes an error that the server itself has answered: nothing of the element was written.
pub(super) fn server_fault(message: &str) -> StoreError {
    // The server's state and not the data; it changes without anyone mending the data.
    const STATES: [&str; 12] = [
        "LOADING",
        "BUSY",
        "OOM",
        "READONLY",
        "MISCONF",
        "MASTERDOWN",
        "NOREPLICAS",
        "CLUSTERDOWN",
        "TRYAGAIN",
        "NOAUTH",
        "NOPERM",
        "UNKILLABLE",
    ];
    // Redis 6.2 puts the script and the line before the code of an error raised in Lua.
    if STATES.iter().any(|state| message.split([' ', ':']).any(|word| word == *state)) {
        StoreError::Transient(message.to_owned())
    } else {
        StoreError::Permanent(message.to_owned())
    }
}
