//! Limits the number of concurrent queries: each keeps a core busy until it has visited all
//! anomalies.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Number of queries that run at the same time.
const RUNNING: usize = 2;
/// Maximum number of queries that wait for them, and the maximum time. A dashboard sends one for
/// each panel at the same time, and each takes some milliseconds.
const WAITING: usize = 32;
const MAX_WAIT: Duration = Duration::from_millis(800);

#[derive(Debug)]
pub(super) struct Permits {
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Counts a waiting query until it is dropped, also with its cancelled future.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Default for Permits {
    fn default() -> Self {
        Self { running: Arc::new(Semaphore::new(RUNNING)), waiting: AtomicUsize::new(0) }
    }
}

impl Permits {
    /// Returns a permit for one query; `None` if too many run and wait, or if it would wait for too
    /// long.
    pub(super) async fn take(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() {
            return Some(permit);
        }
        let before = self.waiting.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waiting(&self.waiting);
        if before >= WAITING {
            return None;
        }
        let permit = timeout(MAX_WAIT, Arc::clone(&self.running).acquire_owned()).await;
        permit.ok().and_then(Result::ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_run_some_wait_and_the_next_one_is_refused() {
        let permits = Arc::new(Permits::default());
        let (first, _second) = (permits.take().await.unwrap(), permits.take().await.unwrap());
        let wait = || {
            let permits = Arc::clone(&permits);
            tokio::spawn(async move { permits.take().await })
        };
        let mut waiting: Vec<_> = (0..WAITING).map(|_| wait()).collect();
        while permits.waiting.load(Ordering::Acquire) < WAITING {
            tokio::task::yield_now().await;
        }
        assert!(permits.take().await.is_none(), "the next one");
        drop(first);
        let first = waiting.remove(0).await.unwrap();
        assert!(first.is_some(), "the first in the queue");
        for late in waiting {
            assert!(late.await.unwrap().is_none(), "nobody waits for ever");
        }
        drop(first);
        assert!(permits.take().await.is_some(), "who has gone away is not waited for");
    }
}
