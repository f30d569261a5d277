//! Gathers concurrent calls into batches. While as many batches as the store can work on are on
//! their way, the next one gathers; a free store gets whatever is there at once. There is no timer
//! and no added wait: a lone call is a batch of one.

use std::{collections::VecDeque, fmt, num::NonZeroU16, sync::Arc};

use futures_util::future::BoxFuture;
use parking_lot::{Mutex, MutexGuard};
use serde::Deserialize;
use tokio::{runtime::Handle, sync::oneshot, task::yield_now};

use crate::{
    domain::Timestamp,
    traces::{Parent, Parents},
};

/// The section `batch` of the configuration.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchConfig {
    /// How many calls may wait for a batch; beyond them calls are refused.
    pub max_waiting_calls: NonZeroU16,
}

/// Why a call has no results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SubmitError {
    /// Too many calls wait; this one was not made.
    Full,
    /// The batch was cut off; whether the call was made is not known.
    Cancelled,
}

/// Carries a batch out: one result for each item, in order.
pub(super) type Work<T, R> =
    Arc<dyn Fn(Timestamp, Vec<T>, Parents) -> BoxFuture<'static, Vec<R>> + Send + Sync>;

/// What whoever carries batches out can do well.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capacity {
    /// A batch that has so many items takes no further call.
    pub(super) items: usize,
    /// How many batches may be on their way at the same time.
    pub(super) batches: usize,
}

/// One kind of call and the batches it goes in.
pub(super) struct Batcher<T, R>(Arc<Gathering<T, R>>);

struct Gathering<T, R> {
    config: BatchConfig,
    capacity: Capacity,
    work: Work<T, R>,
    runtime: Handle,
    queue: Mutex<Queue<T, R>>,
}

struct Queue<T, R> {
    calls: VecDeque<Waiting<T, R>>,
    /// How many batches are on their way, with the one that is about to take its calls.
    batches: usize,
    /// Whether there is one that is about to: it takes along what comes until then.
    is_about_to_take: bool,
}

/// A call's items. They stay together, so that they take effect in their order.
struct Waiting<T, R> {
    now: Timestamp,
    items: Vec<T>,
    parent: Parent,
    answer: oneshot::Sender<Vec<R>>,
}

impl<T: Send + 'static, R: Send + 'static> Batcher<T, R> {
    /// To be called within a runtime, where the batches are carried out.
    pub(super) fn new(config: BatchConfig, capacity: Capacity, work: Work<T, R>) -> Self {
        let queue = Queue { calls: VecDeque::new(), batches: 0, is_about_to_take: false };
        let (runtime, queue) = (Handle::current(), Mutex::new(queue));
        Self(Arc::new(Gathering { config, capacity, work, runtime, queue }))
    }

    /// Has `items` carried out with the next batch, which `parent` has in its trace.
    ///
    /// # Errors
    /// When too many calls wait already, or the batch came to no end.
    pub(super) async fn submit(
        &self,
        now: Timestamp,
        items: Vec<T>,
        parent: Parent,
    ) -> Result<Vec<R>, SubmitError> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let (answer, answered) = oneshot::channel();
        self.0.add(Waiting { now, items, parent, answer })?;
        answered.await.map_err(|_| SubmitError::Cancelled)
    }
}

impl<T: Send + 'static, R: Send + 'static> Gathering<T, R> {
    fn add(self: &Arc<Self>, call: Waiting<T, R>) -> Result<(), SubmitError> {
        let mut queue = self.queue.lock();
        if queue.calls.len() >= self.config.max_waiting_calls.get().into() {
            return Err(SubmitError::Full);
        }
        queue.calls.push_back(call);
        self.begin_batch(queue);
        Ok(())
    }

    /// Begins a batch, if there are calls for one and a place is free. In a task of its own: a caller that goes
    /// away must not take the others' calls with it.
    fn begin_batch(self: &Arc<Self>, mut queue: MutexGuard<'_, Queue<T, R>>) {
        let is_full = queue.batches >= self.capacity.batches.max(1);
        if queue.calls.is_empty() || queue.is_about_to_take || is_full {
            return;
        }
        queue.batches += 1;
        queue.is_about_to_take = true;
        let is_lone = queue.calls.len() == 1;
        // A runtime that ends drops the batch at once.
        drop(queue);
        let batch = Batch(Arc::clone(self));
        self.runtime.spawn(async move {
            if is_lone {
                // Those that are ready to call do so first, and share the batch.
                yield_now().await;
            }
            let calls = batch.0.take_calls();
            execute(calls, &batch.0.work).await;
        });
    }

    fn take_calls(self: &Arc<Self>) -> Vec<Waiting<T, R>> {
        let mut queue = self.queue.lock();
        queue.is_about_to_take = false;
        let mut calls = Vec::new();
        let mut items = 0;
        while items < self.capacity.items
            && let Some(call) = queue.calls.pop_front()
        {
            items += call.items.len();
            calls.push(call);
        }
        self.begin_batch(queue);
        calls
    }
}

/// A batch on its way. However it ends, its place is free for the next one then.
struct Batch<T: Send + 'static, R: Send + 'static>(Arc<Gathering<T, R>>);

impl<T: Send + 'static, R: Send + 'static> Drop for Batch<T, R> {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        queue.batches -= 1;
        self.0.begin_batch(queue);
    }
}

async fn execute<T, R>(calls: Vec<Waiting<T, R>>, work: &Work<T, R>) {
    // The latest call's time: for the earlier ones the batch happens a moment after they came.
    let Some(now) = calls.iter().map(|call| call.now).max() else {
        return;
    };
    let mut items = Vec::new();
    let mut answers = Vec::with_capacity(calls.len());
    let mut parents = Parents::default();
    for mut call in calls {
        answers.push((call.items.len(), call.answer));
        items.append(&mut call.items);
        parents.add(call.parent);
    }
    let mut results = work(now, items, parents).await.into_iter();
    for (count, answer) in answers {
        // A caller that has gone away wants no answer.
        let _ = answer.send(results.by_ref().take(count).collect());
    }
}

impl<T, R> fmt::Debug for Batcher<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").field("waiting", &self.0.queue.lock().calls.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{Notify, Semaphore};

    use super::*;

    const NOW: i64 = 1_774_799_738_000_000;

    fn config(max_waiting_calls: u16) -> BatchConfig {
        BatchConfig { max_waiting_calls: NonZeroU16::new(max_waiting_calls).unwrap() }
    }

    /// Echoes each item, notes each batch's size, and holds every batch until the gate opens.
    struct Gated {
        batcher: Batcher<usize, usize>,
        sizes: Arc<Mutex<Vec<usize>>>,
        started: Arc<Notify>,
        authenticator: Arc<Semaphore>,
    }

    fn gated(items: usize, config: BatchConfig) -> Gated {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let started = Arc::new(Notify::new());
        let authenticator = Arc::new(Semaphore::new(0));
        let work: Work<usize, usize> = Arc::new({
            let (sizes, started, authenticator) =
                (sizes.clone(), started.clone(), authenticator.clone());
            move |_, items: Vec<usize>, _| {
                sizes.lock().push(items.len());
                started.notify_one();
                let authenticator = authenticator.clone();
                Box::pin(async move {
                    authenticator.acquire().await.unwrap().forget();
                    items
                })
            }
        });
        Gated {
            batcher: Batcher::new(config, Capacity { items, batches: 1 }, work),
            sizes,
            started,
            authenticator,
        }
    }

    #[tokio::test]
    async fn calls_that_come_while_a_batch_is_on_its_way_share_the_next() {
        let Gated { batcher, sizes, started, authenticator } = gated(100, config(100));
        let batcher = Arc::new(batcher);
        let now = Timestamp::from_micros(NOW);
        let submit = |items: Vec<usize>| {
            let batcher = batcher.clone();
            tokio::spawn(
                async move { batcher.submit(now, items, Parent::default()).await.unwrap() },
            )
        };
        let first = submit(vec![0]);
        started.notified().await;
        let others: Vec<_> = (1..=5).map(|i| submit(vec![i, i + 10])).collect();
        while batcher.0.queue.lock().calls.len() < 5 {
            tokio::task::yield_now().await;
        }
        authenticator.add_permits(2);

        assert_eq!(first.await.unwrap(), [0]);
        for (i, other) in others.into_iter().enumerate() {
            assert_eq!(other.await.unwrap(), [i + 1, i + 11]);
        }
        assert_eq!(*sizes.lock(), [1, 10]);
    }

    #[tokio::test]
    async fn beyond_the_waiting_places_calls_are_refused_at_once() {
        let Gated { batcher, started, authenticator, .. } = gated(1, config(1));
        let batcher = Arc::new(batcher);
        let now = Timestamp::from_micros(NOW);
        let running = tokio::spawn({
            let batcher = batcher.clone();
            async move { batcher.submit(now, vec![1], Parent::default()).await }
        });
        started.notified().await;
        let waiting = tokio::spawn({
            let batcher = batcher.clone();
            async move { batcher.submit(now, vec![2], Parent::default()).await }
        });
        while batcher.0.queue.lock().calls.is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(batcher.submit(now, vec![3], Parent::default()).await, Err(SubmitError::Full));

        authenticator.add_permits(2);
        assert_eq!(running.await.unwrap(), Ok(vec![1]));
        assert_eq!(waiting.await.unwrap(), Ok(vec![2]));
    }
}
