//! A batcher for each shard of the store, so that a shard that does not answer delays no other.

use std::{collections::HashMap, fmt, marker::PhantomData, sync::Arc, time::Instant};

use parking_lot::RwLock;

use super::{
    batcher::{BatchConfig, BatchWork, Batcher, Capacity, Few, SubmitError},
    calls::BatchedCall,
};
use crate::{
    counter::{
        call_sizes::CallSizes,
        health::{Health, Observation},
    },
    domain::Moment,
    store::{Shard, Store, StoreError},
    telemetry::{self, BatchMetrics, Label as _, Shed},
    traces::{ItemsSpan, Parent, Parents, StoreSpan},
};

/// One of the store's calls, with a batcher for each shard.
pub(crate) struct ShardedBatcher<C: BatchedCall> {
    config: BatchConfig,
    caller: Arc<Caller<C>>,
    skips_batches: bool,
    by_shard: RwLock<HashMap<Shard, Arc<Batcher<ShardCaller<C>>>>>,
}

impl<C: BatchedCall> ShardedBatcher<C> {
    pub(crate) fn new(
        store: &Arc<dyn Store>,
        health: &Arc<Health>,
        call_sizes: &Arc<CallSizes>,
        config: BatchConfig,
    ) -> Self {
        let skips_batches = C::skips_batches(store.as_ref());
        let (store, health) = (Arc::clone(store), Arc::clone(health));
        let metrics = BatchMetrics::register(C::NAME);
        let call_sizes = Arc::clone(call_sizes);
        let caller = Arc::new(Caller { store, health, call_sizes, metrics, call: PhantomData });
        Self { config, caller, skips_batches, by_shard: RwLock::default() }
    }

    /// Executes `items`, which are all of one shard, in its next batch.
    ///
    /// # Errors
    /// Fails if too many calls wait, or if the batch was aborted.
    pub(crate) async fn submit(
        &self,
        moment: Moment,
        shard: Shard,
        items: Few<C::Item>,
    ) -> Result<Few<Result<C::Answer, StoreError>>, SubmitError> {
        if self.skips_batches {
            let (items, parents) = (items.into_vec(), Parent::request().into());
            return Ok(self.caller.call(shard, moment, items, parents).await.into());
        }
        let span = ItemsSpan::batch(C::NAME, items.len());
        let results = self.batcher(shard).submit(moment, items, span.parent()).await;
        span.end(|| match &results {
            Ok(results) => fault_of_all(results).map(|fault| fault.class().value()),
            Err(SubmitError::Full) => Some("queue_full"),
            Err(SubmitError::Cancelled) => Some("cut_off"),
        });
        results.inspect_err(|error| match error {
            SubmitError::Full => telemetry::shed(Shed::Batch),
            SubmitError::Cancelled => {}
        })
    }

    /// Executes one item in the next batch of its shard.
    ///
    /// # Errors
    /// Fails as [`ShardedBatcher::submit`] does.
    pub(crate) async fn submit_one(
        &self,
        moment: Moment,
        shard: Shard,
        item: C::Item,
    ) -> Result<Result<C::Answer, StoreError>, SubmitError> {
        let mut results = self.submit(moment, shard, Few::from_buf([item])).await?;
        Ok(results.pop().unwrap_or_else(|| Err(StoreError::no_result())))
    }

    fn batcher(&self, shard: Shard) -> Arc<Batcher<ShardCaller<C>>> {
        let by_shard = self.by_shard.read();
        if let Some(batcher) = by_shard.get(&shard) {
            return Arc::clone(batcher);
        }
        drop(by_shard);
        let mut by_shard = self.by_shard.write();
        Arc::clone(by_shard.entry(shard).or_insert_with(|| Arc::new(self.start(shard))))
    }

    fn start(&self, shard: Shard) -> Batcher<ShardCaller<C>> {
        let caller = Arc::clone(&self.caller);
        let items = caller.store.batch_items();
        let batches = caller.store.concurrent_batches();
        Batcher::new(self.config, Capacity { items, batches }, ShardCaller { caller, shard })
    }
}

/// Makes the calls of one shard.
struct ShardCaller<C: BatchedCall> {
    caller: Arc<Caller<C>>,
    shard: Shard,
}

impl<C: BatchedCall> BatchWork for ShardCaller<C> {
    type Item = C::Item;
    type Output = Result<C::Answer, StoreError>;

    fn bytes(item: &C::Item) -> usize {
        C::bytes(item)
    }

    fn max_bytes(&self) -> usize {
        self.caller.call_sizes.max_bytes(self.shard)
    }

    async fn run(
        &self,
        moment: Moment,
        items: Vec<C::Item>,
        parents: Parents,
    ) -> Vec<Self::Output> {
        self.caller.call(self.shard, moment, items, parents).await
    }
}

/// Makes a batched call and reports its outcome to the health. Nothing else reports on batches.
struct Caller<C> {
    store: Arc<dyn Store>,
    health: Arc<Health>,
    call_sizes: Arc<CallSizes>,
    metrics: BatchMetrics,
    call: PhantomData<fn() -> C>,
}

impl<C: BatchedCall> Caller<C> {
    /// Calls that were queued when their shard became unavailable are answered at once. If each
    /// batch ran into the command timeout, the last ones would wait for many timeouts.
    async fn call(
        &self,
        shard: Shard,
        moment: Moment,
        items: Vec<C::Item>,
        parents: Parents,
    ) -> Vec<Result<C::Answer, StoreError>> {
        let count = items.len();
        if let Some(rejected) = self.health.reject(shard, count) {
            return rejected;
        }
        let begun = Instant::now();
        let bytes = items.iter().map(C::bytes).sum();
        let span = StoreSpan::begin(parents, self.store.name(), C::NAME, count);
        let mut results = C::call(self.store.as_ref(), moment, items).await;
        let took = begun.elapsed();
        self.metrics.record(count, took);
        self.health.observe_duration(begun + took, shard, took);
        results.resize_with(count, || Err(StoreError::no_result()));
        let fault = fault_of_all(&results);
        if let Some(span) = span {
            span.end(fault.map(|fault| fault.class().value()));
        }
        let may_be_too_large = self.call_sizes.note(shard, bytes, took, fault);
        if may_be_too_large && self.store.check(shard).await.is_ok() {
            // The link to the server is too slow for a call of this size. Other calls continue.
            self.health.count_faults(&results);
            return results;
        }
        // Reported before the slot of this batch is free for the next one.
        if let Some(fault) = fault {
            self.health.observe(moment.now, shard, Observation::BatchFault(fault));
        }
        for result in &results {
            self.health.observe_result(moment.now, shard, C::KIND, result);
        }
        results
    }
}

/// Returns the first fault if every result is a fault.
fn fault_of_all<R>(results: &[Result<R, StoreError>]) -> Option<&StoreError> {
    let fault = results.first()?.as_ref().err();
    fault.filter(|_| results.iter().all(Result::is_err))
}

impl<C: BatchedCall> fmt::Debug for ShardedBatcher<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardedBatcher").field("config", &self.config).finish_non_exhaustive()
    }
}
