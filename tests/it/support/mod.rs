//! What the tests stand on: a running service, a running Redis, stores by themselves.

mod redis_server;
mod sentinel;
mod service;
mod stores;

pub(crate) use redis_server::RedisServer;
pub(crate) use sentinel::Sentinel;
pub(crate) use service::{Answer, Service};
pub(crate) use stores::{
    CheckpointingFixture, EmbeddedFixture, Fixture, RedisFixture, fix_mark, fix_removal,
    occurrence, start_of_tests,
};

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anomaly_counter::domain::Timestamp;

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

/// The time by the clock that the processes under test read too.
#[expect(clippy::disallowed_methods, reason = "a process under test reads the same clock")]
pub(crate) fn wall_clock() -> Timestamp {
    chrono::Utc::now().into()
}
