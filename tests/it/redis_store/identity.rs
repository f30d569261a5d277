//! The identity of a server: signs that it may be another one than before, and the check of them.

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use anomaly_counter::store::{RecordOutcome, Resets, Store};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

use super::{QUIET, outcomes, store_at, takes_writes};
use crate::support::{Proxy, RedisServer, Service, eventually, occurrence, start_of_tests};

fn suspected(store: &Arc<dyn Store>) -> u64 {
    let Resets { suspected, certain } = *store.resets().unwrap().borrow();
    assert_eq!(certain, 0);
    suspected
}

async fn identity(store: &Arc<dyn Store>) -> Option<String> {
    store.identity(store.shards()[0]).await
}

#[tokio::test]
async fn a_broken_connection_is_suspected_and_cleared_by_the_same_identity() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.port()).await;
    let store = store_at(&proxy.url()).await;
    takes_writes(&store).await;
    let before = identity(&store).await;
    assert!(before.is_some());
    let resets = suspected(&store);
    redis.client().await.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    eventually("the connections are made again", || async {
        (suspected(&store) >= resets + 2).then_some(())
    })
    .await;
    takes_writes(&store).await;
    assert_eq!(identity(&store).await, before);
}

#[tokio::test]
async fn a_server_that_was_restarted_or_was_a_replica_has_another_identity() {
    let mut redis = RedisServer::start();
    let store = store_at(&redis.url()).await;
    takes_writes(&store).await;
    let before = identity(&store).await;
    redis.restart();
    takes_writes(&store).await;
    let restarted = identity(&store).await;
    assert!(restarted.is_some());
    assert_ne!(restarted, before);

    let (client, now) = (redis.client().await, start_of_tests());
    let resets = suspected(&store);
    client.run(&["REPLICAOF", "127.0.0.1", "1"]).await;
    outcomes(&store, now, vec![occurrence(QUIET, "1", now)]).await.pop().unwrap().unwrap_err();
    client.run(&["REPLICAOF", "NO", "ONE"]).await;
    takes_writes(&store).await;
    assert!(suspected(&store) > resets);
    assert_ne!(identity(&store).await, restarted);
}

/// An address that can lead new connections to another server, as a virtual IP address does.
struct Address {
    url: String,
    target: Arc<AtomicU16>,
}

impl Address {
    async fn of(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let target = Arc::new(AtomicU16::new(port));
        let leads_to = Arc::clone(&target);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let server = ("127.0.0.1", leads_to.load(Ordering::Relaxed));
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(server).await?;
                    copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        Self { url, target }
    }
}

/// The address leads to a successor, and the connections to the demoted master stay open.
#[tokio::test]
async fn after_a_master_is_demoted_in_place_the_store_connects_to_its_successor() {
    let (demoted, successor) = (RedisServer::start(), RedisServer::start());
    let address = Address::of(demoted.port()).await;
    let (store, now) = (store_at(&address.url).await, start_of_tests());
    outcomes(&store, now, vec![occurrence(QUIET, "1", now)]).await.pop().unwrap().unwrap();
    address.target.store(successor.port(), Ordering::Relaxed);
    let port = successor.port().to_string();
    demoted.client().await.run(&["REPLICAOF", "127.0.0.1", &port]).await;
    let event = vec![occurrence(QUIET, "2", now)];
    outcomes(&store, now, event.clone()).await.pop().unwrap().unwrap_err();
    takes_writes(&store).await;
    assert_eq!(outcomes(&store, now, event).await, [Ok(RecordOutcome::Counted)]);
    let timelines = successor.client().await.texts(&["KEYS", "anomaly:timeline:*"]).await;
    assert_eq!(timelines.len(), 1);
}

#[tokio::test]
async fn a_policy_that_evicts_keys_is_one_warning() {
    let redis = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let service = Service::on_redis(&redis).await;
    let warnings = || {
        let log = service.log();
        log.lines().filter(|line| line.contains("allkeys-lru")).map(str::to_owned).collect()
    };
    let seen: Vec<String> = eventually("the log warns", || async {
        let warnings: Vec<String> = warnings();
        (!warnings.is_empty()).then_some(warnings)
    })
    .await;
    assert!(seen[0].contains("\"WARN\""), "{seen:?}");
    redis.client().await.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    service.post("/anomalies", &serde_json::json!({"alert_name": "HighCPU"})).await;
    assert_eq!(warnings().len(), 1);
}
