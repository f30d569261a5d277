//! What the tests stand on: a running service, a running Redis, stores by themselves.

mod certificates;
mod collector;
mod proxy;
mod redis_cluster;
mod redis_server;
mod sentinel;
mod service;
mod stores;

pub(crate) use certificates::write_certificates;
pub(crate) use collector::{Collector, SentSpan, silent_collector, traces_url};
pub(crate) use proxy::{Proxy, Weather};
pub(crate) use redis_cluster::RedisCluster;
pub(crate) use redis_server::{OtherClient, RedisServer};
pub(crate) use sentinel::Sentinel;
pub(crate) use service::{Answer, Service, http_client};
pub(crate) use stores::{
    CheckpointingFixture, ClusterFixture, EXACT_EVENTS, EmbeddedFixture, Fixture, RedisFixture,
    actor, fix_mark, fix_removal, keeping, occurrence, over_every_store, start_of_tests,
};

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anomaly_counter::domain::{AnomalyKey, Signature, Timestamp};

/// Asks `probe` again and again until it gives a value.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut probe: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within 15 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the service is back from an outage.
pub(crate) async fn healthy_again(service: &Service) {
    eventually("what has waited is carried out", || async {
        let ready = service.get("/readyz").await.ok();
        (ready["status"] == "ready" && ready["spool"]["operations"] == 0).then_some(())
    })
    .await;
}

/// The key of an anomaly that has just a name.
pub(crate) fn key_of(alert_name: &str) -> AnomalyKey {
    let mut fields = serde_json::Map::new();
    fields.insert("alert_name".to_owned(), alert_name.into());
    Signature::from_fields(&fields).unwrap().key()
}

/// The time by the clock that the processes under test read too.
#[expect(clippy::disallowed_methods, reason = "a process under test reads the same clock")]
pub(crate) fn wall_clock() -> Timestamp {
    chrono::Utc::now().into()
}
