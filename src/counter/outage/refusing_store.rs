//! A store for the tests in this folder.

use std::{
    collections::HashMap,
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::executor::Executor;
use crate::{
    catalogue::{Catalogue, CatalogueConfig},
    counter::{clock::TrustedClock, health::Health},
    domain::{
        AnomalyKey, AnomalyStats, AuditEntry, EventId, FixMark, FixRemoval, Moment, Occurrence,
        PermanentFix, RepairAttempt, Thresholds, Timestamp, WindowCounts,
    },
    rules::Rules,
    store::{
        AnomalyDetails, AnomalyHistory, Cause, Judged, RecordOutcome, Recorded, RepairRecorded,
        Resets, SeriesSpan, Shard, Store, StoreError,
    },
};

/// Creates an empty catalogue.
pub(crate) fn catalogue() -> Arc<Catalogue> {
    let config =
        CatalogueConfig { max_anomalies: NonZeroUsize::MIN, reconcile_minutes: NonZeroU32::MIN };
    let rules = Arc::new(Rules::of_thresholds(Thresholds::new(3, 5, 10).unwrap()));
    Arc::new(Catalogue::new(Arc::new(RefusingStore::default()), rules, config))
}

/// A store in memory that refuses every call with an event of certain ids, and times out if a call
/// is large.
#[derive(Debug, Default)]
pub(crate) struct RefusingStore {
    pub(crate) refused_ids: Vec<String>,
    /// Ids of removals whose anomaly is being moved.
    pub(crate) moving_ids: Vec<String>,
    pub(crate) fails_checks: bool,
    /// The minimum size of a call that times out, in bytes.
    pub(crate) late_from: Option<usize>,
    pub(crate) counted: Mutex<HashMap<AnomalyKey, Vec<String>>>,
    /// The ids of events that arrived as ones that may have been sent before.
    pub(crate) came_again: Mutex<Vec<String>>,
    pub(crate) calls: Mutex<usize>,
    pub(crate) resets: watch::Sender<Resets>,
}

impl RefusingStore {
    pub(crate) fn executor(self: &Arc<Self>) -> Executor {
        let health = Arc::new(Health::new("refusing", true));
        let rules = Arc::new(Rules::of_thresholds(Thresholds::new(3, 5, 10).unwrap()));
        let store = Arc::clone(self) as Arc<dyn Store>;
        Executor::new(store, Arc::new(TrustedClock::start()), health, None, rules)
    }
}

fn refusal() -> StoreError {
    StoreError::indeterminate(Cause::Refused, "ERR nobody knows these words")
}

#[async_trait]
impl Store for RefusingStore {
    fn name(&self) -> &'static str {
        "refusing"
    }

    fn concurrent_batches(&self) -> usize {
        1
    }

    fn batch_items(&self) -> usize {
        1_000
    }

    async fn record(
        &self,
        moment: Moment,
        occurrences: Vec<Occurrence>,
    ) -> Vec<Result<Recorded, StoreError>> {
        *self.calls.lock() += 1;
        let bytes: usize = occurrences.iter().map(Occurrence::bytes).sum();
        if self.late_from.is_some_and(|late| bytes >= late) {
            let late = StoreError::indeterminate(Cause::Timeout, "late");
            return vec![Err(late); occurrences.len()];
        }
        let is_refused = |id: &EventId| {
            self.refused_ids.iter().any(|refused| refused == "*" || refused == id.as_str())
        };
        if occurrences.iter().any(|occurrence| is_refused(&occurrence.id)) {
            return vec![Err(refusal()); occurrences.len()];
        }
        let mut counted = self.counted.lock();
        let mut record = |occurrence: Occurrence| {
            let ids = counted.entry(occurrence.key).or_default();
            ids.push(occurrence.id.as_str().to_owned());
            let day = ids.len() as u64;
            let counts = WindowCounts { hour: day, day, week: day, month: day };
            let stats = AnomalyStats { counts, ..AnomalyStats::default() };
            Ok(Recorded {
                outcome: RecordOutcome::Counted,
                now: moment.now,
                previous_count_24h: day - 1,
                previous_last_seen: None,
                stats,
                newest: Vec::new(),
            })
        };
        occurrences.into_iter().map(&mut record).collect()
    }

    /// Recognises no id, unless calls can time out.
    async fn record_again(
        &self,
        moment: Moment,
        occurrences: Vec<Occurrence>,
    ) -> Vec<Result<Recorded, StoreError>> {
        let ids = occurrences.iter().map(|occurrence| occurrence.id.as_str().to_owned());
        self.came_again.lock().extend(ids);
        if self.late_from.is_some() {
            return self.record(moment, occurrences).await;
        }
        let recorded = Recorded {
            outcome: RecordOutcome::Unrecognisable,
            now: moment.now,
            previous_count_24h: 0,
            previous_last_seen: None,
            stats: AnomalyStats::default(),
            newest: Vec::new(),
        };
        vec![Ok(recorded); occurrences.len()]
    }

    async fn stats_by_rule(
        &self,
        _moment: Moment,
        _anomalies: Vec<Judged>,
    ) -> Vec<Result<Option<AnomalyStats>, StoreError>> {
        Vec::new()
    }

    async fn series(
        &self,
        _moment: Moment,
        _span: SeriesSpan,
        _keys: Vec<AnomalyKey>,
    ) -> Vec<Result<Option<Vec<u64>>, StoreError>> {
        Vec::new()
    }

    async fn details_by_rule(
        &self,
        _moment: Moment,
        _anomaly: Judged,
    ) -> Result<Option<AnomalyDetails>, StoreError> {
        Ok(None)
    }

    async fn signature_json(&self, _key: AnomalyKey) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    async fn record_repairs(
        &self,
        _moment: Moment,
        attempts: Vec<RepairAttempt>,
    ) -> Vec<Result<Option<RepairRecorded>, StoreError>> {
        vec![Ok(None); attempts.len()]
    }

    async fn audit(
        &self,
        _moment: Moment,
        _key: AnomalyKey,
    ) -> Result<Option<Vec<AuditEntry>>, StoreError> {
        Ok(None)
    }

    async fn history(
        &self,
        _moment: Moment,
        _key: AnomalyKey,
        _times: &[Timestamp],
    ) -> Result<Option<AnomalyHistory>, StoreError> {
        Ok(None)
    }

    async fn forget(&self, _moment: Moment, _key: AnomalyKey) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn mark_fixed(
        &self,
        _moment: Moment,
        _mark: FixMark,
    ) -> Result<Option<PermanentFix>, StoreError> {
        Ok(None)
    }

    async fn unmark_fixed(
        &self,
        _moment: Moment,
        removal: FixRemoval,
    ) -> Result<Option<bool>, StoreError> {
        *self.calls.lock() += 1;
        match self.moving_ids.iter().any(|id| id == removal.id.as_str()) {
            true => Err(StoreError::moving("TRYAGAIN")),
            false => Ok(Some(true)),
        }
    }

    fn resets(&self) -> Option<watch::Receiver<Resets>> {
        Some(self.resets.subscribe())
    }

    async fn check(&self, _shard: Shard) -> Result<(), StoreError> {
        if self.fails_checks { Err(refusal()) } else { Ok(()) }
    }

    async fn maintain(&self, _moment: Moment) -> Result<(), StoreError> {
        Ok(())
    }

    async fn close(&self) {}
}
