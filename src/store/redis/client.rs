//! The connections to Redis. Turns fred's errors into the three classes of [`StoreError`], keeps
//! trying to connect, and loads a script that the server has forgotten.

use std::{
    future::Future,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

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
    /// Why the last connection failed.
    last_error: Arc<Mutex<Option<Error>>>,
    /// How long a call may take.
    patience: Duration,
}

impl Client {
    pub(super) async fn connect(
        config: &RedisConfig,
        url: &RedisUrl,
    ) -> Result<Self, RedisTlsError> {
        let pool = pool(config, url)?;
        let resets = Arc::new(watch::Sender::new(0));
        let last_error = Arc::default();
        let mut tasks = Vec::new();
        for client in pool.clients() {
            // Before it connects, so that no reconnection goes unseen.
            tasks.push(tokio::spawn(count_resets(client.reconnect_rx(), Arc::clone(&resets))));
            tasks.push(tokio::spawn(keep_error(client.error_rx(), Arc::clone(&last_error))));
            tasks.push(tokio::spawn(stay_connected(client.clone())));
        }
        // With a Redis that is there, the first call finds it. Without one, nobody waits for long.
        let patience = milliseconds(config.command_timeout_ms);
        let _ = tokio::time::timeout(patience, pool.wait_for_connect()).await;
        Ok(Self { pool, tasks, resets, last_error, patience })
    }

    /// Runs a script to its end, also when the caller goes away.
    pub(super) async fn run(&self, call: Call) -> Result<Value, StoreError> {
        let client = self.connected()?;
        let resets = Arc::clone(&self.resets);
        // A dropped future would leave its command on the way: what follows it must run too.
        to_the_end(self.patience, async move {
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
        to_the_end(self.patience, async move { client.ping::<Value>(None).await }).await.map(|_| ())
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
            let last_error = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
            let why = last_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            Err(StoreError::Transient(format!("there is no connection to Redis{why}")))
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

/// fred's own log is off: an outage would be many lines of it. The last of its errors is in ours.
async fn keep_error(
    mut errors: broadcast::Receiver<(Error, Option<Server>)>,
    last_error: Arc<Mutex<Option<Error>>>,
) {
    loop {
        match errors.recv().await {
            Ok((error, _)) => {
                *last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Has a command run to its end, and waits for that no longer than `patience`: for a script that the
/// server has forgotten two commands are sent, and nobody is to wait for two timeouts.
async fn to_the_end(
    patience: Duration,
    command: impl Future<Output = Result<Value, Error>> + Send + 'static,
) -> Result<Value, StoreError> {
    let indeterminate = |what: &str| Err(StoreError::Indeterminate(what.to_owned()));
    match tokio::time::timeout(patience, tokio::spawn(command)).await {
        Ok(Ok(answer)) => answer.map_err(|error| classify(&error)),
        Ok(Err(_)) => indeterminate("a Redis command was cut off"),
        Err(_) => indeterminate("Redis did not answer within the command timeout"),
    }
}

fn classify(error: &Error) -> StoreError {
    match error.kind() {
        // Connecting, authenticating, finding the server: nothing was run.
        ErrorKind::Config
        | ErrorKind::Auth
        | ErrorKind::Routing
        | ErrorKind::Url
        | ErrorKind::Cluster
        | ErrorKind::Sentinel
        | ErrorKind::Tls
        | ErrorKind::Backpressure => StoreError::Transient(error.to_string()),
        // The server's own words begin with a code in capitals, such as WRONGTYPE.
        ErrorKind::Unknown | ErrorKind::InvalidArgument | ErrorKind::InvalidCommand
            if is_code(error.details().split(' ').next().unwrap_or_default()) =>
        {
            server_fault(error.details())
        }
        // The command was on its way when the connection broke or the time ran out. fred says so
        // in many ways, "Unknown" among them; none of them tells that it has not run.
        _ => StoreError::Indeterminate(error.to_string()),
    }
}

fn is_code(word: &str) -> bool {
    word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase())
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
    // Redis 6.2 says of an error raised in Lua: "@user_script: 113: -OOM command not allowed".
    let mut words = message.split([' ', ':']).map(|word| word.trim_start_matches('-'));
    if words.any(|word| STATES.contains(&word)) {
        StoreError::Transient(message.to_owned())
    } else {
        StoreError::Permanent(message.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(fault: &StoreError) -> &'static str {
        match fault {
            StoreError::Transient(_) => "transient",
            StoreError::Indeterminate(_) => "indeterminate",
            StoreError::Permanent(_) => "permanent",
        }
    }

    #[test]
    fn the_servers_words_tell_its_state_from_the_data_in_every_version() {
        for (message, expected) in [
            ("OOM command not allowed when used memory > 'maxmemory'.", "transient"),
            ("@user_script: 113: -OOM command not allowed when used memory", "transient"),
            ("READONLY You can't write against a read only replica.", "transient"),
            ("@user_script: 113: -READONLY You can't write against a read", "transient"),
            ("NOREPLICAS Not enough good replicas to write.", "transient"),
            ("LOADING Redis is loading the dataset in memory", "transient"),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", "permanent"),
            ("@user_script: 20: WRONGTYPE Operation against a key", "permanent"),
            ("ERR value is not an integer or out of range", "permanent"),
        ] {
            assert_eq!(class(&server_fault(message)), expected, "{message}");
        }
    }

    #[test]
    fn what_fred_says_of_a_broken_connection_is_never_permanent() {
        for (kind, details) in [
            (ErrorKind::Unknown, "Failed to route command."),
            (ErrorKind::Unknown, "Too many failed write attempts."),
            (ErrorKind::Protocol, "Unexpected frame"),
            (ErrorKind::Parse, "Could not convert"),
            (ErrorKind::Canceled, "Canceled."),
            (ErrorKind::IO, "Connection reset by peer"),
            (ErrorKind::Timeout, "Request timed out."),
        ] {
            let fault = classify(&Error::new(kind, details));
            assert_eq!(class(&fault), "indeterminate", "{details}");
        }
        let wrong_type = Error::new(ErrorKind::InvalidArgument, "WRONGTYPE Operation against");
        assert_eq!(class(&classify(&wrong_type)), "permanent");
        let no_password = Error::new(ErrorKind::Auth, "NOAUTH Authentication required.");
        assert_eq!(class(&classify(&no_password)), "transient");
    }
}
