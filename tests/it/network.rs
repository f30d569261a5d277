//! A network between the service and Redis that cuts, delays, swallows and forgets: no write is
//! refused, none lost, none counted twice, and the service finds back by itself.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Proxy, RedisServer, Service, Weather, healthy_again, key_of};

struct Network {
    _redis: RedisServer,
    proxy: Arc<Proxy>,
    service: Arc<Service>,
    sent: u64,
}

impl Network {
    async fn new() -> Self {
        let redis = RedisServer::start();
        let proxy = Arc::new(Proxy::to(redis.port()).await);
        let service = Arc::new(Service::with(&[("REDIS__URL", &proxy.url())]).await);
        let mut network = Self { _redis: redis, proxy, service, sent: 0 };
        assert!(!network.write().await.is_degraded, "a fair network degrades nothing");
        network
    }

    async fn write(&mut self) -> Write {
        self.sent += 1;
        write(&self.service).await
    }

    /// Has four callers write without a pause until `during` is done. Answers the longest write.
    async fn write_while(&mut self, during: impl Future<Output = ()>) -> Duration {
        let must_end = Arc::new(AtomicBool::new(false));
        let mut callers = JoinSet::new();
        for _ in 0..4 {
            let (service, must_end) = (Arc::clone(&self.service), Arc::clone(&must_end));
            callers.spawn(async move {
                let (mut sent, mut longest) = (0, Duration::ZERO);
                while !must_end.load(Ordering::Relaxed) {
                    longest = longest.max(write(&service).await.took);
                    sent += 1;
                }
                (sent, longest)
            });
        }
        during.await;
        must_end.store(true, Ordering::Relaxed);
        let ended = callers.join_all().await;
        self.sent += ended.iter().map(|(sent, _)| sent).sum::<u64>();
        ended.into_iter().map(|(_, longest)| longest).max().unwrap()
    }

    async fn all_is_counted_once(&self) {
        healthy_again(&self.service).await;
        let path = format!("/anomalies/{}/frequency", key_of("HighCPU"));
        let read = self.service.get(&path).await.ok();
        assert_eq!((&read["count_1h"], &read["degraded"]), (&json!(self.sent), &json!(false)));
    }
}

struct Write {
    is_degraded: bool,
    took: Duration,
}

async fn write(service: &Service) -> Write {
    let begun = Instant::now();
    let answer = service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await;
    assert!(answer.status.is_success(), "{} {}", answer.status, answer.body);
    Write { is_degraded: answer.status == 202, took: begun.elapsed() }
}

async fn wait(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_again_and_again_lose_nothing() {
    let mut network = Network::new().await;
    let proxy = Arc::clone(&network.proxy);
    let longest = network.write_while(async move {
        for _ in 0..20 {
            wait(50).await;
            proxy.cut();
        }
    });
    let longest = longest.await;
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    network.all_is_counted_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_that_are_swallowed_do_not_count_twice() {
    let mut network = Network::new().await;
    let proxy = Arc::clone(&network.proxy);
    let longest = network.write_while(async move {
        for _ in 0..3 {
            wait(200).await;
            proxy.set(Weather::NoReplies);
            wait(700).await;
            proxy.set(Weather::Fair);
        }
    });
    let longest = longest.await;
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    network.all_is_counted_once().await;
}

#[tokio::test]
async fn a_slow_network_is_waited_for_and_one_that_is_too_slow_is_not() {
    let mut network = Network::new().await;
    network.proxy.set(Weather::Slow(Duration::from_millis(100)));
    for _ in 0..3 {
        assert!(!network.write().await.is_degraded);
    }
    network.proxy.set(Weather::Slow(Duration::from_millis(800)));
    let first = network.write().await;
    assert!(first.is_degraded && first.took < Duration::from_millis(900), "{:?}", first.took);
    let next = network.write().await;
    assert!(next.is_degraded && next.took < Duration::from_millis(150), "{:?}", next.took);
    network.proxy.set(Weather::Fair);
    network.all_is_counted_once().await;
}

#[tokio::test]
async fn connections_that_a_firewall_has_forgotten_are_replaced() {
    let mut network = Network::new().await;
    network.proxy.strand();
    assert!(network.write().await.is_degraded);
    let begun = Instant::now();
    network.all_is_counted_once().await;
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    assert!(!network.write().await.is_degraded);
    // Also where it has forgotten only one of the two.
    network.proxy.strand_all_but_the_last();
    for _ in 0..10 {
        network.write().await;
    }
    network.all_is_counted_once().await;
    for _ in 0..10 {
        assert!(!network.write().await.is_degraded);
    }
}

#[tokio::test]
async fn a_redis_behind_a_black_hole_is_found_again_once_there_is_a_way() {
    let mut network = Network::new().await;
    network.proxy.set(Weather::BlackHole);
    for _ in 0..5 {
        assert!(network.write().await.is_degraded);
    }
    // Long enough for connections to be opened anew into nowhere.
    wait(4_000).await;
    network.proxy.set(Weather::Fair);
    network.all_is_counted_once().await;
    assert!(!network.write().await.is_degraded);
}

#[tokio::test]
async fn a_redis_that_closes_its_half_of_a_connection_is_connected_to_again() {
    let mut network = Network::new().await;
    for _ in 0..5 {
        network.proxy.half_close();
        wait(100).await;
        network.write().await;
    }
    network.all_is_counted_once().await;
    assert!(!network.write().await.is_degraded);
}
