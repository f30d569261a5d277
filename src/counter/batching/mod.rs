//! Batches: concurrent calls share a call to the store. `batcher.rs` gathers calls, `calls.rs`
//! names the store calls that are made in batches, and `sharded.rs` has a batcher for each shard of
//! the store.
#![cfg_attr(doc, doc = include_str!("../../../docs/design/batching.md"))]

mod batcher;
mod calls;
mod sharded;

pub use batcher::BatchConfig;
pub(super) use batcher::{BatchWork, Batcher, Capacity, Few, SubmitError};
pub(super) use calls::{RecordCall, RepairCall, StatsCall};
pub(super) use sharded::ShardedBatcher;
