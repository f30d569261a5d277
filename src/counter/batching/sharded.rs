//! A batcher for each part of the store, so that one that does not answer holds up no other.

use std::{collections::HashMap, fmt, sync::Arc, time::Instant};

use futures_util::future::BoxFuture;
use parking_lot::RwLock;

use super::{
    batcher::{BatchConfig, Batcher, Capacity, SubmitError, Work},
    health::Health,
};
use crate::{
    domain::Timestamp,
    store::{Shard, Store, StoreError},
    telemetry::{self, Shed},
    traces::{ItemsSpan, Parent, Parents, StoreSpan},
};

/// One of the store's calls that take a batch.
pub(super) type StoreCall<T, R> =
    fn(Arc<dyn Store>, Timestamp, Vec<T>) -> BoxFuture<'static, Vec<Result<R, StoreError>>>;

/// One of the store's calls, with the batches that wait for it.
pub(super) struct ShardedBatcher<T, R> {
    config: BatchConfig,
    calling: Arc<Calling<T, R>>,
    /// Whether there is nothing to gain from gathering.
    at_once: bool,
    by_shard: RwLock<HashMap<Shard, Arc<StoreBatcher<T, R>>>>,
}

/// Makes the call, and tells what becomes of it.
struct Calling<T, R> {
    store: Arc<dyn Store>,
    health: Arc<Health>,
    call: StoreCall<T, R>,
    /// As metrics and traces name the call.
    name: telemetry::StoreCall,
}

type StoreBatcher<T, R> = Batcher<T, Result<R, StoreError>>;

impl<T: Send + 'static, R: Send + 'static> ShardedBatcher<T, R> {
    pub(super) fn new(
        store: &Arc<dyn Store>,
        health: &Arc<Health>,
        config: BatchConfig,
        name: telemetry::StoreCall,
        call: StoreCall<T, R>,
    ) -> Self {
        let (store, health) = (Arc::clone(store), Arc::clone(health));
        let calling = Arc::new(Calling { store, health, call, name });
        Self { config, calling, at_once: false, by_shard: RwLock::default() }
    }

    /// Makes each call by itself, where `at_once` is true.
    pub(super) fn at_once(self, at_once: bool) -> Self {
        Self { at_once, ..self }
    }

    /// Has `items`, all of one part of the store, carried out with its next batch.
    ///
    /// # Errors
    /// When too many calls wait already, or the batch came to no end.
    pub(super) async fn submit(
        &self,
        now: Timestamp,
        shard: Shard,
        items: Vec<T>,
    ) -> Result<Vec<Result<R, StoreError>>, SubmitError> {
        if self.at_once {
            return Ok(self.calling.make(shard, now, items, Parent::request().into()).await);
        }
        let span = ItemsSpan::batch(self.calling.name.as_str(), items.len());
        let results = self.of(shard).submit(now, items, span.parent()).await;
        span.end(|| match &results {
            Ok(results) => fault_of_all(results).map(|fault| fault.class().as_str()),
            Err(SubmitError::Full) => Some("queue_full"),
            Err(SubmitError::Cancelled) => Some("cut_off"),
        });
        results.inspect_err(|no_results| match no_results {
            SubmitError::Full => telemetry::shed(Shed::Batch),
            SubmitError::Cancelled => {}
        })
    }

    fn of(&self, shard: Shard) -> Arc<StoreBatcher<T, R>> {
        let known = self.by_shard.read();
        if let Some(batcher) = known.get(&shard) {
            return Arc::clone(batcher);
        }
        drop(known);
        let mut known = self.by_shard.write();
        Arc::clone(known.entry(shard).or_insert_with(|| Arc::new(self.start(shard))))
    }

    fn start(&self, shard: Shard) -> StoreBatcher<T, R> {
        let calling = Arc::clone(&self.calling);
        let items = calling.store.batch_items();
        let batches = calling.store.concurrent_batches();
        let work: Work<T, Result<R, StoreError>> = Arc::new(move |now, items, parents| {
            let calling = Arc::clone(&calling);
            Box::pin(async move { calling.make(shard, now, items, parents).await })
        });
        Batcher::new(self.config, Capacity { items, batches }, work)
    }
}

impl<T, R> Calling<T, R> {
    /// What waits when its part of the store falls away is answered at once: batch after batch running
    /// into the command timeout would keep the last ones waiting for many times that long.
    async fn make(
        &self,
        shard: Shard,
        now: Timestamp,
        items: Vec<T>,
        parents: Parents,
    ) -> Vec<Result<R, StoreError>> {
        let count = items.len();
        if self.health.is_away(shard) {
            return (0..count).map(|_| Err(StoreError::away())).collect();
        }
        let begun = Instant::now();
        let span = StoreSpan::begin(parents, self.store.name(), self.name.as_str(), count);
        let results = (self.call)(Arc::clone(&self.store), now, items).await;
        telemetry::batch(self.name, count, begun.elapsed());
        let fault = fault_of_all(&results);
        if let Some(span) = span {
            span.end(fault.map(StoreError::class));
        }
        // Before the place of this batch is free for the next one.
        if let Some(fault) = fault {
            self.health.observe_batch(now, shard, fault);
        }
        results
    }
}

/// A fault, where there is nothing else.
fn fault_of_all<R>(results: &[Result<R, StoreError>]) -> Option<&StoreError> {
    let fault = results.iter().find_map(|result| result.as_ref().err());
    fault.filter(|_| results.iter().all(Result::is_err))
}

impl<T, R> fmt::Debug for ShardedBatcher<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batchers").field("config", &self.config).finish_non_exhaustive()
    }
}
