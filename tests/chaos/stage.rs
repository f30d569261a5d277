//! The processes that the faults hit: Redis, two instances of the service, and the network between.

use std::{
    fs,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{sync::Mutex as AsyncMutex, task::JoinSet};

use crate::{
    Topology,
    faults::{Fault, Planned, Refusal},
    report::Report,
    support::{Proxy, RedisCluster, RedisServer, Service, Weather},
};

/// How long the recovery at the end may take.
const SETTLE_PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Stage {
    nodes: Vec<Node>,
    /// Keeps a cluster from losing a master together with its replica, which no cluster survives.
    one_node_at_a_time: Arc<AsyncMutex<()>>,
    instances: Vec<Instance>,
    report: Arc<Report>,
    going_on: Mutex<JoinSet<()>>,
}

/// A Redis, for one fault at a time.
type Node = Arc<AsyncMutex<RedisServer>>;

/// An instance of the service, which gets a new process after it was killed.
#[derive(Clone)]
struct Instance {
    service: Arc<Mutex<Arc<Service>>>,
    /// A process that is being killed has no disk to fill.
    one_fault_at_a_time: Arc<AsyncMutex<()>>,
    /// The proxy in front of a single Redis.
    proxy: Option<Arc<Proxy>>,
}

impl Stage {
    pub(crate) async fn build(on: Topology, report: Arc<Report>) -> Self {
        let mut instances = Vec::new();
        let nodes = match on {
            Topology::Single => {
                let redis = RedisServer::start_with(&["--appendonly", "yes"]);
                for _ in 0..2 {
                    let proxy = Proxy::to(redis.port()).await;
                    instances.push(Instance::start(&proxy.url(), Some(Arc::new(proxy))).await);
                }
                vec![redis]
            }
            Topology::Cluster => {
                let cluster = RedisCluster::durable(3).await;
                for _ in 0..2 {
                    instances.push(Instance::start(&cluster.url_of_all(), None).await);
                }
                cluster.into_nodes()
            }
        };
        Self {
            nodes: nodes.into_iter().map(|node| Arc::new(AsyncMutex::new(node))).collect(),
            one_node_at_a_time: Arc::default(),
            instances,
            report,
            going_on: Mutex::default(),
        }
    }

    pub(crate) fn report(&self) -> &Report {
        &self.report
    }

    pub(crate) fn service(&self, instance: usize) -> Arc<Service> {
        self.instances[instance].service()
    }

    pub(crate) fn services(&self) -> Vec<Arc<Service>> {
        self.instances.iter().map(Instance::service).collect()
    }

    /// Begins a fault, which ends by itself.
    pub(crate) fn inflict(&self, planned: Planned) {
        let report = Arc::clone(&self.report);
        let nodes = self.nodes.clone();
        let one_node_at_a_time = Arc::clone(&self.one_node_at_a_time);
        let instances = self.instances.clone();
        self.going_on.lock().unwrap().spawn(async move {
            let Planned { fault, lasts, .. } = planned;
            match fault {
                Fault::RedisPaused(node)
                | Fault::RedisKilled(node)
                | Fault::ScriptsForgotten(node)
                | Fault::WritesRefused(node, _) => {
                    let _alone = one_node_at_a_time.lock().await;
                    in_step(&nodes).await;
                    let mut node = nodes[node].lock().await;
                    report.begin(fault);
                    strike_node(&mut node, fault, lasts).await;
                }
                Fault::ServiceKilled(instance)
                | Fault::ServiceStopped(instance)
                | Fault::DiskFull(instance) => {
                    let instance = &instances[instance];
                    let _alone = instance.one_fault_at_a_time.lock().await;
                    report.begin(fault);
                    strike_service(instance, fault, lasts).await;
                }
                Fault::ConnectionsCut(instance)
                | Fault::ConnectionsHalfClosed(instance)
                | Fault::ConnectionsStranded(instance)
                | Fault::NetworkSlow(instance, _)
                | Fault::RepliesLost(instance)
                | Fault::BlackHole(instance) => {
                    report.begin(fault);
                    if let Some(proxy) = &instances[instance].proxy {
                        strike_network(proxy, fault, lasts).await;
                    }
                }
            }
            report.end(fault);
        });
    }

    /// Waits until all faults have ended.
    pub(crate) async fn heal(&self) {
        let going_on = std::mem::take(&mut *self.going_on.lock().unwrap());
        going_on.join_all().await;
        in_step(&self.nodes).await;
    }

    /// Waits until all spools are empty.
    pub(crate) async fn settle(&self) {
        let deadline = Instant::now() + SETTLE_PATIENCE;
        for service in self.services() {
            loop {
                let ready = service.get("/readyz").await.ok();
                if ready["status"] == "ready" && ready["spool"]["operations"] == 0 {
                    break;
                }
                assert!(Instant::now() < deadline, "it does not get well: {ready}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// The ids of an anomaly's occurrences in Redis itself.
    pub(crate) async fn timeline(&self, key: &str) -> Vec<String> {
        for node in &self.nodes {
            let client = node.lock().await.client().await;
            let replication = client.text(&["INFO", "replication"]).await.unwrap();
            let names = client.texts(&["KEYS", &format!("anomaly:timeline:*{key}*")]).await;
            if let Some(name) = names.first().filter(|_| replication.contains("role:master")) {
                return client.texts(&["ZRANGE", name, "0", "-1"]).await;
            }
        }
        Vec::new()
    }

    pub(crate) fn print_logs(&self) {
        for (number, service) in self.services().iter().enumerate() {
            println!("--- the log of instance {number} ---\n{}", service.log());
        }
    }
}

impl Instance {
    async fn start(url: &str, proxy: Option<Arc<Proxy>>) -> Self {
        let service = Service::with(&[("REDIS__URL", url)]).await;
        let service = Arc::new(Mutex::new(Arc::new(service)));
        Self { service, one_fault_at_a_time: Arc::default(), proxy }
    }

    fn service(&self) -> Arc<Service> {
        Arc::clone(&self.service.lock().unwrap())
    }
}

async fn strike_node(node: &mut RedisServer, fault: Fault, lasts: Duration) {
    match fault {
        Fault::RedisPaused(_) => {
            node.pause();
            tokio::time::sleep(lasts).await;
            node.resume();
        }
        Fault::RedisKilled(_) => {
            node.kill();
            tokio::time::sleep(lasts).await;
            node.restart();
        }
        Fault::WritesRefused(_, refusal) => {
            let [refuse, accept] = commands(refusal);
            node.client().await.run(refuse).await;
            tokio::time::sleep(lasts).await;
            node.client().await.run(accept).await;
        }
        _ => {
            node.client().await.run(&["SCRIPT", "FLUSH"]).await;
        }
    }
}

/// The commands that make a Redis refuse writes, and that make it take them again.
fn commands(refusal: Refusal) -> [&'static [&'static str]; 2] {
    match refusal {
        // Nothing listens there, so it keeps its data.
        Refusal::Readonly => [&["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]],
        Refusal::Memory => {
            [&["CONFIG", "SET", "maxmemory", "1mb"], &["CONFIG", "SET", "maxmemory", "0"]]
        }
        Refusal::Replicas => [
            &["CONFIG", "SET", "min-replicas-to-write", "9"],
            &["CONFIG", "SET", "min-replicas-to-write", "0"],
        ],
        Refusal::Permission => {
            [&["ACL", "SETUSER", "default", "-zadd"], &["ACL", "SETUSER", "default", "+zadd"]]
        }
    }
}

async fn strike_service(instance: &Instance, fault: Fault, lasts: Duration) {
    let service = instance.service();
    if matches!(fault, Fault::DiskFull(_)) {
        let spool = service.data_dir().join("spool.redb");
        service.limit_file_size(Some(fs::metadata(spool).unwrap().len()));
        tokio::time::sleep(lasts).await;
        service.limit_file_size(None);
        return;
    }
    if matches!(fault, Fault::ServiceStopped(_)) {
        service.terminate_in_use().await;
    } else {
        service.kill_in_use();
    }
    tokio::time::sleep(lasts).await;
    let successor = Arc::new(service.successor().await);
    *instance.service.lock().unwrap() = successor;
}

async fn strike_network(proxy: &Proxy, fault: Fault, lasts: Duration) {
    match fault {
        Fault::ConnectionsCut(_) => proxy.cut(),
        Fault::ConnectionsHalfClosed(_) => proxy.half_close(),
        Fault::ConnectionsStranded(_) => proxy.strand(),
        Fault::NetworkSlow(_, delay) => proxy.set(Weather::Slow(delay)),
        Fault::RepliesLost(_) => proxy.set(Weather::NoReplies),
        _ => proxy.set(Weather::BlackHole),
    }
    tokio::time::sleep(lasts).await;
    proxy.set(Weather::Fair);
}

/// Waits until every replica has caught up with its master.
async fn in_step(nodes: &[Node]) {
    let deadline = Instant::now() + SETTLE_PATIENCE;
    for node in nodes {
        let client = node.lock().await.client().await;
        loop {
            assert!(Instant::now() < deadline, "a replica does not get in step");
            let replication = client.text(&["INFO", "replication"]).await.unwrap_or_default();
            if replication.contains("role:master") || replication.contains("master_link_status:up")
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
