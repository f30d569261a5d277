//! Asks the parts of the store that are away, again and again, whether they answer: the only calls that
//! an open breaker lets through.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::health::Health;
use crate::store::{Shard, Store};

/// Probes for as long as the service lives, and tells `answering` of those that answer.
pub(super) async fn run(
    store: Arc<dyn Store>,
    health: Arc<Health>,
    mut outages: watch::Receiver<u64>,
    interval: Duration,
    answering: mpsc::Sender<Shard>,
) {
    loop {
        outages.mark_unchanged();
        let away = health.away();
        if away.is_empty() {
            if outages.changed().await.is_err() {
                return;
            }
            continue;
        }
        join_all(away.into_iter().map(|shard| {
            let (store, answering) = (&store, &answering);
            async move {
                if store.check(shard).await.is_ok() {
                    // Where it is full, others have answered, and this one is asked again.
                    let _ = answering.try_send(shard);
                }
            }
        }))
        .await;
        sleep(interval).await;
    }
}
