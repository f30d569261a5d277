//! What handlers call, and the only place that decides: store, spool or refuse. It batches calls,
//! hands them to the store, judges what comes back by the thresholds, and keeps an eye on the
//! store's health. While the store does not answer, writes wait in the spool, and answers come from
//! what was last known.

mod batcher;
mod batchers;
mod clock;
mod dead_letters;
mod error;
mod executor;
mod fallback;
mod health;
mod known;
mod pending;
mod probe;
mod reads;
mod recent;
mod replay;
mod resend;
mod writes;

use std::{
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::{
    domain::{
        AnomalyKey, AnomalyStats, Frequency, Occurrence, RepairAttempt, Thresholds, Timestamp,
    },
    spool::{Spool, SpoolConfig, SpoolOpenError},
    store::{AnomalyDetails, Recorded, RepairRecorded, Shard, Store, StoreError},
    telemetry::{StatusSnapshot, StoreCall},
    traces::{Parent, StoreSpan},
};

use self::{
    batchers::ShardedBatcher, executor::Executor, fallback::Fallback, health::Health,
    pending::Pending, recent::ResendBuffer, replay::Replay, resend::Resender,
};

pub use batcher::BatchConfig;
pub use clock::{Clock, SystemClock};
pub use error::CounterError;
pub use health::HealthState;

/// How many answers to probes may wait to be looked at.
const MAX_ANSWERS: usize = 64;

/// The section `degraded` of the configuration.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DegradedConfig {
    /// How often a store that does not answer is probed, in milliseconds.
    pub probe_interval_ms: NonZeroU64,
    /// Of how many anomalies the last known counts are kept.
    pub known_anomalies: NonZeroUsize,
    /// How many waiting operations a second are carried out once the store answers.
    pub replay_per_second: NonZeroU32,
    /// For how many seconds acknowledged writes are remembered, to be sent again after a failover.
    pub remember_seconds: u32,
    /// How many acknowledged writes are remembered at the most.
    pub remember_operations: usize,
}

/// The sections of the configuration that are about counting.
#[derive(Clone, Copy, Debug)]
pub struct CounterConfig {
    /// Section `thresholds`.
    pub thresholds: Thresholds,
    /// Section `batch`.
    pub batch: BatchConfig,
    /// Section `degraded`.
    pub degraded: DegradedConfig,
    /// Section `spool`.
    pub spool: SpoolConfig,
}

/// Counts anomalies over a store.
#[derive(Debug)]
pub struct Counter {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    thresholds: Thresholds,
    health: Arc<Health>,
    /// Absent where the store forgets nothing that it has acknowledged.
    recent: Option<Arc<ResendBuffer>>,
    /// Absent where the store is on the same disk as a spool would be.
    fallback: Option<Arc<Fallback>>,
    occurrences: ShardedBatcher<Occurrence, Recorded>,
    stats: ShardedBatcher<AnomalyKey, Option<AnomalyStats>>,
    repairs: ShardedBatcher<RepairAttempt, Option<RepairRecorded>>,
}

/// An answer, and how far it is to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered<T> {
    /// The answer.
    pub value: T,
    /// Present where the store did not answer itself.
    pub degraded: Option<Degraded>,
}

/// That an answer was made of what was last known and what waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Degraded {
    /// When the store's part of it was current; `None` where nothing was known.
    pub as_of: Option<Timestamp>,
}

impl<T> Answered<T> {
    /// From the store itself.
    fn current(value: T) -> Self {
        Self { value, degraded: None }
    }

    /// From what was known at `as_of`.
    fn estimated(value: T, as_of: Option<Timestamp>) -> Self {
        Self { value, degraded: Some(Degraded { as_of }) }
    }
}

/// What became of an occurrence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Whether it counts from this call on; false for a retry and for what is older than 30 days.
    pub counted: bool,
    /// How the anomaly stands after it.
    pub frequency: Frequency,
}

/// All that is known of one anomaly, judged.
#[derive(Clone, Debug)]
pub struct Anomaly {
    /// How often it has happened.
    pub frequency: Frequency,
    /// All else.
    pub details: AnomalyDetails,
}

/// How calls can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// The store's name.
    pub store: &'static str,
    /// Where the service is between a working store and none.
    pub state: HealthState,
    /// Since when the state has not been Healthy.
    pub since: Option<Timestamp>,
    /// What waits in the spool.
    pub spool: Depth,
}

/// How much waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Operations.
    pub operations: usize,
    /// Bytes of their records.
    pub bytes: u64,
    /// For how long there has been something, in seconds.
    pub age_seconds: i64,
}

impl Counter {
    /// Starts counting. With `spool_dir`, writes that the store does not take wait in a spool there.
    /// Must be called within a tokio runtime; blocks while it reads the spool.
    ///
    /// # Errors
    /// When the spool can't be opened.
    pub fn start(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        config: CounterConfig,
        spool_dir: Option<&Path>,
    ) -> Result<Self, SpoolOpenError> {
        let CounterConfig { thresholds, batch, degraded, spool } = config;
        let health = Arc::new(Health::new(store.name()));
        let now = clock.now();
        let mut fallback = None;
        if let Some(dir) = spool_dir {
            let mut pending = Pending::default();
            let spool = Spool::open(dir, spool, now, |spooled| {
                pending.add(now, &spooled.operation);
            })?;
            let waiting = pending.operations();
            if waiting > 0 {
                tracing::info!(waiting, "{waiting} operations of an earlier run wait");
                health.begin_replay(now);
            }
            fallback =
                Some(Arc::new(Fallback::new(spool, pending, degraded.known_anomalies, batch)));
        }
        let remembered =
            || Arc::new(ResendBuffer::new(degraded.remember_seconds, degraded.remember_operations));
        let resend = store.resets().map(|resets| Resender::new(remembered(), resets));
        let recent = resend.as_ref().map(Resender::recent);
        let (answering, answers) = mpsc::channel(MAX_ANSWERS);
        tokio::spawn(probe::run(
            Arc::clone(&store),
            Arc::clone(&health),
            health.outages(),
            Duration::from_millis(degraded.probe_interval_ms.get()),
            answering,
        ));
        let executor = Executor {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            health: Arc::clone(&health),
            fallback: fallback.clone(),
        };
        tokio::spawn(Replay::new(executor, resend, answers, degraded).run());

        let occurrences =
            ShardedBatcher::new(&store, &health, batch, StoreCall::Record, |store, now, items| {
                Box::pin(async move { store.record(now, items).await })
            });
        let stats = ShardedBatcher::new(
            &store,
            &health,
            batch,
            StoreCall::AnomalyStats,
            |store, now, items| Box::pin(async move { store.stats(now, items).await }),
        );
        let stats = stats.at_once(store.stats_from_memory());
        let repairs =
            ShardedBatcher::new(&store, &health, batch, StoreCall::Repair, |store, now, items| {
                Box::pin(async move { store.record_repairs(now, items).await })
            });
        Ok(Self { store, clock, thresholds, health, recent, fallback, occurrences, stats, repairs })
    }

    /// What time it is.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The store's name, while the state is not Healthy. Reads the state and asks nobody.
    pub fn degraded_store(&self) -> Option<&'static str> {
        self.health.since().map(|_| self.store.name())
    }

    /// How calls can be served. Asks the store, unless that is known to be away.
    pub async fn readiness(&self) -> Readiness {
        self.ask_store().await;
        let now = self.now();
        let (operations, bytes, since) = self.depth();
        Readiness {
            store: self.store.name(),
            state: self.health.state(),
            since: self.health.since(),
            spool: Depth { operations, bytes, age_seconds: age_seconds(now, since) },
        }
    }

    /// The same and more for metrics, without asking the store.
    pub fn standing(&self) -> StatusSnapshot {
        let (spool_operations, spool_bytes, since) = self.depth();
        StatusSnapshot {
            state: self.health.state().into(),
            shards_unavailable: self.health.away().len(),
            spool_operations,
            spool_bytes,
            spool_max_bytes: self
                .fallback
                .as_ref()
                .map_or(0, |fallback| fallback.spool().max_bytes()),
            spool_age_seconds: age_seconds(self.now(), since),
        }
    }

    fn depth(&self) -> (usize, u64, Option<Timestamp>) {
        self.fallback.as_ref().map_or((0, 0, None), |fallback| fallback.depth())
    }

    async fn ask_store(&self) {
        let now = self.now();
        if self.health.state() == HealthState::Healthy {
            join_all(self.store.shards().into_iter().map(|shard| async move {
                if let Err(fault) = self.store.check(shard).await {
                    self.health.begin_outage(now, shard, &fault);
                }
            }))
            .await;
        }
    }

    /// Does a piece of the store's house-keeping. To be called about once a second.
    pub async fn maintain(&self) {
        let now = self.now();
        if let Err(fault) = self.store.maintain(now).await {
            // A store in more than one part keeps house by itself.
            self.health.begin_outage(now, Shard::default(), &fault);
        }
    }

    /// Ends the store's work, once no call is under way.
    pub async fn close(&self) {
        self.store.close().await;
    }

    fn unchanged(&self, key: AnomalyKey, stats: AnomalyStats) -> Frequency {
        let count_24h = stats.counts.day;
        Frequency::judge(key, stats, count_24h, self.thresholds)
    }

    /// A call of the store that goes in no batch.
    async fn traced<T>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let span = StoreSpan::begin(Parent::request().into(), self.store.name(), name, 1);
        let result = call.await;
        if let Some(span) = span {
            span.end(result.as_ref().err().map(StoreError::class));
        }
        result
    }

    /// What to do without an answer of the store; `None` where the store is all there is.
    fn unavailable_fallback(&self, key: AnomalyKey) -> Option<&Arc<Fallback>> {
        let fallback = self.fallback.as_ref()?;
        self.health.is_away(self.store.shard(key)).then_some(fallback)
    }
}

/// A clock that was set back makes nothing younger than new.
fn age_seconds(now: Timestamp, since: Option<Timestamp>) -> i64 {
    since.map_or(0, |since| ((now.as_micros() - since.as_micros()) / 1_000_000).max(0))
}
