//! Walks through all anomalies of a store that others write to: at the start to learn them, and
//! then at intervals to find the writes of programs that announce nothing. One instance does the
//! latter for all, under a lease, and announces the differences.

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

/// Length of the pause after a call, as a multiple of its duration: at the start, so that Redis
/// spends at most a fifth of its time on the walk, and later at most a thirtieth.
const START_PAUSES: u32 = 4;
const LATER_PAUSES: u32 = 30;
/// Pauses after a fault: at the start they grow from the first to the second.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(30);
/// Pause after the store has not permitted a walk.
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
        // The same for all tries at the start: a try does not read again what an earlier one has
        // read.
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

    /// Walks through the store unless another instance has the lease.
    async fn walk_for_all(&self) -> Result<(), StoreError> {
        match self.take_lease().await? {
            true => self.walk(self.now(), LATER_PAUSES, true).await,
            false => Ok(()),
        }
    }

    /// Walks through the store once, without anomalies that are known since `begun`. If it
    /// `is_leased`, the walk renews the lease and announces the differences. A shard that does not
    /// answer delays no other.
    async fn walk(&self, begun: Timestamp, pauses: u32, is_leased: bool) -> Result<(), StoreError> {
        let mut outcome = Ok(());
        for shard in self.reader.store.shards() {
            let walked = self.walk_shard(shard, begun, pauses, is_leased).await;
            outcome = outcome.and(walked);
        }
        outcome?;
        // Anomalies that were not found may have expired or been forgotten: reading them shows it.
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
            // Anomalies that were announced meanwhile, or found before, are known already.
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
