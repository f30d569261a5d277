//! The harness of the tests and of `make chaos`: a running service, a running Redis, the network
//! between them, and stores without a service. [`servers`] is the part that the benchmarks use too.

mod alertmanager;
mod browser;
mod certificates;
mod collector;
mod command;
mod error_proxy;
mod fake_clock;
mod hanging_disk;
mod proxy;
mod redis_client;
mod redis_cluster;
mod redis_server;
mod sentinel;
pub(crate) mod servers;
mod service;
mod stores;

pub(crate) use alertmanager::Alertmanager;
pub(crate) use browser::Browser;
pub(crate) use certificates::write_certificates;
pub(crate) use collector::{Collector, SentSpan, silent_collector, traces_url};
pub(crate) use command::{Ended, anomaly_counter, on_a_terminal};
pub(crate) use error_proxy::ErrorProxy;
pub(crate) use fake_clock::FakeClock;
pub(crate) use hanging_disk::HangingDisk;
pub(crate) use proxy::{Proxy, Weather};
pub(crate) use redis_client::OtherClient;
pub(crate) use redis_cluster::RedisCluster;
pub(crate) use redis_server::RedisServer;
pub(crate) use sentinel::Sentinel;
pub(crate) use service::{AGED_SECONDS, Answer, Service, http_client};
pub(crate) use stores::{
    CheckpointingFixture, ClusterFixture, EXACT_EVENTS, EmbeddedFixture, Fixture, OPERATION_IDS,
    RedisFixture, actor, connect, fix_mark, fix_removal, keeping, occurrence, open_embedded,
    over_every_store, start_of_tests, store_limits,
};

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anomaly_counter::domain::{AnomalyKey, Signature, Timestamp};
use reqwest::Method;

/// The deadline for everything that an idle machine does within a second or two. Tests do not
/// measure speed: `make bench` does.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Calls `probe` until it returns a value.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut probe: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until an outage is over and the spool is empty.
pub(crate) async fn healthy_again(service: &Service) {
    eventually("the spool is replayed", || async {
        let ready = service.get("/readyz").await.ok();
        (ready["status"] == "ready" && ready["spool"]["operations"] == 0).then_some(())
    })
    .await;
}

/// Returns the value of one series in `/metrics`, named as it is there.
pub(crate) async fn metric(service: &Service, series: &str) -> f64 {
    let text = service.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
}

/// Returns the number of batches of occurrences that were sent to the store and have ended.
pub(crate) async fn record_batches(service: &Service) -> u64 {
    metric(service, "anomaly_counter_batch_items_count{call=\"record\"}").await as u64
}

/// Returns the key of an anomaly whose other fields are empty.
pub(crate) fn key_of(alert_name: &str) -> AnomalyKey {
    let mut fields = serde_json::Map::new();
    fields.insert("alert_name".to_owned(), alert_name.into());
    Signature::from_fields(&fields).unwrap().key()
}

/// Returns the time of the clock that the processes under test read.
#[expect(clippy::disallowed_methods, reason = "a process under test reads the same clock")]
pub(crate) fn wall_clock() -> Timestamp {
    chrono::Utc::now().into()
}
