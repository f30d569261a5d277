//! What handlers call, and the only place that decides: it batches calls, hands them to the store,
//! judges what comes back by the thresholds, and keeps an eye on the store's health.

mod batcher;
mod clock;
mod error;
mod health;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::{
    domain::{
        AnomalyKey, FixMark, Frequency, Occurrence, PermanentFix, RepairAttempt, Tally, Thresholds,
        Timestamp,
    },
    store::{Dossier, RecordOutcome, Recorded, RepairRecorded, Store, StoreError},
};

use self::{
    batcher::{Batcher, QueueFull, Results},
    health::Health,
};

pub use batcher::BatchConfig;
pub use clock::{Clock, SystemClock};
pub use error::CounterError;

/// Counts anomalies over a store.
#[derive(Debug)]
pub struct Counter {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    thresholds: Thresholds,
    health: Health,
    occurrences: Batcher<Occurrence, Recorded>,
    tallies: Batcher<AnomalyKey, Option<Tally>>,
    repairs: Batcher<RepairAttempt, Option<RepairRecorded>>,
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
    pub dossier: Dossier,
}

/// Whether calls can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// The store's name.
    pub store: &'static str,
    /// Since when the store has not answered; `None` when it does.
    pub degraded_since: Option<Timestamp>,
}

impl Counter {
    /// Starts counting. Must be called within a tokio runtime.
    pub fn start(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        thresholds: Thresholds,
        batch: BatchConfig,
    ) -> Self {
        let occurrences = batcher(&store, batch, |store, now, items| {
            Box::pin(async move { store.record(now, items).await })
        });
        let tallies = batcher(&store, batch, |store, now, items| {
            Box::pin(async move { store.tallies(now, items).await })
        });
        let repairs = batcher(&store, batch, |store, now, items| {
            Box::pin(async move { store.record_repairs(now, items).await })
        });
        let health = Health::new(store.name());
        Self {
            store,
            clock,
            thresholds,
            health,
            occurrences,
            tallies,
            repairs,
        }
    }

    /// What time it is.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Records occurrences in their order; one result for each.
    pub async fn record(
        &self,
        now: Timestamp,
        occurrences: Vec<Occurrence>,
    ) -> Vec<Result<Counted, CounterError>> {
        let keys: Vec<AnomalyKey> = occurrences
            .iter()
            .map(|occurrence| occurrence.key)
            .collect();
        let results = match self.occurrences.submit(now, occurrences).await {
            Ok(results) => results,
            Err(QueueFull) => return vec![Err(CounterError::Overloaded); keys.len()],
        };
        keys.into_iter()
            .zip(results)
            .map(|(key, result)| Ok(self.judge(key, self.observed(now, result)?)))
            .collect()
    }

    /// Records one occurrence.
    ///
    /// # Errors
    /// When the store can't be told.
    pub async fn record_one(
        &self,
        now: Timestamp,
        occurrence: Occurrence,
    ) -> Result<Counted, CounterError> {
        let key = occurrence.key;
        let recorded = self.one(now, self.occurrences.submit(now, vec![occurrence]).await)?;
        Ok(self.judge(key, recorded))
    }

    /// How often an anomaly has happened; `None` when it is unknown.
    ///
    /// # Errors
    /// When the store can't be asked.
    pub async fn frequency(
        &self,
        now: Timestamp,
        key: AnomalyKey,
    ) -> Result<Option<Frequency>, CounterError> {
        let tally = self.one(now, self.tallies.submit(now, vec![key]).await)?;
        Ok(tally.map(|tally| self.unchanged(key, tally)))
    }

    /// All that is known of an anomaly; `None` when it is unknown.
    ///
    /// # Errors
    /// When the store can't be asked.
    pub async fn anomaly(
        &self,
        now: Timestamp,
        key: AnomalyKey,
    ) -> Result<Option<Anomaly>, CounterError> {
        let dossier = self.observed(now, self.store.dossier(now, key).await)?;
        Ok(dossier.map(|dossier| {
            let frequency = self.unchanged(key, dossier.tally.clone());
            Anomaly { frequency, dossier }
        }))
    }

    /// Records a repair attempt; `None` when its anomaly is unknown.
    ///
    /// # Errors
    /// When the store can't be told.
    pub async fn record_repair(
        &self,
        now: Timestamp,
        attempt: RepairAttempt,
    ) -> Result<Option<RepairRecorded>, CounterError> {
        self.one(now, self.repairs.submit(now, vec![attempt]).await)
    }

    /// Marks an anomaly as permanently fixed; `None` when it is unknown.
    ///
    /// # Errors
    /// When the store can't be told.
    pub async fn mark_fixed(
        &self,
        now: Timestamp,
        mark: FixMark,
    ) -> Result<Option<PermanentFix>, CounterError> {
        let key = mark.key;
        let fix = self.observed(now, self.store.mark_fixed(now, mark).await)?;
        if fix.is_some() {
            tracing::info!(%key, "anomaly {key} is marked as permanently fixed");
        }
        Ok(fix)
    }

    /// Takes a mark back, and says whether there was one; `None` when the anomaly is unknown.
    ///
    /// # Errors
    /// When the store can't be told.
    pub async fn unmark_fixed(
        &self,
        now: Timestamp,
        key: AnomalyKey,
    ) -> Result<Option<bool>, CounterError> {
        let removed = self.observed(now, self.store.unmark_fixed(now, key).await)?;
        if removed == Some(true) {
            tracing::info!(%key, "the permanent fix of anomaly {key} is taken back");
        }
        Ok(removed)
    }

    /// Asks the store whether it answers.
    pub async fn readiness(&self) -> Readiness {
        let now = self.now();
        self.health.observe(now, &self.store.check().await);
        Readiness {
            store: self.store.name(),
            degraded_since: self.health.away_since(),
        }
    }

    /// Does a piece of the store's house-keeping. To be called about once a second.
    pub async fn maintain(&self) {
        let now = self.now();
        let done = self.store.maintain(now).await;
        // A store that has nothing to do here says nothing about its health by it.
        if done.is_err() {
            self.health.observe(now, &done);
        }
    }

    /// Ends the store's work, once no call is under way.
    pub async fn close(&self) {
        self.store.close().await;
    }

    fn judge(&self, key: AnomalyKey, recorded: Recorded) -> Counted {
        let Recorded {
            outcome,
            previous_count_24h,
            tally,
        } = recorded;
        let frequency = Frequency::judge(key, tally, previous_count_24h, self.thresholds);
        if let Some(level) = frequency.level
            && frequency.level > frequency.previous_level
        {
            let count_24h = frequency.tally.counts.day;
            let level = level.as_str();
            tracing::info!(%key, level, count_24h, "anomaly {key} has reached {level}");
        }
        Counted {
            counted: outcome == RecordOutcome::Counted,
            frequency,
        }
    }

    fn unchanged(&self, key: AnomalyKey, tally: Tally) -> Frequency {
        let count_24h = tally.counts.day;
        Frequency::judge(key, tally, count_24h, self.thresholds)
    }

    fn one<T>(
        &self,
        now: Timestamp,
        results: Result<Results<T>, QueueFull>,
    ) -> Result<T, CounterError> {
        let mut results = results.map_err(|QueueFull| CounterError::Overloaded)?;
        let cut_off = || Err(StoreError::Indeterminate("no result came back".to_owned()));
        self.observed(now, results.pop().unwrap_or_else(cut_off))
    }

    fn observed<T>(
        &self,
        now: Timestamp,
        result: Result<T, StoreError>,
    ) -> Result<T, CounterError> {
        self.health.observe(now, &result);
        Ok(result?)
    }
}

/// One of the store's calls that take a batch.
type StoreCall<T, R> = fn(Arc<dyn Store>, Timestamp, Vec<T>) -> BoxFuture<'static, Results<R>>;

/// A batcher in front of one of the store's calls.
fn batcher<T: Send + 'static, R: Send + 'static>(
    store: &Arc<dyn Store>,
    config: BatchConfig,
    call: StoreCall<T, R>,
) -> Batcher<T, R> {
    let concurrent_batches = store.concurrent_batches();
    let store = Arc::clone(store);
    let work = Arc::new(move |now, items| call(Arc::clone(&store), now, items));
    Batcher::start(config, concurrent_batches, work)
}
