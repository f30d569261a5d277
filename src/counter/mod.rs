//! The counter, which handlers call: the only place that decides between store, spool and refusal.
//! It batches calls, passes them to the store, judges the returned stats by the rules, and observes
//! the health of the store. While the store does not answer, writes wait in the spool, and answers
//! are estimates.
//!
//! Order of imports, from the lowest layer to the interface: trusted_time → clock, slowness →
//! health, call_sizes, news, judging → batching → outage → error, answers → mod → reads, lists,
//! writes, recording, forget, dead_letters.

mod answers;
mod batching;
mod call_sizes;
mod clock;
mod dead_letters;
mod error;
mod forget;
mod health;
mod judging;
mod lists;
mod news;
mod outage;
mod reads;
mod recording;
mod slowness;
mod trusted_time;
mod writes;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;

use crate::{
    catalogue::{Catalogue, CatalogueConfig, CatalogueTasks},
    domain::{AnomalyKey, Moment, RuleRef, Timestamp},
    rules::Rules,
    spool::{SpoolConfig, SpoolOpenError},
    store::{Cause, Shard, Store, StoreError},
    telemetry::{self, Counters, Label as _, StatusGauges, StatusSnapshot},
    traces::{Parent, StoreSpan},
};

use self::{
    batching::{RecordCall, RepairCall, ShardedBatcher, StatsCall},
    call_sizes::CallSizes,
    health::{CallKind, Health, Observation},
    outage::{CallTimes, Executor, Fallback, Outages},
};

pub use answers::{
    Anomaly, Answered, Counted, Degraded, History, OccurrenceOutcome, Readiness, RepairAnswer,
};
pub use batching::BatchConfig;
pub use clock::{Clock, SystemClock, TrustedClock};
pub use error::CounterError;
pub use health::HealthState;
pub use lists::{AnomalyList, AnomalySummary, ListedAnomaly};
pub use outage::{DegradedConfig, SpoolDepth};

/// The sections of the configuration that the counter reads.
#[derive(Clone, Copy, Debug)]
pub struct CounterConfig {
    /// The section `batch`.
    pub batch: BatchConfig,
    /// The section `catalogue`.
    pub catalogue: CatalogueConfig,
    /// The section `degraded`.
    pub degraded: DegradedConfig,
    /// The section `spool`.
    pub spool: SpoolConfig,
    /// Maximum time that a call waits for the spool's disk.
    pub write_timeout: Duration,
}

/// Counts anomalies in a store.
#[derive(Debug)]
pub struct Counter {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    rules: Arc<Rules>,
    catalogue: Arc<Catalogue>,
    catalogue_tasks: CatalogueTasks,
    /// Limits the number of stats that lists read.
    list_stats: lists::ListLimiter,
    figures: lists::CatalogueFigures,
    health: Arc<Health>,
    call_sizes: Arc<CallSizes>,
    outages: Outages,
    /// Absent if a spool would be on the same disk as the store.
    fallback: Option<Arc<Fallback>>,
    occurrences: ShardedBatcher<RecordCall>,
    stats: ShardedBatcher<StatsCall>,
    repairs: ShardedBatcher<RepairCall>,
    outcomes: Counters<OccurrenceOutcome>,
    status: StatusGauges<HealthState, Cause>,
}

impl Counter {
    /// Starts counting. With `spool_dir`, writes that the store does not take wait in a spool
    /// there. Must be called within a runtime and after [`telemetry::Recorder::install`]. Blocks
    /// while it reads the spool.
    ///
    /// # Errors
    /// Fails if the spool can't be opened.
    pub fn start(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        rules: Arc<Rules>,
        config: CounterConfig,
        spool_dir: Option<&Path>,
    ) -> Result<Self, SpoolOpenError> {
        let CounterConfig { batch, catalogue, degraded, spool, write_timeout } = config;
        let spool = (spool, write_timeout);
        let of_store = Catalogue::new(Arc::clone(&store), Arc::clone(&rules), catalogue);
        let (catalogue, catalogue_config) = (Arc::new(of_store), catalogue);
        let fallback = spool_dir
            .map(|dir| {
                let catalogue = Arc::clone(&catalogue);
                Fallback::open(dir, clock.now(), spool, batch, degraded, catalogue)
            })
            .transpose()?
            .map(Arc::new);
        let health = Arc::new(Health::new(store.name(), fallback.is_some()));
        let executor = Executor::new(
            Arc::clone(&store),
            Arc::clone(&clock),
            Arc::clone(&health),
            fallback.clone(),
            Arc::clone(&rules),
        );
        let call_sizes = Arc::clone(&executor.call_sizes);
        Ok(Self {
            outages: Outages::start(executor, degraded),
            occurrences: ShardedBatcher::new(&store, &health, &call_sizes, batch),
            stats: ShardedBatcher::new(&store, &health, &call_sizes, batch),
            repairs: ShardedBatcher::new(&store, &health, &call_sizes, batch),
            call_sizes,
            outcomes: telemetry::occurrences(),
            status: StatusGauges::register(),
            list_stats: lists::limiter(),
            figures: lists::CatalogueFigures::register(),
            catalogue_tasks: {
                let clock = Arc::clone(&clock);
                catalogue.start(Arc::new(move || clock.moment()), catalogue_config)
            },
            catalogue,
            store,
            clock,
            rules,
            health,
            fallback,
        })
    }

    /// Returns the current moment.
    pub fn moment(&self) -> Moment {
        self.clock.moment()
    }

    /// Returns the current time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Returns the store's name, while the state is not Healthy. Does not call the store.
    pub fn degraded_store(&self) -> Option<&'static str> {
        self.health.since().map(|_| self.store.name())
    }

    /// Returns the readiness for calls. Checks the store, unless it is known to be unavailable.
    pub async fn readiness(&self) -> Readiness {
        self.check_store().await;
        Readiness {
            store: self.store.name(),
            state: self.health.state(),
            since: self.health.since(),
            cause: self.health.causes().first().copied(),
            clock_disagreement_seconds: self.clock.disagreement_seconds(),
            spool: self.spool_depth(),
            spool_is_usable: self.spool_is_usable(),
            rules_checksum: self.rules.in_force().set().checksum(),
        }
    }

    fn spool_is_usable(&self) -> Option<bool> {
        self.fallback.as_ref().map(|fallback| fallback.spool().is_usable())
    }

    /// Sets the gauges of the state and the spool. Does not call the store.
    pub fn report_status(&self) {
        let spool = self.spool_depth();
        let size = self.store.size().unwrap_or_default();
        let fallback = self.fallback.as_ref();
        self.status.set(StatusSnapshot {
            state: self.health.state(),
            unavailable: &self.health.causes(),
            anomalies: size.anomalies,
            max_anomalies: size.max_anomalies,
            slow: self.health.slow_shards(),
            spool_operations: spool.operations,
            spool_bytes: spool.bytes,
            spool_max_bytes: fallback.map_or(0, |fallback| fallback.spool().max_bytes()),
            spool_age_seconds: spool.age_seconds,
            spool_is_unusable: self.spool_is_usable() == Some(false),
            clock_disagreement_seconds: self.clock.disagreement_seconds().unwrap_or(0),
            rules_checksum: self.rules.in_force().set().checksum(),
        });
    }

    fn spool_depth(&self) -> SpoolDepth {
        let fallback = self.fallback.as_ref();
        fallback.map(|fallback| fallback.depth(self.now())).unwrap_or_default()
    }

    async fn check_store(&self) {
        let now = self.now();
        if self.health.state() == HealthState::Healthy {
            join_all(self.store.shards().into_iter().map(|shard| async move {
                if let Err(fault) = self.store.check(shard).await {
                    self.health.observe(now, shard, Observation::CheckFault(&fault));
                }
            }))
            .await;
        }
    }

    /// Reports a fault of the store at the start. The log has one line about it, even if the store
    /// takes some calls.
    pub async fn report_fault_at_start(&self, fault: &StoreError) {
        let now = self.now();
        for shard in self.store.shards() {
            if self.store.check(shard).await.is_err() {
                self.health.observe(now, shard, Observation::CheckFault(fault));
            }
        }
        let may_be_over = matches!(fault.cause(), Cause::Timeout | Cause::Unreachable);
        if self.health.state() == HealthState::Healthy && !may_be_over {
            tracing::warn!(store = self.store.name(), error = %fault, "{fault}");
        }
    }

    /// Does a piece of the store's maintenance. Must be called about once a second.
    pub async fn maintain(&self) {
        let moment = self.moment();
        if let Err(fault) = self.store.maintain(moment).await {
            // A store with several shards does its maintenance by itself.
            self.health.observe(moment.now, Shard::default(), Observation::CheckFault(&fault));
        }
        self.health.end_slowness(Instant::now());
        self.report_figures(moment).await;
        if let Some(fallback) = &self.fallback {
            fallback.maintain(moment).await;
        }
    }

    /// Stops the store and the spool. No call may be running.
    pub async fn close(&self) {
        self.catalogue_tasks.end();
        self.outages.close().await;
        self.store.close().await;
        if let Some(fallback) = &self.fallback {
            fallback.spool().close().await;
        }
    }

    /// Returns the times of a call that began at `began_at` and whose reply has just arrived.
    fn times(&self, began_at: Timestamp) -> CallTimes {
        CallTimes { began_at, arrived_at: self.now() }
    }

    /// Returns the rules, which may be reloaded.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Returns the rule that judges an anomaly. If the rule is not known here, the anomaly's fields
    /// are read; if they can't be read, the rule is `default`.
    async fn rule_of(&self, moment: Moment, key: AnomalyKey) -> RuleRef {
        let rules = self.rules.in_force();
        if let Some(rule) = rules.known_rule(key) {
            return rule;
        }
        let call = self.store.signature_json(key);
        let read = self.call_store(moment, key, CallKind::Read, "signature", call).await;
        let seen = || self.fallback.as_ref().and_then(|fallback| fallback.signature_json(key));
        match read.unwrap_or_else(|_| seen()) {
            Some(json) => rules.rule_by(key, Some(&json)),
            None => self.catalogue.rule(key),
        }
    }

    /// Makes a store call that is not batched, unless its shard is unavailable, and reports its
    /// outcome. `name` is its name in traces.
    async fn call_store<T>(
        &self,
        moment: Moment,
        key: AnomalyKey,
        kind: CallKind,
        name: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let shard = self.store.shard(key);
        if let Some(rejected) = self.health.reject(shard, 1).and_then(|mut all| all.pop()) {
            return rejected;
        }
        let span = StoreSpan::begin(Parent::request().into(), self.store.name(), name, 1);
        let begun = Instant::now();
        let result = call.await;
        self.health.observe_duration(Instant::now(), shard, begun.elapsed());
        if let Some(span) = span {
            span.end(result.as_ref().err().map(|fault| fault.class().value()));
        }
        self.health.observe_result(moment.now, shard, kind, &result);
        result
    }

    /// Returns the fallback while the shard of an anomaly is unavailable; `None` if there is no
    /// fallback.
    fn unavailable_fallback(&self, key: AnomalyKey) -> Option<&Arc<Fallback>> {
        let fallback = self.fallback.as_ref()?;
        self.health.is_unavailable(self.store.shard(key)).then_some(fallback)
    }
}
