//! A Redis Cluster: a client for each master, and the map of the slots that they serve.
//!
//! fred's own cluster client is not used. One task of it serves all masters: when one was killed, calls
//! to all others stood still for 2.8 s, and when one was paused, its replica's promotion went unseen
//! for as long as the pause. With a client for each, a master that is away holds up no other.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use fred::types::{Value, config::Server};
use futures_util::future::{join_all, select_ok};
use tokio::{sync::watch, time::Instant};

use super::{
    client::{Client, ClientConfig},
    fault::Declined,
    script::Call,
    slots::{SLOTS, SlotRange, read_slots, server_at},
};
use crate::store::{Shard, StoreError};

/// Slots that no known master serves: all of them until a server of the cluster was reached.
const NOBODY: Shard = Shard(0);

/// While a slot's keys are in part on another server, so long until the next try.
const MOVING_PAUSE: Duration = Duration::from_millis(20);

const SLOTS_COMMAND: &[&str] = &["CLUSTER", "SLOTS"];
const STATE_COMMAND: &[&str] = &["CLUSTER", "INFO"];
const STATE_IS_GOOD: &str = "cluster_state:ok";

pub(super) struct Cluster {
    config: ClientConfig,
    /// Where the configuration says that servers of the cluster are.
    seeds: Vec<Server>,
    map: RwLock<Arc<SlotMap>>,
    /// One at a time asks for the map.
    refreshing: tokio::sync::Mutex<()>,
    /// The number of each server that has ever been a master; it stays the same.
    numbers: Mutex<HashMap<Server, Shard>>,
    resets: Arc<watch::Sender<u64>>,
}

/// Which master serves which slot.
struct SlotMap {
    owners: Vec<Shard>,
    masters: BTreeMap<Shard, Arc<Master>>,
}

struct Master {
    server: Server,
    client: Client,
}

impl Cluster {
    /// Asks the first of the seeds that answers for the map, or goes on without one.
    pub(super) async fn start(
        config: ClientConfig,
        seeds: Vec<Server>,
        resets: Arc<watch::Sender<u64>>,
    ) -> Self {
        let nothing = SlotMap { owners: vec![NOBODY; SLOTS], masters: BTreeMap::new() };
        let cluster = Self {
            config,
            seeds,
            map: RwLock::new(Arc::new(nothing)),
            refreshing: tokio::sync::Mutex::default(),
            numbers: Mutex::default(),
            resets,
        };
        if let Err(fault) = cluster.refresh(&cluster.map(), None).await {
            tracing::debug!(%fault, "no server of the cluster answers yet");
        }
        cluster
    }

    /// Runs a script whose keys are all in `slot`, wherever that is or moves to.
    pub(super) async fn run(&self, slot: u16, call: Call) -> Result<Value, StoreError> {
        let deadline = Instant::now() + self.config.command_timeout();
        loop {
            let map = self.map();
            let Some(master) = map.masters.get(&map.owners[usize::from(slot)]) else {
                let text = format!("no server of the Redis Cluster serves slot {slot}");
                return Err(StoreError::Transient(text));
            };
            let declined = match master.client.run(call.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(declined) => declined,
            };
            let is_late = Instant::now() > deadline;
            match declined {
                // Whoever sends away knows where to.
                Declined::Moved(_) if !is_late => self.refresh(&map, Some(master)).await?,
                Declined::Ask(address) if !is_late => {
                    match self.run_asking(&address, master, call.clone()).await {
                        Err(Declined::TryAgain(_)) => tokio::time::sleep(MOVING_PAUSE).await,
                        answer => return answer.map_err(StoreError::from),
                    }
                }
                Declined::TryAgain(_) if !is_late => tokio::time::sleep(MOVING_PAUSE).await,
                declined => return Err(declined.into()),
            }
        }
    }

    /// The master that serves a slot.
    pub(super) fn shard(&self, slot: u16) -> Shard {
        self.map().owners[usize::from(slot)]
    }

    /// All masters.
    pub(super) fn shards(&self) -> Vec<Shard> {
        let map = self.map();
        if map.masters.is_empty() { vec![NOBODY] } else { map.masters.keys().copied().collect() }
    }

    /// Asks whether a master takes calls. One that serves no slot any more has nothing left to fail at.
    pub(super) async fn check(&self, shard: Shard) -> Result<(), StoreError> {
        let map = self.map();
        let fault = match map.masters.get(&shard) {
            Some(master) => match master.state().await {
                Ok(()) => return Ok(()),
                Err(fault) => fault,
            },
            None => StoreError::Transient("slots of the Redis Cluster have no server".to_owned()),
        };
        self.refresh(&map, None).await?;
        let map = self.map();
        let is_away = map.owners.contains(&shard);
        if is_away { Err(fault) } else { Ok(()) }
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
        // It serves no slot of its own yet.
        let fresh = self.connect(server).await;
        let answer = fresh.client.run_asking(call).await;
        fresh.client.close().await;
        answer
    }

    /// Asks for the map anew: `knowing`, or else whoever answers first; unless somebody has done so
    /// since `seen`.
    async fn refresh(
        &self,
        seen: &Arc<SlotMap>,
        knowing: Option<&Arc<Master>>,
    ) -> Result<(), StoreError> {
        let _one_at_a_time = self.refreshing.lock().await;
        let map = self.map();
        if !Arc::ptr_eq(&map, seen) {
            return Ok(());
        }
        let ranges = match knowing {
            Some(master) => master.slots().await?,
            None => self.slots_of_anyone(&map).await?,
        };
        self.adopt(&map, ranges).await;
        Ok(())
    }

    async fn slots_of_anyone(&self, map: &SlotMap) -> Result<Vec<SlotRange>, StoreError> {
        if !map.masters.is_empty() {
            let asked = map.masters.values().map(|master| Box::pin(master.slots()));
            if let Ok((ranges, _)) = select_ok(asked).await {
                return Ok(ranges);
            }
        }
        let mut last = StoreError::Transient("the URL names no server".to_owned());
        for seed in &self.seeds {
            let seed = self.connect(seed.clone()).await;
            let answer = seed.slots().await;
            seed.client.close().await;
            match answer {
                Ok(ranges) => return Ok(ranges),
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    /// Makes `ranges` the map. Masters that stay keep their connections.
    async fn adopt(&self, old: &SlotMap, ranges: Vec<SlotRange>) {
        let mut owners = vec![NOBODY; SLOTS];
        let mut servers = BTreeMap::new();
        for SlotRange { first, last, master } in ranges {
            let shard = self.number(&master);
            owners[usize::from(first)..=usize::from(last)].fill(shard);
            servers.insert(shard, master);
        }
        let masters = join_all(servers.into_iter().map(|(shard, server)| async move {
            match old.masters.get(&shard) {
                Some(master) => (shard, Arc::clone(master)),
                None => (shard, Arc::new(self.connect(server).await)),
            }
        }));
        let masters: BTreeMap<_, _> = masters.await.into_iter().collect();
        for (shard, master) in &old.masters {
            if !masters.contains_key(shard) {
                let gone = Arc::clone(master);
                tokio::spawn(async move { gone.client.close().await });
            }
        }
        // A new master of a slot may lack what the one before it has acknowledged.
        let has_moved = |(old, new): (&Shard, &Shard)| *old != NOBODY && old != new;
        if old.owners.iter().zip(&owners).any(has_moved) {
            self.resets.send_modify(|resets| *resets += 1);
        }
        *self.map.write().unwrap_or_else(PoisonError::into_inner) =
            Arc::new(SlotMap { owners, masters });
    }

    async fn connect(&self, server: Server) -> Master {
        let config = self.config.of_node(server.clone());
        let client = Client::start(config, Arc::clone(&self.resets));
        client.connected().await;
        Master { server, client }
    }

    fn number(&self, server: &Server) -> Shard {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let next = u16::try_from(numbers.len() + 1).unwrap_or(u16::MAX);
        *numbers.entry(server.clone()).or_insert(Shard(next))
    }

    fn map(&self) -> Arc<SlotMap> {
        Arc::clone(&self.map.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Master {
    async fn slots(&self) -> Result<Vec<SlotRange>, StoreError> {
        read_slots(self.client.ask(SLOTS_COMMAND).await?, &self.server)
    }

    /// Whether it answers, and is not cut off from the rest of the cluster.
    async fn state(&self) -> Result<(), StoreError> {
        let info = self.client.probe(STATE_COMMAND).await?.into_string().unwrap_or_default();
        if info.contains(STATE_IS_GOOD) {
            return Ok(());
        }
        let server = &self.server;
        Err(StoreError::Transient(format!("{server} finds that the Redis Cluster is down")))
    }
}
