//! A Redis Cluster of a test's own: real servers on free ports, killed with the test.

use std::{fmt::Write as _, fs, io};

use tempfile::TempDir;

use super::{
    OtherClient, RedisServer, eventually,
    servers::process::{free_ports, on_free_port},
};

const SLOTS: usize = 16_384;

pub(crate) struct RedisCluster {
    /// The masters, then the replica of each, if any, or a newcomer.
    nodes: Vec<RedisServer>,
    masters: usize,
}

impl RedisCluster {
    pub(crate) async fn of_masters(masters: usize) -> Self {
        Self::start(masters, masters, &[]).await
    }

    pub(crate) async fn with_replicas(masters: usize) -> Self {
        Self::start(masters, 2 * masters, &[]).await
    }

    /// Starts a cluster with one more master, the last of the nodes, that serves no slots yet.
    pub(crate) async fn with_a_newcomer(masters: usize) -> Self {
        Self::start(masters, masters + 1, &[]).await
    }

    /// Starts a cluster with replicas, and with every write on disk too.
    pub(crate) async fn durable(masters: usize) -> Self {
        Self::start(masters, 2 * masters, &["--appendonly", "yes"]).await
    }

    async fn start(masters: usize, nodes: usize, options: &[&str]) -> Self {
        let started = on_free_port(|_| try_start(masters, nodes, options));
        let cluster = Self { nodes: started.unwrap(), masters };
        for node in &cluster.nodes {
            let client = node.client().await;
            eventually("the cluster has formed", || async {
                let info = client.text(&["CLUSTER", "INFO"]).await?;
                let replication = client.text(&["INFO", "replication"]).await?;
                let is_in_step = replication.contains("role:master")
                    || replication.contains("master_link_status:up");
                (info.contains("cluster_state:ok") && is_in_step).then_some(())
            })
            .await;
        }
        cluster
    }

    /// Returns a URL that names one server only, from which the others are found.
    pub(crate) fn url(&self) -> String {
        format!("redis-cluster://127.0.0.1:{}", self.nodes[0].port())
    }

    /// Returns a URL that names all servers.
    pub(crate) fn url_of_all(&self) -> String {
        let others: Vec<String> =
            self.nodes[1..].iter().map(|node| format!("node=127.0.0.1:{}", node.port())).collect();
        format!("{}?{}", self.url(), others.join("&"))
    }

    pub(crate) fn masters(&self) -> &[RedisServer] {
        &self.nodes[..self.masters]
    }

    pub(crate) fn newcomer(&self) -> &RedisServer {
        &self.nodes[self.masters]
    }

    pub(crate) fn node(&mut self, index: usize) -> &mut RedisServer {
        &mut self.nodes[index]
    }

    /// Returns the servers.
    pub(crate) fn into_nodes(self) -> Vec<RedisServer> {
        self.nodes
    }

    /// Returns the index of the master that an anomaly was on at the beginning.
    pub(crate) async fn master_of(&self, client: &OtherClient, anomaly: &str) -> usize {
        let slot = client.number(&["CLUSTER", "KEYSLOT", anomaly]).await;
        usize::try_from(slot).unwrap() / slots_each(self.masters)
    }
}

fn slots_each(masters: usize) -> usize {
    SLOTS.div_ceil(masters)
}

/// Starts the servers with the files that a cluster has written once it has formed.
fn try_start(masters: usize, nodes: usize, options: &[&str]) -> io::Result<Vec<RedisServer>> {
    let ports = free_ports(2 * nodes);
    let (ports, bus_ports) = ports.split_at(nodes);
    let mut servers = Vec::new();
    for myself in 0..nodes {
        let dir = TempDir::new()?;
        let file = dir.path().join("nodes.conf");
        fs::write(file, nodes_file(masters, ports, bus_ports, myself))?;
        let bus_port = bus_ports[myself].to_string();
        let arguments = [
            ("--cluster-enabled", "yes"),
            ("--cluster-port", &bus_port),
            ("--cluster-node-timeout", "1000"),
            ("--cluster-require-full-coverage", "no"),
            ("--repl-diskless-sync-delay", "0"),
        ];
        let arguments = arguments.iter().flat_map(|(name, value)| [name, value]).chain(options);
        let arguments = arguments.map(ToString::to_string).collect();
        servers.push(RedisServer::start_on(ports[myself], dir, arguments)?);
    }
    Ok(servers)
}

/// Returns one line for each node, in the format of `CLUSTER NODES`.
fn nodes_file(masters: usize, ports: &[u16], bus_ports: &[u16], myself: usize) -> String {
    let id = |node: usize| format!("{node:040x}");
    let mut file = String::new();
    for node in 0..ports.len() {
        let (port, bus_port) = (ports[node], bus_ports[node]);
        let own = if node == myself { "myself," } else { "" };
        let epoch = node % masters + 1;
        let has_replicas = ports.len() == 2 * masters;
        let role = if node >= masters && !has_replicas {
            format!("{own}master - 0 0 0 connected")
        } else if node < masters {
            let first = node * slots_each(masters);
            let last = (first + slots_each(masters)).min(SLOTS) - 1;
            format!("{own}master - 0 0 {epoch} connected {first}-{last}")
        } else {
            format!("{own}slave {} 0 0 {epoch} connected", id(node - masters))
        };
        writeln!(file, "{} 127.0.0.1:{port}@{bus_port} {role}", id(node)).unwrap();
    }
    writeln!(file, "vars currentEpoch {masters} lastVoteEpoch 0").unwrap();
    file
}
