//! The servers behind a URL: a single server (or the master that a Sentinel names), or the masters
//! of a cluster.

use std::sync::Arc;

use fred::types::{Value, config::ServerConfig};
use tokio::sync::watch;

use super::{
    calls::Calls,
    client::Client,
    cluster::Cluster,
    link::ClientConfig,
    script::Call,
    slots::{slot, slot_of_tag},
};
use crate::{
    domain::AnomalyKey,
    store::{Resets, Shard, StoreError},
};

#[allow(clippy::large_enum_variant, reason = "a process has one of it")]
pub(super) enum Servers {
    One(Client),
    Cluster(Cluster),
}

impl Servers {
    /// Starts to connect. `resets` grows when a server may have forgotten data.
    pub(super) async fn connect(config: ClientConfig, resets: Arc<watch::Sender<Resets>>) -> Self {
        if let ServerConfig::Clustered { hosts, .. } = config.servers() {
            // fred puts the first host of the URL last.
            let seeds = hosts.iter().rev().cloned().collect();
            return Self::Cluster(Cluster::start(config, seeds, resets).await);
        }
        let client = Client::start(config, resets);
        // If Redis is available, the first call finds a connection. Otherwise, the wait is short.
        client.connected().await;
        Self::One(client)
    }

    /// Returns the slot of an anomaly's keys. All keys of one call must be in one slot.
    pub(super) fn slot(&self, key: AnomalyKey) -> u16 {
        match self {
            Self::One(_) => 0,
            Self::Cluster(_) => slot(key),
        }
    }

    pub(super) async fn run(&self, slot: u16, call: Call) -> Result<Value, StoreError> {
        match self {
            Self::One(client) => Ok(client.run(call).await?),
            Self::Cluster(cluster) => cluster.run(slot, call).await,
        }
    }

    /// Returns the slot of a key that belongs to the whole deployment and has no braces in its
    /// name.
    pub(super) fn slot_of_name(&self, name: &str) -> u16 {
        match self {
            Self::One(_) => 0,
            Self::Cluster(_) => slot_of_tag(name),
        }
    }

    /// Runs a command whose keys are all in `slot`.
    pub(super) async fn send(
        &self,
        slot: u16,
        name: &'static str,
        arguments: Vec<Value>,
    ) -> Result<Value, StoreError> {
        match self {
            Self::One(client) => Ok(client.send(name, arguments).await?),
            Self::Cluster(cluster) => cluster.send(cluster.shard(slot), name, arguments).await,
        }
    }

    /// Runs a command on one shard.
    pub(super) async fn send_to(
        &self,
        shard: Shard,
        name: &'static str,
        arguments: Vec<Value>,
    ) -> Result<Value, StoreError> {
        match self {
            Self::One(client) => Ok(client.send(name, arguments).await?),
            Self::Cluster(cluster) => cluster.send(shard, name, arguments).await,
        }
    }

    pub(super) fn shard(&self, key: AnomalyKey) -> Shard {
        match self {
            Self::One(_) => Shard::default(),
            Self::Cluster(cluster) => cluster.shard(slot(key)),
        }
    }

    pub(super) fn shards(&self) -> Vec<Shard> {
        match self {
            Self::One(_) => vec![Shard::default()],
            Self::Cluster(cluster) => cluster.shards(),
        }
    }

    /// Checks that a shard takes writes.
    pub(super) async fn check(&self, shard: Shard, calls: &Calls) -> Result<(), StoreError> {
        match self {
            Self::One(client) => Ok(client.probe(&calls.probe(None)).await?),
            Self::Cluster(cluster) => cluster.check(shard, calls).await,
        }
    }

    pub(super) async fn identity(&self, shard: Shard) -> Option<String> {
        match self {
            Self::One(client) => client.identity().await,
            Self::Cluster(cluster) => cluster.identity(shard).await,
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Self::One(client) => client.close().await,
            Self::Cluster(cluster) => cluster.close().await,
        }
    }
}
