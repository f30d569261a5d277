//! Gathers concurrent calls into batches. While as many batches as the store can work on are on
//! their way, the next one gathers; a free store gets whatever is there at once. There is no timer
//! and no added wait: a lone call is a batch of one.

use std::{fmt, num::NonZeroU16, sync::Arc};

use futures_util::future::BoxFuture;
use serde::Deserialize;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::domain::Timestamp;

/// The section `batch` of the configuration.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchConfig {
    /// How many calls may wait for a batch; beyond them calls are refused.
    pub max_waiting_calls: NonZeroU16,
}

/// Why a call has no results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoResults {
    /// Too many calls wait; this one was not made.
    QueueFull,
    /// The batch was cut off; whether the call was made is not known.
    CutOff,
}

/// Carries a batch out: one result for each item, in order.
pub(super) type Work<T, R> =
    Arc<dyn Fn(Timestamp, Vec<T>) -> BoxFuture<'static, Vec<R>> + Send + Sync>;

/// What whoever carries batches out can do well.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capacity {
    /// A batch that has so many items takes no further call.
    pub(super) items: usize,
    /// How many batches may be on their way at the same time.
    pub(super) batches: usize,
}

/// One kind of call and the batches it goes in.
pub(super) struct Batcher<T, R> {
    queue: mpsc::Sender<Waiting<T, R>>,
}

/// A call's items. They stay together, so that they take effect in their order.
struct Waiting<T, R> {
    now: Timestamp,
    items: Vec<T>,
    answer: oneshot::Sender<Vec<R>>,
}

impl<T: Send + 'static, R: Send + 'static> Batcher<T, R> {
    /// Starts the gathering. It ends with the batcher.
    pub(super) fn start(config: BatchConfig, capacity: Capacity, work: Work<T, R>) -> Self {
        let (queue, waiting) = mpsc::channel(config.max_waiting_calls.get().into());
        tokio::spawn(gather(waiting, capacity, work));
        Self { queue }
    }

    /// Has `items` carried out with the next batch.
    ///
    /// # Errors
    /// When too many calls wait already, or the batch came to no end.
    pub(super) async fn submit(&self, now: Timestamp, items: Vec<T>) -> Result<Vec<R>, NoResults> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Waiting { now, items, answer }).map_err(|_| NoResults::QueueFull)?;
        answered.await.map_err(|_| NoResults::CutOff)
    }
}

async fn gather<T: Send + 'static, R: Send + 'static>(
    mut waiting: mpsc::Receiver<Waiting<T, R>>,
    capacity: Capacity,
    work: Work<T, R>,
) {
    let places = Arc::new(Semaphore::new(capacity.batches.max(1)));
    loop {
        // First a free place, then the calls: those that come meanwhile share the batch.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Some(first) = waiting.recv().await else {
            return;
        };
        let mut calls = vec![first];
        let mut items = calls[0].items.len();
        while items < capacity.items
            && let Ok(call) = waiting.try_recv()
        {
            items += call.items.len();
            calls.push(call);
        }
        let work = Arc::clone(&work);
        tokio::spawn(async move {
            carry_out(calls, &work).await;
            drop(place);
        });
    }
}

async fn carry_out<T, R>(calls: Vec<Waiting<T, R>>, work: &Work<T, R>) {
    // The latest call's time: for the earlier ones the batch happens a moment after they came.
    let Some(now) = calls.iter().map(|call| call.now).max() else {
        return;
    };
    let mut items = Vec::new();
    let mut answers = Vec::with_capacity(calls.len());
    for mut call in calls {
        answers.push((call.items.len(), call.answer));
        items.append(&mut call.items);
    }
    let mut results = work(now, items).await.into_iter();
    for (count, answer) in answers {
        // A caller that has gone away wants no answer.
        let _ = answer.send(results.by_ref().take(count).collect());
    }
}

impl<T, R> fmt::Debug for Batcher<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").field("free_places", &self.queue.capacity()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::Notify;

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
        gate: Arc<Semaphore>,
    }

    fn gated(items: usize, config: BatchConfig) -> Gated {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let started = Arc::new(Notify::new());
        let gate = Arc::new(Semaphore::new(0));
        let work: Work<usize, usize> = Arc::new({
            let (sizes, started, gate) = (sizes.clone(), started.clone(), gate.clone());
            move |_, items: Vec<usize>| {
                sizes.lock().unwrap().push(items.len());
                started.notify_one();
                let gate = gate.clone();
                Box::pin(async move {
                    gate.acquire().await.unwrap().forget();
                    items
                })
            }
        });
        Gated {
            batcher: Batcher::start(config, Capacity { items, batches: 1 }, work),
            sizes,
            started,
            gate,
        }
    }

    #[tokio::test]
    async fn calls_that_come_while_a_batch_is_on_its_way_share_the_next() {
        let Gated { batcher, sizes, started, gate } = gated(100, config(100));
        let batcher = Arc::new(batcher);
        let now = Timestamp::from_micros(NOW);
        let submit = |items: Vec<usize>| {
            let batcher = batcher.clone();
            tokio::spawn(async move { batcher.submit(now, items).await.unwrap() })
        };
        let first = submit(vec![0]);
        started.notified().await;
        let others: Vec<_> = (1..=5).map(|i| submit(vec![i, i + 10])).collect();
        while batcher.queue.capacity() > 95 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(2);

        assert_eq!(first.await.unwrap(), [0]);
        for (i, other) in others.into_iter().enumerate() {
            assert_eq!(other.await.unwrap(), [i + 1, i + 11]);
        }
        assert_eq!(*sizes.lock().unwrap(), [1, 10]);
    }

    #[tokio::test]
    async fn beyond_the_waiting_places_calls_are_refused_at_once() {
        let Gated { batcher, started, gate, .. } = gated(1, config(1));
        let batcher = Arc::new(batcher);
        let now = Timestamp::from_micros(NOW);
        let running = tokio::spawn({
            let batcher = batcher.clone();
            async move { batcher.submit(now, vec![1]).await }
        });
        started.notified().await;
        let waiting = tokio::spawn({
            let batcher = batcher.clone();
            async move { batcher.submit(now, vec![2]).await }
        });
        while batcher.queue.capacity() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(batcher.submit(now, vec![3]).await, Err(NoResults::QueueFull));

        gate.add_permits(2);
        assert_eq!(running.await.unwrap(), Ok(vec![1]));
        assert_eq!(waiting.await.unwrap(), Ok(vec![2]));
    }
}
