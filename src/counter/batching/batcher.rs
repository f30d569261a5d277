//! Gathers concurrent calls into batches. While as many batches as may run at the same time are
//! running, further calls queue for the next one; a free slot takes what is queued at once. There
//! is no timer and no added wait: a lone call is a batch of one.

use std::{collections::VecDeque, fmt, num::NonZeroU16, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use serde::Deserialize;
use smallvec::SmallVec;
use tokio::{runtime::Handle, sync::oneshot, task::yield_now};

use crate::{
    domain::Moment,
    traces::{Parent, Parents},
};

/// The section `batch` of the configuration.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchConfig {
    /// Maximum number of calls that wait for a batch; further ones are refused.
    pub max_waiting_calls: NonZeroU16,
}

/// The reason why a call has no results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SubmitError {
    /// Too many calls wait. This call was not made.
    Full,
    /// The batch was aborted. It is not known whether the call was made.
    Cancelled,
}

/// The items of a call, or what each of them results in: of most calls just one, which takes no
/// memory of its own.
pub(crate) type Few<T> = SmallVec<[T; 1]>;

/// Executes batches.
pub(crate) trait BatchWork: Send + Sync + 'static {
    /// An element of a batch.
    type Item: Send + 'static;
    /// The result of an element.
    type Output: Send + 'static;

    /// Returns the approximate size of an element, in bytes.
    fn bytes(item: &Self::Item) -> usize;

    /// Returns the maximum size of a batch in bytes, unless a single call has more.
    fn max_bytes(&self) -> usize;

    /// Executes a batch. Returns one output for each item, in order.
    fn run(
        &self,
        moment: Moment,
        items: Vec<Self::Item>,
        parents: Parents,
    ) -> impl Future<Output = Vec<Self::Output>> + Send;
}

/// The limits of batches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    /// Maximum number of items in a batch, unless a single call has more.
    pub(crate) items: usize,
    /// Maximum number of batches that run at the same time.
    pub(crate) batches: usize,
}

/// Gathers the calls of one kind, and has `W` execute their batches.
pub(crate) struct Batcher<W: BatchWork>(Arc<Shared<W>>);

struct Shared<W: BatchWork> {
    config: BatchConfig,
    capacity: Capacity,
    work: W,
    runtime: Handle,
    queue: Mutex<Queue<W>>,
}

struct Queue<W: BatchWork> {
    calls: VecDeque<QueuedCall<W>>,
    /// Number of running batches, including one that is about to take its calls.
    batches: usize,
    /// True if a batch is about to take its calls. Calls that arrive until then join it.
    is_about_to_take: bool,
}

/// The items of one call. They stay together, so that they take effect in order.
struct QueuedCall<W: BatchWork> {
    moment: Moment,
    items: Few<W::Item>,
    bytes: usize,
    parent: Parent,
    answer: oneshot::Sender<Few<W::Output>>,
}

impl<W: BatchWork> Batcher<W> {
    /// Creates a batcher. Must be called within a runtime, which executes the batches.
    pub(crate) fn new(config: BatchConfig, capacity: Capacity, work: W) -> Self {
        let queue = Queue { calls: VecDeque::new(), batches: 0, is_about_to_take: false };
        let (runtime, queue) = (Handle::current(), Mutex::new(queue));
        Self(Arc::new(Shared { config, capacity, work, runtime, queue }))
    }

    /// Executes `items` in the next batch, whose span is a child of `parent`.
    ///
    /// # Errors
    /// Fails if too many calls wait, or if the batch was aborted.
    pub(crate) async fn submit(
        &self,
        moment: Moment,
        items: Few<W::Item>,
        parent: Parent,
    ) -> Result<Few<W::Output>, SubmitError> {
        if items.is_empty() {
            return Ok(Few::new());
        }
        let (answer, answered) = oneshot::channel();
        let bytes = items.iter().map(W::bytes).sum();
        self.0.add(QueuedCall { moment, items, bytes, parent, answer })?;
        answered.await.map_err(|_| SubmitError::Cancelled)
    }
}

impl<W: BatchWork> Shared<W> {
    fn add(self: &Arc<Self>, call: QueuedCall<W>) -> Result<(), SubmitError> {
        let mut queue = self.queue.lock();
        if queue.calls.len() >= self.config.max_waiting_calls.get().into() {
            return Err(SubmitError::Full);
        }
        queue.calls.push_back(call);
        self.begin_batch(queue);
        Ok(())
    }

    /// Starts a batch if calls are queued and a slot is free. The batch runs in its own task,
    /// because a caller that disconnects must not abort the calls of others.
    fn begin_batch(self: &Arc<Self>, mut queue: MutexGuard<'_, Queue<W>>) {
        let is_full = queue.batches >= self.capacity.batches.max(1);
        if queue.calls.is_empty() || queue.is_about_to_take || is_full {
            return;
        }
        queue.batches += 1;
        queue.is_about_to_take = true;
        let is_lone = queue.calls.len() == 1;
        // A runtime that shuts down drops the batch at once, which locks the queue.
        drop(queue);
        let batch = Batch(Arc::clone(self));
        self.runtime.spawn(async move {
            if is_lone {
                // Callers that are ready submit first and share the batch.
                yield_now().await;
            }
            let calls = batch.0.take_calls();
            execute(calls, &batch.0.work).await;
        });
    }

    fn take_calls(self: &Arc<Self>) -> Vec<QueuedCall<W>> {
        let mut queue = self.queue.lock();
        queue.is_about_to_take = false;
        let mut calls = Vec::with_capacity(queue.calls.len().min(self.capacity.items));
        let (mut items, mut bytes) = (0, 0);
        let max_bytes = self.work.max_bytes();
        while let Some(next) = queue.calls.front()
            && (calls.is_empty()
                || items + next.items.len() <= self.capacity.items
                    && bytes + next.bytes <= max_bytes)
            && let Some(call) = queue.calls.pop_front()
        {
            items += call.items.len();
            bytes += call.bytes;
            calls.push(call);
        }
        self.begin_batch(queue);
        calls
    }
}

/// A running batch. Its slot becomes free when it is dropped, however it ends.
struct Batch<W: BatchWork>(Arc<Shared<W>>);

impl<W: BatchWork> Drop for Batch<W> {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        queue.batches -= 1;
        self.0.begin_batch(queue);
    }
}

async fn execute<W: BatchWork>(calls: Vec<QueuedCall<W>>, work: &W) {
    // The time of the latest call. For earlier calls, the batch is a moment late.
    let Some(moment) = calls.iter().map(|call| call.moment).max_by_key(|moment| moment.now) else {
        return;
    };
    let mut items = Vec::with_capacity(calls.iter().map(|call| call.items.len()).sum());
    let mut answers = Vec::with_capacity(calls.len());
    let mut parents = Parents::default();
    for call in calls {
        answers.push((call.items.len(), call.answer));
        parents.add(call.parent);
        items.extend(call.items);
    }
    let mut results = work.run(moment, items, parents).await.into_iter();
    for (count, answer) in answers {
        // A caller that has disconnected needs no answer.
        let _ = answer.send(results.by_ref().take(count).collect());
    }
}

impl<W: BatchWork> fmt::Debug for Batcher<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").field("waiting", &self.0.queue.lock().calls.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        sync::{Notify, Semaphore},
        task::JoinHandle,
    };

    use super::*;
    use crate::domain::Timestamp;

    const NOW: i64 = 1_774_799_738_000_000;

    fn config(max_waiting_calls: u16) -> BatchConfig {
        BatchConfig { max_waiting_calls: NonZeroU16::new(max_waiting_calls).unwrap() }
    }

    /// Returns each item, records each batch's size, and holds every batch until it gets a permit.
    #[derive(Clone)]
    struct Gated {
        sizes: Arc<Mutex<Vec<usize>>>,
        started: Arc<Notify>,
        permits: Arc<Semaphore>,
    }

    impl BatchWork for Gated {
        type Item = usize;
        type Output = usize;

        fn bytes(item: &usize) -> usize {
            *item
        }

        fn max_bytes(&self) -> usize {
            1_000
        }

        async fn run(&self, _: Moment, items: Vec<usize>, _: Parents) -> Vec<usize> {
            self.sizes.lock().push(items.len());
            self.started.notify_one();
            self.permits.acquire().await.unwrap().forget();
            items
        }
    }

    fn gated(items: usize, config: BatchConfig) -> (Arc<Batcher<Gated>>, Gated) {
        let gated = Gated {
            sizes: Arc::default(),
            started: Arc::default(),
            permits: Arc::new(Semaphore::new(0)),
        };
        let batcher = Batcher::new(config, Capacity { items, batches: 1 }, gated.clone());
        (Arc::new(batcher), gated)
    }

    fn submit_to(batcher: &Arc<Batcher<Gated>>, items: Vec<usize>) -> JoinHandle<Vec<usize>> {
        let (batcher, moment) = (Arc::clone(batcher), Moment::from(Timestamp::from_micros(NOW)));
        tokio::spawn(async move {
            batcher.submit(moment, items.into(), Parent::default()).await.unwrap().into_vec()
        })
    }

    #[tokio::test]
    async fn calls_that_come_while_a_batch_is_on_its_way_share_the_next() {
        let (batcher, Gated { sizes, started, permits }) = gated(100, config(100));
        let submit = |items| submit_to(&batcher, items);
        let first = submit(vec![0]);
        started.notified().await;
        let others: Vec<_> = (1..=5).map(|i| submit(vec![i, i + 10])).collect();
        while batcher.0.queue.lock().calls.len() < 5 {
            tokio::task::yield_now().await;
        }
        permits.add_permits(2);

        assert_eq!(first.await.unwrap(), [0]);
        for (i, other) in others.into_iter().enumerate() {
            assert_eq!(other.await.unwrap(), [i + 1, i + 11]);
        }
        assert_eq!(*sizes.lock(), [1, 10]);
    }

    /// Returns the sizes of the batches into which `calls` are gathered while another batch runs.
    async fn sizes_of_batches(max_items: usize, calls: Vec<Vec<usize>>) -> Vec<usize> {
        let (batcher, Gated { sizes, started, permits }) = gated(max_items, config(100));
        let submit = |items| submit_to(&batcher, items);
        let first = submit(vec![0]);
        started.notified().await;
        let mut others = Vec::new();
        for items in calls {
            others.push(submit(items));
            while batcher.0.queue.lock().calls.len() < others.len() {
                tokio::task::yield_now().await;
            }
        }
        permits.add_permits(10);
        first.await.unwrap();
        for other in others {
            other.await.unwrap();
        }
        let sizes = sizes.lock();
        sizes[1..].to_vec()
    }

    #[tokio::test]
    async fn a_batch_has_no_more_bytes_than_get_through() {
        let calls = vec![vec![600], vec![300, 100], vec![1], vec![5_000], vec![2], vec![3]];
        // A larger call is a batch of its own.
        assert_eq!(sizes_of_batches(100, calls).await, [3, 1, 1, 2]);
    }

    #[tokio::test]
    async fn a_batch_has_no_more_items_than_the_store_takes_at_once() {
        let items = |count: usize| vec![1; count];
        let calls = vec![items(3), items(6), items(2), items(11), items(10), items(1)];
        // A larger call is a batch of its own.
        assert_eq!(sizes_of_batches(10, calls).await, [9, 2, 11, 10, 1]);
    }

    #[tokio::test]
    async fn beyond_the_waiting_places_calls_are_refused_at_once() {
        let (batcher, Gated { started, permits, .. }) = gated(1, config(1));
        let now = Moment::from(Timestamp::from_micros(NOW));
        let running = tokio::spawn({
            let batcher = batcher.clone();
            async move { batcher.submit(now, Few::from_buf([1]), Parent::default()).await }
        });
        started.notified().await;
        let waiting = tokio::spawn({
            let batcher = batcher.clone();
            async move { batcher.submit(now, Few::from_buf([2]), Parent::default()).await }
        });
        while batcher.0.queue.lock().calls.is_empty() {
            tokio::task::yield_now().await;
        }
        let refused = batcher.submit(now, Few::from_buf([3]), Parent::default()).await;
        assert_eq!(refused, Err(SubmitError::Full));

        permits.add_permits(2);
        assert_eq!(running.await.unwrap(), Ok(Few::from_buf([1])));
        assert_eq!(waiting.await.unwrap(), Ok(Few::from_buf([2])));
    }
}
