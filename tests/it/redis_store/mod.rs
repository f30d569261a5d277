//! The store on Redis without a service: refusals of a real server, permissions of a user, data of
//! other writers, and the identity of a server.

mod foreign_data;
mod identity;
mod known_timelines;
mod permissions;
mod refused;

use std::sync::Arc;

use anomaly_counter::{
    domain::{Action, AnomalyKey, EventId, Occurrence, RepairAttempt, Timestamp},
    store::{RecordOutcome, Store, StoreError},
};

use crate::support::{actor, connect, eventually, keeping, occurrence};

/// An anomaly of which events are rolled up, and a quiet one.
const BUSY: u64 = 0xb119_b2ed_aa9f_b08c;
const QUIET: u64 = 0x07;

/// Opens a store on one server, which keeps ten events of an anomaly exactly.
async fn store_at(url: &str) -> Arc<dyn Store> {
    store_keeping(10, url).await
}

/// Opens a store on one server, which keeps this many events of an anomaly exactly.
pub(crate) async fn store_keeping(exact_events: u32, url: &str) -> Arc<dyn Store> {
    connect(url, keeping(exact_events)).await
}

/// Records a hundred events of the busy anomaly, of which about ninety are rolled up.
async fn roll_up(store: &Arc<dyn Store>, now: Timestamp) {
    let events = (0..100).map(|n| occurrence(BUSY, &n.to_string(), now.minus_seconds(3_000 - n)));
    for outcome in outcomes(store, now, events.collect()).await {
        assert_eq!(outcome.unwrap(), RecordOutcome::Counted);
    }
}

/// Returns an event that is older than the newest rolled-up one.
fn late(now: Timestamp, id: &str) -> Occurrence {
    occurrence(BUSY, id, now.minus_seconds(3_500))
}

async fn outcomes(
    store: &Arc<dyn Store>,
    now: Timestamp,
    events: Vec<Occurrence>,
) -> Vec<Result<RecordOutcome, StoreError>> {
    let results = store.record(now.into(), events).await;
    results.into_iter().map(|result| result.map(|recorded| recorded.outcome)).collect()
}

/// Returns the number of events within 30 days.
async fn count(store: &Arc<dyn Store>, now: Timestamp, key: u64) -> u64 {
    let stats = store.stats(now.into(), vec![AnomalyKey::from_bits(key)]).await.pop().unwrap();
    stats.unwrap().map_or(0, |stats| stats.counts.month)
}

fn attempt(key: u64, id: &str, at: Timestamp) -> RepairAttempt {
    RepairAttempt {
        key: AnomalyKey::from_bits(key),
        id: EventId::parse(id).unwrap(),
        action: Action::parse("restart_pod").unwrap(),
        success: true,
        at,
        actor: actor(),
    }
}

async fn takes_writes(store: &Arc<dyn Store>) {
    let shard = store.shards()[0];
    eventually("the store takes writes", || async { store.check(shard).await.ok() }).await;
}
