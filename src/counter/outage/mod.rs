//! The parts that serve calls while the store, or a shard of it, does not answer, and that bring
//! the store up to date afterwards. `fallback.rs` takes writes and estimates answers, from the
//! spool with `pending.rs` and from `stale_cache.rs`. `probe.rs` notices that a shard answers
//! again, `resend.rs` with `resend_buffer.rs` sends again what a failover may have forgotten, and
//! `replay.rs` applies the spool, both through `executor.rs`.
//!
//! Order of imports: config, pending, stale_cache, resend_buffer → fallback → executor →
//! probe, resend → replay.

mod config;
mod executor;
mod fallback;
mod pending;
mod probe;
mod replay;
mod resend;
mod resend_buffer;
mod stale_cache;

use std::sync::Arc;

use self::{replay::Replay, resend::Resender};

pub use config::DegradedConfig;
pub(super) use executor::Executor;
pub use fallback::SpoolDepth;
pub(super) use fallback::{Accepted, Estimate, Fallback};
pub(super) use resend_buffer::ResendBuffer;

/// Starts the tasks that end outages. Returns the buffer of acknowledged writes; `None` where the
/// store forgets no write.
pub(super) fn start(executor: Executor, config: DegradedConfig) -> Option<Arc<ResendBuffer>> {
    let resender = Resender::new(executor.store.as_ref(), config);
    let buffer = resender.as_ref().map(Resender::buffer);
    let answered = probe::start(&executor.store, &executor.health, config.probe_interval());
    Replay::start(executor, resender, answered, config);
    buffer
}
