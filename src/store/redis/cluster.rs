//! A Redis Cluster: a client for each master, and the map of the slots that the masters serve.
//!
//! fred's own cluster client is not used, because one of its tasks serves all masters: when one
//! master was killed, calls to all others stalled for 2.8 s, and when one was paused, the promotion
//! of its replica went unnoticed during the whole pause. With a client for each master, an
//! unavailable master delays no other.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::Arc,
    time::Duration,
};

use fred::types::{Value, config::Server};
use futures_util::future::{join_all, select_ok};
use parking_lot::{Mutex, RwLock};
use tokio::{
    sync::watch,
    time::{self, Instant},
};

use super::{
    calls::Calls,
    client::Client,
    fault::Declined,
    link::ClientConfig,
    script::Call,
    slots::{SLOTS, SlotRange, read_slots, server_at, slot_of_tag},
};
use crate::store::{Cause, Resets, Shard, StoreError};

/// The shard of slots that no known master serves: all slots, until a server was reached.
const NOBODY: Shard = Shard(0);

/// Pause between two attempts of a call that servers redirect to each other.
const MOVED_PAUSE: Duration = Duration::from_millis(20);

const SLOTS_COMMAND: &[&str] = &["CLUSTER", "SLOTS"];
const STATE_COMMAND: &[&str] = &["CLUSTER", "INFO"];
const STATE_OK: &str = "cluster_state:ok";

/// Maximum number of times that a probe follows moved slots.
const MAX_MOVES_OF_CHECK: usize = 3;
/// The keys of probes are tagged with numbers below this one, of which some 60 fall into each slot.
const MAX_TAG: u32 = 1_000_000;
/// Maximum number of probe keys that are tried if their slots are moving.
const MAX_TAGS_TRIED: usize = 8;

pub(super) struct Cluster {
    config: ClientConfig,
    /// The servers named in the configuration.
    seeds: Vec<Server>,
    map: RwLock<Arc<SlotMap>>,
    /// Held while the map is read, by one caller at a time. Contains the last failure.
    refreshing: tokio::sync::Mutex<Option<FailedRefresh>>,
    /// Servers that slots are moving to and that do not serve any slots yet.
    newcomers: tokio::sync::Mutex<HashMap<Server, Arc<Master>>>,
    /// The number of each server that has ever been a master. It never changes.
    numbers: Mutex<HashMap<Server, Shard>>,
    resets: Arc<watch::Sender<Resets>>,
}

/// The master of each slot.
struct SlotMap {
    owners: Vec<Shard>,
    masters: BTreeMap<Shard, Arc<Master>>,
}

struct Master {
    server: Server,
    client: Client,
}

struct FailedRefresh {
    at: Instant,
    fault: StoreError,
}

/// The servers to read the map from.
#[derive(Clone, Copy)]
enum Ask<'a> {
    /// A server that has redirected a call, and therefore knows the new master.
    Only(&'a Master),
    /// The first one that answers, except for one that may be isolated from the cluster.
    AllBut(Shard),
}

impl Cluster {
    /// Reads the map from the first of the seeds that answers, or starts without a map.
    pub(super) async fn start(
        config: ClientConfig,
        seeds: Vec<Server>,
        resets: Arc<watch::Sender<Resets>>,
    ) -> Self {
        let nothing = SlotMap { owners: vec![NOBODY; SLOTS], masters: BTreeMap::new() };
        let cluster = Self {
            config,
            seeds,
            map: RwLock::new(Arc::new(nothing)),
            refreshing: tokio::sync::Mutex::default(),
            newcomers: tokio::sync::Mutex::default(),
            numbers: Mutex::default(),
            resets,
        };
        if let Err(fault) = cluster.refresh(&cluster.map(), Ask::AllBut(NOBODY)).await {
            tracing::debug!(%fault, "no server of the cluster answers yet");
        }
        cluster
    }

    /// Runs a script whose keys are all in `slot`, on the server that has the slot or that the slot
    /// moves to, within the timeout of a command.
    pub(super) async fn run(&self, slot: u16, call: Call) -> Result<Value, StoreError> {
        let timeout = self.config.command_timeout;
        time::timeout(timeout, self.follow(slot, call)).await.unwrap_or_else(|_| {
            let text = format!("slot {slot} of the Redis Cluster was not reached in time");
            Err(StoreError::indeterminate(Cause::Timeout, text))
        })
    }

    async fn follow(&self, slot: u16, call: Call) -> Result<Value, StoreError> {
        let mut has_moved = false;
        loop {
            let map = self.map();
            let Some(master) = map.masters.get(&map.owners[usize::from(slot)]) else {
                let text = format!("no server of the Redis Cluster serves slot {slot}");
                return Err(StoreError::transient(Cause::Cluster, text));
            };
            let mut declined = master.client.run(call.clone()).await;
            if let Err(Declined::Ask(address)) = &declined {
                // A rare case, whose future must not make that of each call as large.
                declined = Box::pin(self.run_asking(address, master, call.clone())).await;
            }
            match declined {
                Ok(answer) => return Ok(answer),
                Err(Declined::Moved(_)) => {
                    if mem::replace(&mut has_moved, true) {
                        time::sleep(MOVED_PAUSE).await;
                    }
                    self.refresh(&map, Ask::Only(master)).await?;
                }
                // While the keys of a call are split between two servers, neither server takes it.
                // A key that does not exist counts as missing.
                Err(Declined::TryAgain(text) | Declined::Ask(text)) => {
                    return Err(StoreError::moving(format!("slot {slot} is being moved: {text}")));
                }
                Err(Declined::Fault(fault)) => return Err(fault),
            }
        }
    }

    /// Runs a command on one master. If its slot has moved, the map is read again, and the call
    /// fails: for the uses of this call, the next attempt is soon enough.
    pub(super) async fn send(
        &self,
        shard: Shard,
        name: &'static str,
        arguments: Vec<Value>,
    ) -> Result<Value, StoreError> {
        let map = self.map();
        let Some(master) = map.masters.get(&shard) else {
            return Err(StoreError::transient(Cause::Cluster, "the shard has no server"));
        };
        match master.client.send(name, arguments).await {
            Ok(answer) => Ok(answer),
            Err(Declined::Moved(text)) => {
                self.refresh(&map, Ask::Only(master)).await?;
                Err(StoreError::moving(text))
            }
            Err(declined) => Err(declined.into()),
        }
    }

    /// Returns the master that serves a slot.
    pub(super) fn shard(&self, slot: u16) -> Shard {
        self.map().owners[usize::from(slot)]
    }

    /// Returns all masters.
    pub(super) fn shards(&self) -> Vec<Shard> {
        let map = self.map();
        if map.masters.is_empty() { vec![NOBODY] } else { map.masters.keys().copied().collect() }
    }

    /// Checks that a master takes writes. A master that no longer serves a slot passes.
    pub(super) async fn check(&self, shard: Shard, calls: &Calls) -> Result<(), StoreError> {
        let mut moves = 0;
        let (map, fault) = loop {
            let map = self.map();
            let Some(master) = map.masters.get(&shard) else {
                let text = "some slots of the Redis Cluster have no server";
                break (map, StoreError::transient(Cause::Cluster, text));
            };
            match master.check(map.tags(shard), calls).await {
                Ok(()) => return Ok(()),
                // The server answers: the map is out of date, as after a resharding without a write
                // since.
                Err(Declined::Moved(_)) if moves < MAX_MOVES_OF_CHECK => {
                    if moves > 0 {
                        time::sleep(MOVED_PAUSE).await;
                    }
                    moves += 1;
                    self.refresh(&map, Ask::Only(master)).await?;
                }
                Err(declined) => {
                    let fault = declined.into();
                    break (map, fault);
                }
            }
        };
        self.refresh(&map, Ask::AllBut(shard)).await?;
        let serves_slots = self.map().owners.contains(&shard);
        if serves_slots { Err(fault) } else { Ok(()) }
    }

    pub(super) async fn identity(&self, shard: Shard) -> Option<String> {
        let master = Arc::clone(self.map().masters.get(&shard)?);
        master.client.identity().await
    }

    pub(super) async fn close(&self) {
        join_all(self.map().masters.values().map(|master| master.client.close())).await;
    }

    async fn run_asking(
        &self,
        address: &str,
        asked: &Master,
        call: Call,
    ) -> Result<Value, Declined> {
        let Some(server) = server_at(address, &asked.server) else {
            return Err(Declined::Ask(address.to_owned()));
        };
        let map = self.map();
        if let Some(master) = map.masters.values().find(|master| master.server == server) {
            return master.client.run_asking(call).await;
        }
        let mut newcomers = self.newcomers.lock().await;
        let newcomer = match newcomers.get(&server) {
            Some(newcomer) => Arc::clone(newcomer),
            None => {
                let newcomer = Arc::new(self.connect(server.clone()).await);
                newcomers.insert(server, Arc::clone(&newcomer));
                newcomer
            }
        };
        drop(newcomers);
        newcomer.client.run_asking(call).await
    }

    /// Reads the map again, unless another call has done so since `seen`.
    async fn refresh(&self, seen: &Arc<SlotMap>, whom: Ask<'_>) -> Result<(), StoreError> {
        let asked_at = Instant::now();
        let mut last_failure = self.refreshing.lock().await;
        let map = self.map();
        if !Arc::ptr_eq(&map, seen) {
            return Ok(());
        }
        // Another call has failed to read it while this one waited.
        if let Some(failed) = last_failure.as_ref().filter(|failed| failed.at >= asked_at) {
            return Err(failed.fault.clone());
        }
        let ranges = match whom {
            Ask::Only(master) => master.slots().await,
            Ask::AllBut(suspect) => self.slots_of_anyone(&map, suspect).await,
        };
        match ranges {
            Ok(ranges) => {
                self.adopt(&map, ranges).await;
                Ok(())
            }
            Err(fault) => {
                // Whatever the fault is, the call that needs the map was not made.
                let fault = StoreError::transient(fault.cause(), fault.to_string());
                *last_failure = Some(FailedRefresh { at: Instant::now(), fault: fault.clone() });
                Err(fault)
            }
        }
    }

    async fn slots_of_anyone(
        &self,
        map: &SlotMap,
        suspect: Shard,
    ) -> Result<Vec<SlotRange>, StoreError> {
        let others = map.masters.iter().filter(|(shard, _)| **shard != suspect);
        let asked: Vec<_> =
            others.map(|(_, master)| Box::pin(master.slots_if_connected())).collect();
        if !asked.is_empty()
            && let Ok((ranges, _)) = select_ok(asked).await
        {
            return Ok(ranges);
        }
        // All at once, because unavailable seeds must not delay the start one after the other.
        let answers = join_all(self.seeds.iter().map(|seed| async {
            let seed = self.connect(seed.clone()).await;
            let answer = seed.slots_if_connected().await;
            seed.client.close().await;
            answer
        }));
        let none = Err(StoreError::transient(Cause::Cluster, "the URL names no server"));
        answers.await.into_iter().fold(none, Result::or)
    }

    /// Installs `ranges` as the map. Masters that remain keep their connections.
    async fn adopt(&self, old: &SlotMap, ranges: Vec<SlotRange>) {
        let mut owners = vec![NOBODY; SLOTS];
        let mut servers = BTreeMap::new();
        for SlotRange { first, last, master } in ranges {
            let shard = self.number(&master);
            owners[usize::from(first)..=usize::from(last)].fill(shard);
            servers.insert(shard, master);
        }
        let newcomers = mem::take(&mut *self.newcomers.lock().await);
        let masters = join_all(servers.into_iter().map(|(shard, server)| {
            let known = old.masters.get(&shard).or_else(|| newcomers.get(&server)).cloned();
            async move {
                match known {
                    Some(master) => (shard, master),
                    None => (shard, Arc::new(self.connect(server).await)),
                }
            }
        }));
        let masters: BTreeMap<_, _> = masters.await.into_iter().collect();
        // A new master of a slot may lack writes that the previous one acknowledged.
        let have_moved = !old.masters.is_empty() && old.owners != owners;
        let map = Arc::new(SlotMap { owners, masters: masters.clone() });
        *self.map.write() = map;
        if have_moved {
            self.resets.send_modify(|resets| resets.certain += 1);
        }
        let known = old.masters.values().chain(newcomers.values());
        for removed in known.filter(|one| !masters.values().any(|stays| Arc::ptr_eq(one, stays))) {
            let removed = Arc::clone(removed);
            tokio::spawn(async move { removed.client.close().await });
        }
    }

    async fn connect(&self, server: Server) -> Master {
        let config = self.config.of_node(server.clone());
        let client = Client::start(config, Arc::clone(&self.resets));
        client.connected().await;
        Master { server, client }
    }

    fn number(&self, server: &Server) -> Shard {
        let mut numbers = self.numbers.lock();
        let next = u16::try_from(numbers.len() + 1).unwrap_or(u16::MAX);
        *numbers.entry(server.clone()).or_insert(Shard(next))
    }

    fn map(&self) -> Arc<SlotMap> {
        Arc::clone(&self.map.read())
    }
}

impl SlotMap {
    /// Returns tags of keys in slots of a shard.
    fn tags(&self, shard: Shard) -> impl Iterator<Item = String> {
        (0..MAX_TAG)
            .map(|number| number.to_string())
            .filter(move |tag| self.owners[usize::from(slot_of_tag(tag))] == shard)
    }
}

impl Master {
    /// Checks that the master takes writes.
    async fn check(
        &self,
        tags: impl Iterator<Item = String>,
        calls: &Calls,
    ) -> Result<(), Declined> {
        for tag in tags.take(MAX_TAGS_TRIED) {
            match self.client.probe(&calls.probe(Some(&tag))).await {
                // Another slot may not be moving.
                Err(Declined::Ask(_) | Declined::TryAgain(_)) => {}
                answer => return answer,
            }
        }
        // The master answers, but has no slot in which it could take a new key.
        Ok(())
    }

    async fn slots(&self) -> Result<Vec<SlotRange>, StoreError> {
        let ranges = read_slots(self.client.ask(SLOTS_COMMAND).await?, &self.server)?;
        if ranges.is_empty() {
            // A server that was restarted without its nodes.conf no longer belongs to a cluster.
            let server = &self.server;
            return Err(StoreError::transient(
                Cause::Cluster,
                format!("{server} reports no slots of a Redis Cluster"),
            ));
        }
        Ok(ranges)
    }

    /// Returns the slots, unless the server is isolated from the others: its map would be out of
    /// date.
    async fn slots_if_connected(&self) -> Result<Vec<SlotRange>, StoreError> {
        self.state().await?;
        self.slots().await
    }

    /// Checks that the server is not isolated from the rest of the cluster, if it reports that.
    async fn state(&self) -> Result<(), StoreError> {
        let info = match self.client.ask(STATE_COMMAND).await {
            Ok(info) => info.into_string().unwrap_or_default(),
            Err(fault) if fault.cause() == Cause::Permission => return Ok(()),
            Err(fault) => return Err(fault),
        };
        if info.contains(STATE_OK) {
            return Ok(());
        }
        let server = &self.server;
        Err(StoreError::transient(
            Cause::Cluster,
            format!("{server} reports that the Redis Cluster is down"),
        ))
    }
}
