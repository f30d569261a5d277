//! The parts that serve calls while the store, or a shard of it, does not answer, and that bring
//! the store up to date afterwards. `fallback.rs` takes writes, which `append.rs` appends to the
//! spool, and estimates answers from `memory.rs`: the waiting operations (`pending.rs`;
//! `waiting.rs`: those of one anomaly, with `occurrences.rs`, `effects.rs`, `repair_copies.rs` and
//! `waiting_id.rs`) and the last known state (`stale_cache.rs`; `stale_entry.rs`: that of one
//! anomaly). `revival.rs` puts dead letters back. `probe.rs` notices that a shard answers again.
//! `resend.rs` decides which writes of `resend_buffer.rs` and `held_writes.rs` a failover may have
//! lost, `sending.rs` sends them again, and `resent.rs` decides what becomes of them. `replay.rs`
//! applies the spool (`pass.rs`, `progress.rs`: its progress; `unsettled.rs`: the operations that
//! may have left the spool; `trials.rs`: the shards that may take operations; `refusals.rs`: the
//! operations that are at fault themselves). Both use `executor.rs` (`applying.rs`: one call;
//! `execution.rs`: the outcome of a write). `reported.rs` knows which news were reported, and
//! `lost_writes.rs` reports counts that fell. The replay runs as a `vital_task.rs`.
//!
//! Order of imports: config, append, occurrences, effects, repair_copies, waiting_id, stale_entry →
//! waiting → pending, stale_cache, reported, resend_buffer, held_writes, trials, refusals, pass,
//! progress, unsettled, vital_task → lost_writes, memory → fallback → revival, applying → execution
//! → executor → probe, sending, resent → resend → replay.
#![cfg_attr(doc, doc = include_str!("../../../docs/design/outages.md"))]

mod append;
mod applying;
mod config;
mod effects;
mod execution;
mod executor;
#[cfg(test)]
mod executor_tests;
mod fallback;
#[cfg(test)]
mod fallback_tests;
mod held_writes;
mod lost_writes;
mod memory;
#[cfg(test)]
mod memory_tests;
mod occurrences;
mod pass;
mod pending;
mod probe;
mod progress;
mod refusals;
#[cfg(test)]
mod refusing_store;
mod repair_copies;
mod replay;
mod reported;
mod resend;
mod resend_buffer;
#[cfg(test)]
mod resend_tests;
mod resent;
mod revival;
mod sending;
mod stale_cache;
mod stale_entry;
mod trials;
mod unsettled;
mod vital_task;
mod waiting;
mod waiting_id;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use self::{replay::Replay, resend::Resender};

pub use config::DegradedConfig;
pub(super) use executor::Executor;
pub(super) use fallback::Fallback;
pub use fallback::SpoolDepth;
pub(super) use memory::{Accepted, Estimate};
pub(super) use resend_buffer::ResendBuffer;
pub(super) use stale_entry::{CallTimes, Seen};

/// Time limit for writing to disk the writes that a later process may have to send again.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The tasks that end outages.
#[derive(Debug)]
pub(super) struct Outages {
    closing: mpsc::Sender<oneshot::Sender<()>>,
    /// The last acknowledged writes; absent if the store never forgets a write.
    pub(super) resend_buffer: Option<Arc<ResendBuffer>>,
}

impl Outages {
    pub(super) fn start(executor: Executor, config: DegradedConfig) -> Self {
        let resender = Resender::new(&executor, config);
        let resend_buffer = resender.as_ref().map(Resender::buffer);
        let answered = probe::start(&executor.store, &executor.health, config.probe_interval());
        let (closing, requests) = mpsc::channel(1);
        Replay::start(executor, resender, answered, requests, config);
        Self { closing, resend_buffer }
    }

    /// Ends the replay, and stores the writes that a later process may have to send again.
    pub(super) async fn close(&self) {
        let (closed, is_closed) = oneshot::channel();
        let closing = async {
            if self.closing.send(closed).await.is_ok() {
                let _ = is_closed.await;
            }
        };
        if timeout(CLOSE_TIMEOUT, closing).await.is_err() {
            tracing::warn!("the last acknowledged writes could not be stored in time");
        }
    }
}
