//! A network between the service and Redis that cuts and forgets connections, and delays and drops
//! data: no write is refused, lost or counted twice, and the service recovers by itself.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Proxy, RedisServer, Service, Weather, healthy_again, key_of, record_batches};

struct Network {
    _redis: RedisServer,
    proxy: Arc<Proxy>,
    service: Arc<Service>,
    sent: u64,
}

impl Network {
    async fn new() -> Self {
        Self::with_command_timeout("500").await
    }

    async fn with_command_timeout(milliseconds: &str) -> Self {
        let redis = RedisServer::start();
        let proxy = Arc::new(Proxy::to(redis.port()).await);
        let options = [("REDIS__URL", &*proxy.url()), ("REDIS__COMMAND_TIMEOUT_MS", milliseconds)];
        let service = Arc::new(Service::with(&options).await);
        let mut network = Self { _redis: redis, proxy, service, sent: 0 };
        assert!(!network.write_is_degraded().await, "a fair network degrades nothing");
        network
    }

    async fn write_is_degraded(&mut self) -> bool {
        self.sent += 1;
        write_is_degraded(&self.service).await
    }

    /// Lets four callers write without a pause until `during` ends.
    async fn write_while(&mut self, during: impl Future<Output = ()>) {
        let must_end = Arc::new(AtomicBool::new(false));
        let mut callers = JoinSet::new();
        for _ in 0..4 {
            let (service, must_end) = (Arc::clone(&self.service), Arc::clone(&must_end));
            callers.spawn(async move {
                let mut sent = 0;
                while !must_end.load(Ordering::Relaxed) {
                    write_is_degraded(&service).await;
                    sent += 1;
                }
                sent
            });
        }
        during.await;
        must_end.store(true, Ordering::Relaxed);
        self.sent += callers.join_all().await.into_iter().sum::<u64>();
    }

    async fn all_is_counted_once(&self) {
        healthy_again(&self.service).await;
        let path = format!("/anomalies/{}/frequency", key_of("HighCPU"));
        let read = self.service.get(&path).await.ok();
        assert_eq!(read["count_1h"], self.sent);
        assert_eq!(read["degraded"], false);
    }
}

async fn write_is_degraded(service: &Service) -> bool {
    let answer = service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await;
    assert!(answer.status.is_success(), "{} {}", answer.status, answer.body);
    answer.status == 202
}

async fn wait(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_again_and_again_lose_nothing() {
    let mut network = Network::new().await;
    let proxy = Arc::clone(&network.proxy);
    let writing = network.write_while(async move {
        for _ in 0..20 {
            wait(50).await;
            proxy.cut();
        }
    });
    writing.await;
    network.all_is_counted_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_whose_replies_are_lost_do_not_count_twice() {
    let mut network = Network::new().await;
    let proxy = Arc::clone(&network.proxy);
    let writing = network.write_while(async move {
        for _ in 0..3 {
            wait(200).await;
            proxy.set(Weather::NoReplies);
            wait(700).await;
            proxy.set(Weather::Fair);
        }
    });
    writing.await;
    network.all_is_counted_once().await;
}

#[tokio::test]
async fn a_slow_network_is_waited_for_and_one_that_is_too_slow_is_not() {
    let mut network = Network::with_command_timeout("2000").await;
    network.proxy.set(Weather::Slow(Duration::from_millis(100)));
    for _ in 0..3 {
        assert!(!network.write_is_degraded().await);
    }
    network.proxy.set(Weather::Slow(Duration::from_millis(3_000)));
    assert!(network.write_is_degraded().await);
    let batches = record_batches(&network.service).await;
    assert!(network.write_is_degraded().await);
    assert_eq!(record_batches(&network.service).await, batches, "the next one is not sent at all");
    network.proxy.set(Weather::Fair);
    network.all_is_counted_once().await;
}

#[tokio::test]
async fn connections_that_a_firewall_has_forgotten_are_replaced() {
    let mut network = Network::new().await;
    network.proxy.strand();
    assert!(network.write_is_degraded().await);
    // TCP by itself would take a quarter of an hour.
    network.all_is_counted_once().await;
    assert!(!network.write_is_degraded().await);
    // The firewall may also have forgotten only one of the two connections.
    network.proxy.strand_all_but_the_last();
    for _ in 0..10 {
        network.write_is_degraded().await;
    }
    network.all_is_counted_once().await;
    for _ in 0..10 {
        assert!(!network.write_is_degraded().await);
    }
}

#[tokio::test]
async fn a_redis_behind_a_black_hole_is_found_again_once_it_is_reachable() {
    let mut network = Network::new().await;
    network.proxy.set(Weather::BlackHole);
    for _ in 0..5 {
        assert!(network.write_is_degraded().await);
    }
    // Long enough for new connections to be opened into the black hole.
    wait(4_000).await;
    network.proxy.set(Weather::Fair);
    network.all_is_counted_once().await;
    assert!(!network.write_is_degraded().await);
}

#[tokio::test]
async fn after_redis_closes_its_half_of_a_connection_the_service_reconnects() {
    let mut network = Network::new().await;
    for _ in 0..5 {
        network.proxy.half_close();
        wait(100).await;
        network.write_is_degraded().await;
    }
    network.all_is_counted_once().await;
    assert!(!network.write_is_degraded().await);
}
