//! Examines Redis once, with a connection of its own: whether it is reachable, is of the kind that
//! the URL names, and takes the service's writes. Used at the start, which reports problems at
//! once, and by the command `check-config --connect`.

use std::{fmt, time::Duration};

use fred::{
    clients::Client as Connection,
    error::{Error, ErrorKind},
    interfaces::ClientLike as _,
    types::config::{Server, ServerConfig},
};
use tokio::time;

use super::{
    calls::Calls,
    command::{self, send},
    config::{RedisConfig, RedisUrl},
    explanation::explain,
    fault::cause_of_connecting,
    identity::value,
    link::{ClientConfig, connection_settings},
    tls::RedisTlsError,
};
use crate::store::{Cause, RecordingConfig, StoreError, keys::KeyNames};

const INFO: &[&str] = &["INFO"];

/// Part of the connect timeout that is reserved for the time after an examination.
const MARGIN: Duration = Duration::from_millis(200);

/// The configuration for examining Redis.
pub struct RedisExamination {
    config: ClientConfig,
    calls: Calls,
}

/// The facts about a Redis that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisReport {
    server: String,
    /// The reply of INFO; absent if the user may not run it.
    info: Option<Info>,
}

/// Some fields of INFO.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Info {
    version: String,
    mode: String,
    role: String,
    eviction_policy: String,
}

impl fmt::Debug for RedisExamination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisExamination").field("server", &self.config.shown).finish()
    }
}

impl RedisReport {
    /// Returns the server's name and version, without the other findings.
    pub fn brief(&self) -> String {
        let server = &self.server;
        let Some(Info { version, mode, role, .. }) = &self.info else { return server.clone() };
        let kind = if mode == "cluster" { "part of a cluster" } else { "not a cluster" };
        format!("{server} has version {version}, role {role}, {kind}")
    }
}

impl fmt::Display for RedisReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.brief())?;
        let Some(Info { eviction_policy, .. }) = &self.info else {
            return f.write_str(
                " accepts writes. Its version, role and eviction policy are unknown, because the \
                 user may not run INFO",
            );
        };
        write!(f, ", maxmemory-policy {eviction_policy}")?;
        if eviction_policy != "noeviction" {
            f.write_str(" (set `noeviction`: an evicted anomaly is lost)")?;
        }
        f.write_str(". It accepts writes")
    }
}

impl RedisExamination {
    /// Reads the configuration of a connection.
    ///
    /// # Errors
    /// Fails if the files for TLS can't be used.
    pub fn new(
        config: &RedisConfig,
        recording: RecordingConfig,
        url: &RedisUrl,
    ) -> Result<Self, RedisTlsError> {
        let config_of_client = ClientConfig::new(config, url)?;
        let is_cluster = matches!(config_of_client.servers(), ServerConfig::Clustered { .. });
        let names = KeyNames::new(&config.key_prefix, is_cluster);
        Ok(Self { config: config_of_client, calls: Calls { names, recording } })
    }

    /// Examines the server. For a cluster, examines the servers in the URL until one can be used.
    /// Ends before the connect timeout.
    ///
    /// # Errors
    /// Fails if Redis can't be used. The error explains the cause in plain words.
    pub async fn run(&self) -> Result<RedisReport, StoreError> {
        let ServerConfig::Clustered { hosts, .. } = self.config.servers() else {
            return self.look_at(&self.config, false).await;
        };
        let mut first_fault = None;
        // fred puts the first host of the URL last.
        for server in hosts.iter().rev() {
            match self.look_at(&self.node(server), true).await {
                Ok(report) => return Ok(report),
                Err(fault) => drop(first_fault.get_or_insert(fault)),
            }
        }
        let no_host = || StoreError::transient(Cause::Cluster, "the URL names no server");
        Err(first_fault.unwrap_or_else(no_host))
    }

    fn node(&self, server: &Server) -> ClientConfig {
        self.config.of_node(server.clone())
    }

    async fn look_at(
        &self,
        config: &ClientConfig,
        is_cluster: bool,
    ) -> Result<RedisReport, StoreError> {
        let connection = Connection::new(
            config.for_one_attempt(),
            Some(connection_settings(config).0),
            Some(connection_settings(config).1),
            None,
        );
        let limit = config.connect_timeout.saturating_sub(config.command_timeout + MARGIN);
        let limit = limit.max(config.connect_timeout / 2);
        let looked = time::timeout(limit, async {
            connection.init().await.map_err(|error| self.unusable(config, &error))?;
            self.ask(config, &connection, is_cluster).await
        });
        let looked = looked.await.unwrap_or_else(|_| {
            let late = format!("no answer within {} ms", limit.as_millis());
            Err(self.unusable(config, &Error::new(ErrorKind::Timeout, late)))
        });
        // No code waits for the end of this task.
        tokio::spawn(async move { connection.quit().await });
        looked
    }

    async fn ask(
        &self,
        config: &ClientConfig,
        connection: &Connection,
        is_cluster: bool,
    ) -> Result<RedisReport, StoreError> {
        let info = match send(connection, INFO).await {
            Ok(answer) => Some(Info::of(&answer.into_string().unwrap_or_default())),
            Err(error) if cause_of_connecting(&error) == Cause::Permission => None,
            Err(error) => return Err(self.unusable(config, &error)),
        };
        if let Some(info) = &info {
            info.must_fit(is_cluster).map_err(|(cause, why)| fault(config, cause, why))?;
        }
        let probe = self.calls.probe_once();
        let line = probe.command_line(probe.script.sha());
        let mut probed = command::run(connection, "EVALSHA", line).await;
        if probed.as_ref().is_err_and(|error| error.details().starts_with("NOSCRIPT")) {
            let line = probe.command_line(probe.script.source());
            probed = command::run(connection, "EVAL", line).await;
        }
        match probed {
            // Another server of the cluster has the slot of the probe's key.
            Err(error) if is_cluster && error.details().starts_with("MOVED") => {}
            Err(error) => return Err(self.unusable(config, &error)),
            Ok(_) => {}
        }
        Ok(RedisReport { server: config.shown.clone(), info })
    }

    fn unusable(&self, config: &ClientConfig, error: &Error) -> StoreError {
        let cause = match error.kind() {
            ErrorKind::Timeout => Cause::Timeout,
            _ => cause_of_connecting(error),
        };
        fault(config, cause, &explain(error, config.is_tls()))
    }
}

fn fault(config: &ClientConfig, cause: Cause, why: &str) -> StoreError {
    StoreError::transient(cause, format!("Redis ({}) can't be used: {why}", config.shown))
}

impl Info {
    fn of(info: &str) -> Self {
        let field = |name: &str| value(info, name);
        let unknown = || "unknown".to_owned();
        Self {
            version: field("valkey_version")
                .or_else(|| field("redis_version"))
                .unwrap_or_else(unknown),
            mode: field("redis_mode").or_else(|| field("server_mode")).unwrap_or_else(unknown),
            role: field("role").unwrap_or_else(unknown),
            eviction_policy: field("maxmemory_policy").unwrap_or_else(unknown),
        }
    }

    /// Checks that the server is of the kind that the URL names.
    fn must_fit(&self, is_cluster: bool) -> Result<(), (Cause, &'static str)> {
        match (self.mode.as_str(), is_cluster) {
            ("cluster", false) => Err((
                Cause::Cluster,
                "it is part of a cluster. Use redis-cluster:// (or rediss-cluster://) in \
                 `redis.url`",
            )),
            ("standalone", true) => Err((
                Cause::Cluster,
                "it is not a cluster. Use redis:// (or rediss://) in `redis.url`",
            )),
            ("sentinel", _) => Err((
                Cause::Refused,
                "it is a Sentinel. Use redis-sentinel:// with `sentinelServiceName` in `redis.url`",
            )),
            (_, false) if self.role == "slave" => Err((
                Cause::Readonly,
                "it is a replica, which accepts no writes. Use the master's address in \
                 `redis.url`, or use redis-sentinel://",
            )),
            _ => Ok(()),
        }
    }
}
