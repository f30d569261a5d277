//! The processes that the faults hit: Redis, two instances of the service, and the network between;
//! or one instance on the embedded store, with its disk and clock.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::json;
use tokio::{
    sync::{Mutex as AsyncMutex, RwLock},
    task::JoinSet,
};

use crate::{
    Topology,
    faults::{Fault, Planned, Refusal},
    machine::Machine,
    report::Report,
    support::{Proxy, RedisCluster, RedisServer, Service, Weather},
};

/// Maximum time of the recovery at the end.
const SETTLE_PATIENCE: Duration = Duration::from_secs(120);
/// Maximum time until the embedded store notices that its disk works again.
const DISK_PATIENCE: Duration = Duration::from_secs(5);
/// The time within which a spool is reopened once its disk works again.
const SPOOL_REOPEN_TIME: Duration = Duration::from_millis(1_200);

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
    /// Held for reading by the faults in which no process may be replaced: a dead process has no
    /// disk to fill, and a new one would begin in an empty folder, or with a wrong clock that it
    /// has to trust.
    replacing: Arc<RwLock<()>>,
    /// Locks for the faults of the disk's space, of a hanging disk and of the clock: those of one
    /// kind exclude each other.
    space: Arc<AsyncMutex<()>>,
    hanging: Arc<AsyncMutex<()>>,
    clock: Arc<AsyncMutex<()>>,
    /// The proxy in front of a single Redis.
    proxy: Option<Arc<Proxy>>,
    /// The machine of the embedded store.
    machine: Option<Arc<Machine>>,
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
            Topology::Embedded => {
                instances.push(Instance::embedded().await);
                Vec::new()
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

    pub(crate) fn instances(&self) -> usize {
        self.instances.len()
    }

    pub(crate) fn has_redis(&self) -> bool {
        !self.nodes.is_empty()
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
                Fault::ServiceKilled(instance) | Fault::ServiceStopped(instance) => {
                    let instance = &instances[instance];
                    let _alone = instance.replacing.write().await;
                    report.begin(fault);
                    replace_service(instance, fault, lasts).await;
                }
                Fault::DiskFull(instance) | Fault::DataDirMoved(instance) => {
                    let instance = &instances[instance];
                    let _alone = instance.space.lock().await;
                    let _stays = instance.replacing.read().await;
                    report.begin(fault);
                    strike_space(instance, fault, lasts).await;
                    instance.takes_writes_again().await;
                }
                Fault::DiskHangs(instance) => {
                    let instance = &instances[instance];
                    let _alone = instance.hanging.lock().await;
                    report.begin(fault);
                    if let Some(machine) = &instance.machine {
                        machine.stall(true);
                        tokio::time::sleep(lasts).await;
                        machine.stall(false);
                        instance.takes_writes_again().await;
                    }
                }
                Fault::ClockJumps(instance, offset) => {
                    let instance = &instances[instance];
                    let _alone = instance.clock.lock().await;
                    let _stays = instance.replacing.read().await;
                    report.begin(fault);
                    if let Some(machine) = &instance.machine {
                        machine.set_clock(offset);
                        tokio::time::sleep(lasts).await;
                        machine.set_clock("+0s");
                    }
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
                assert!(Instant::now() < deadline, "it does not become ready: {ready}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Returns the ids of an anomaly's occurrences in Redis itself, if there is one.
    pub(crate) async fn timeline(&self, key: &str) -> Option<BTreeSet<String>> {
        if !self.has_redis() {
            return None;
        }
        for node in &self.nodes {
            let client = node.lock().await.client().await;
            let replication = client.text(&["INFO", "replication"]).await.unwrap();
            let names = client.texts(&["KEYS", &format!("anomaly:timeline:*{key}*")]).await;
            if let Some(name) = names.first().filter(|_| replication.contains("role:master")) {
                let ids = client.texts(&["ZRANGE", name, "0", "-1"]).await;
                return Some(ids.into_iter().collect());
            }
        }
        Some(BTreeSet::new())
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
        Self::of(service, proxy, None)
    }

    async fn embedded() -> Self {
        let machine = Machine::build();
        let environment = machine.environment();
        let variables: Vec<(&str, &str)> =
            environment.iter().map(|(name, value)| (&**name, &**value)).collect();
        let service = Service::with_environment(&variables).await;
        Self::of(service, None, Some(Arc::new(machine)))
    }

    fn of(service: Service, proxy: Option<Arc<Proxy>>, machine: Option<Arc<Machine>>) -> Self {
        Self {
            service: Arc::new(Mutex::new(Arc::new(service))),
            replacing: Arc::default(),
            space: Arc::default(),
            hanging: Arc::default(),
            clock: Arc::default(),
            proxy,
            machine,
        }
    }

    /// Returns the file that holds the acknowledged writes of the instance.
    fn file(&self) -> PathBuf {
        let name = if self.machine.is_some() { "anomalies.redb" } else { "spool.redb" };
        self.service().data_dir().join(name)
    }

    /// Waits until the service has noticed that its disk works again, up to the time that this may
    /// take. On Redis no write can wait until the spool is reopened, which is tried once a second.
    async fn takes_writes_again(&self) {
        if self.machine.is_none() {
            return tokio::time::sleep(SPOOL_REOPEN_TIME).await;
        }
        let deadline = Instant::now() + DISK_PATIENCE;
        let event = json!({"alert_name": "Disk", "event_id": "once"});
        while Instant::now() < deadline {
            let request = self.service().request(Method::POST, "/anomalies").json(&event);
            if request.send().await.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
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

/// Returns the commands that make a Redis refuse writes, and those that make it accept them again.
fn commands(refusal: Refusal) -> [&'static [&'static str]; 2] {
    match refusal {
        // Nothing listens on that port, so it keeps its data.
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

async fn strike_space(instance: &Instance, fault: Fault, lasts: Duration) {
    let service = instance.service();
    if matches!(fault, Fault::DataDirMoved(_)) {
        let (data_dir, elsewhere) = (service.data_dir(), service.dir().join("elsewhere"));
        fs::rename(&data_dir, &elsewhere).unwrap();
        tokio::time::sleep(lasts).await;
        fs::rename(&elsewhere, &data_dir).unwrap();
    } else {
        // The embedded store seldom needs more space than its file has, so half of that is taken
        // away too.
        let share = if instance.machine.is_some() { 2 } else { 1 };
        service.limit_file_size(Some(fs::metadata(instance.file()).unwrap().len() / share));
        tokio::time::sleep(lasts).await;
        service.limit_file_size(None);
    }
}

async fn replace_service(instance: &Instance, fault: Fault, lasts: Duration) {
    let service = instance.service();
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
            assert!(Instant::now() < deadline, "a replica does not catch up");
            let replication = client.text(&["INFO", "replication"]).await.unwrap_or_default();
            if replication.contains("role:master") || replication.contains("master_link_status:up")
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
