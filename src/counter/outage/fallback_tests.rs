//! Tests of the fallback, with a spool of its own.

use std::{
    num::{NonZeroU16, NonZeroU32, NonZeroU64},
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;

use super::{config::DegradedConfig, fallback::Fallback, refusing_store::catalogue};
use crate::{
    counter::{batching::BatchConfig, clock::SystemClock},
    domain::{AnomalyKey, EventId, Occurrence, Operation},
    spool::{SpoolConfig, SpoolWrite},
};

pub(super) fn degraded() -> DegradedConfig {
    DegradedConfig {
        probe_interval_ms: NonZeroU64::MIN,
        known_bytes: 1 << 20,
        replay_per_second: NonZeroU32::MIN,
        remember_seconds: 60,
        remember_operations: 100,
        remember_bytes: 1 << 20,
    }
}

/// Opens a fallback whose spool may have this size.
pub(super) fn open(dir: &TempDir, max_bytes: u64) -> Arc<Fallback> {
    let spool = (SpoolConfig { max_bytes }, Duration::from_secs(10));
    let batch = BatchConfig { max_waiting_calls: NonZeroU16::MAX };
    let now = SystemClock.now();
    Arc::new(Fallback::open(dir.path(), now, spool, batch, degraded(), catalogue()).unwrap())
}

fn operation(key: u64) -> Operation {
    let (key, id) = (AnomalyKey::from_bits(key), EventId::parse("once").unwrap());
    Operation::Occurrence(Occurrence {
        key,
        id,
        at: SystemClock.now(),
        signature_json: "{}".into(),
        episode: None,
        rule: None,
    })
}

/// The disk fails during a commit that puts letters back.
#[tokio::test]
async fn the_file_says_which_letters_wait_where_that_was_not_confirmed() {
    let dir = TempDir::new().unwrap();
    let (fallback, now) = (open(&dir, 1 << 20), SystemClock.now());
    let write = |key| SpoolWrite { operation: operation(key), maybe_sent: true };
    let refused = |key| (write(key), String::new());
    fallback.spool().bury(vec![refused(1), refused(2)], now).await.unwrap();
    fallback.revive_dead(now, Some(1)).await.unwrap();
    fallback.revive_dead(now, Some(2)).await.unwrap();
    fallback.spool().bury(vec![refused(3)], now).await.unwrap();
    let dead = fallback.spool().last_dead_letter().await.unwrap().unwrap();
    // In memory, as an operation of a letter that is put back.
    fallback.accept(now, vec![write(3)]).await.remove(0).unwrap();
    assert_eq!(fallback.waiting(), 3);
    let letters = vec![(2, operation(2)), (dead, operation(3))];
    Arc::clone(&fallback).end_revival(letters).await;
    assert_eq!(fallback.waiting(), 2, "those that the file says");
    assert!(fallback.holds(AnomalyKey::from_bits(2)));
    assert!(!fallback.holds(AnomalyKey::from_bits(3)));
}
