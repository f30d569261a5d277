//! Goes through all anomalies of a store that others write to: at the start to know them, and then
//! now and again for what programs have written that announce nothing. One instance does the latter
//! for all, by a lease, and announces what differs.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::{
    rows::SEGMENTS,
    shared::{Reader, paced},
};
use crate::{
    domain::Timestamp,
    store::{Cause, Shard, StoreError},
};

/// Pauses, in times of what a call took: at the start, so that Redis spends at most a fifth of its
/// time on it, and later at most a thirtieth.
const START_PAUSES: u32 = 4;
const LATER_PAUSES: u32 = 30;
/// Pauses after a fault: at the start they grow from the first to the second.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(30);
/// Pause after the store has not permitted it.
const DENIED_PAUSE: Duration = Duration::from_secs(60);
/// The length of the lease, and the age at which it is renewed.
const LEASE: Duration = Duration::from_secs(60);
const LEASE_RENEWAL: Duration = Duration::from_secs(15);

pub(super) struct Walker {
    pub(super) reader: Reader,
    /// The name under which it takes the lease.
    pub(super) holder: String,
    pub(super) interval: Duration,
}

impl Walker {
    pub(super) async fn run(self) {
        let shared = &self.reader.shared;
        // Of all tries at the start the same: what the first has read, the next need not read.
        let (begun, mut pause) = (self.now(), RETRY_PAUSE);
        loop {
            let walked = self.walk(begun, START_PAUSES, false).await;
            shared.note_walk(&walked);
            let Err(fault) = walked else { break };
            sleep(pause_after(&fault, pause)).await;
            pause = (pause * 2).min(MAX_RETRY_PAUSE);
        }
        loop {
            let is_wanted = timeout(self.interval, shared.walk_wanted.notified()).await.is_ok();
            let missed = shared.missed();
            let walked = if is_wanted {
                self.walk(self.now(), START_PAUSES, false).await
            } else {
                self.walk_for_all().await
            };
            shared.note_walk(&walked);
            match walked {
                Ok(()) if is_wanted => shared.note_caught_up(missed),
                Ok(()) => {}
                Err(fault) => {
                    sleep(pause_after(&fault, MAX_RETRY_PAUSE)).await;
                    if is_wanted {
                        shared.walk_wanted.notify_one();
                    }
                }
            }
        }
    }

    /// Goes through the store unless another instance does.
    async fn walk_for_all(&self) -> Result<(), StoreError> {
        match self.take_lease().await? {
            true => self.walk(self.now(), LATER_PAUSES, true).await,
            false => Ok(()),
        }
    }

    /// Goes through the store once, but for what is known since `begun`. With the lease, it is
    /// renewed, and what differs is announced. A shard that does not answer holds up no other.
    async fn walk(&self, begun: Timestamp, pauses: u32, is_leased: bool) -> Result<(), StoreError> {
        let mut outcome = Ok(());
        for shard in self.reader.store.shards() {
            let walked = self.walk_shard(shard, begun, pauses, is_leased).await;
            outcome = outcome.and(walked);
        }
        outcome?;
        // What was not found has expired, or is forgotten: it is asked for.
        for part in 0..SEGMENTS {
            let unseen = self.reader.shared.rows.known_before(part, begun);
            self.reader.read(&unseen, pauses, is_leased).await?;
        }
        Ok(())
    }

    async fn walk_shard(
        &self,
        shard: Shard,
        begun: Timestamp,
        pauses: u32,
        is_leased: bool,
    ) -> Result<(), StoreError> {
        let Some(shared_rows) = self.reader.shared_rows() else { return Ok(()) };
        let mut renewed_at = Instant::now();
        let mut cursor = Some(String::new());
        while let Some(from) = cursor {
            let found = paced(pauses, shared_rows.find(shard, &from)).await?;
            cursor = found.next;
            // What has come by itself meanwhile, or was found before, is known already.
            let mut unread = found.keys;
            unread.retain(|key| !self.reader.shared.rows.is_known_since(*key, begun));
            self.reader.read(&unread, pauses, is_leased).await?;
            if is_leased && renewed_at.elapsed() > LEASE_RENEWAL {
                self.take_lease().await?;
                renewed_at = Instant::now();
            }
        }
        Ok(())
    }

    fn now(&self) -> Timestamp {
        (self.reader.moment)().now
    }

    async fn take_lease(&self) -> Result<bool, StoreError> {
        match self.reader.shared_rows() {
            Some(shared_rows) => shared_rows.take_lease(&self.holder, LEASE).await,
            None => Ok(false),
        }
    }
}

fn pause_after(fault: &StoreError, usual: Duration) -> Duration {
    if fault.cause() == Cause::Permission { DENIED_PAUSE } else { usual }
}
