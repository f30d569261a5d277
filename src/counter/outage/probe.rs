//! Probes the shards whose breakers are open. Until a probe is answered, an open breaker lets no
//! other call through.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use crate::{
    counter::health::Health,
    store::{Shard, Store},
};

/// Maximum number of answered probes that wait for the replay.
const MAX_ANSWERED: usize = 64;

/// Starts a task that probes for as long as the service runs. Returns the receiver of the shards
/// that answered.
pub(crate) fn start(
    store: &Arc<dyn Store>,
    health: &Arc<Health>,
    interval: Duration,
) -> mpsc::Receiver<Shard> {
    let (answered, receiver) = mpsc::channel(MAX_ANSWERED);
    let outages = health.outages();
    tokio::spawn(run(Arc::clone(store), Arc::clone(health), outages, interval, answered));
    receiver
}

async fn run(
    store: Arc<dyn Store>,
    health: Arc<Health>,
    mut outages: watch::Receiver<u64>,
    interval: Duration,
    answered: mpsc::Sender<Shard>,
) {
    loop {
        outages.mark_unchanged();
        let unavailable = health.unavailable();
        if unavailable.is_empty() {
            if outages.changed().await.is_err() {
                return;
            }
            continue;
        }
        join_all(unavailable.into_iter().map(|shard| {
            let (store, health, answered) = (&store, &health, &answered);
            async move {
                if health.observe_probe(shard, &store.check(shard).await) {
                    // If the channel is full, this shard is probed again later.
                    let _ = answered.try_send(shard);
                }
            }
        }))
        .await;
        sleep(interval).await;
    }
}
