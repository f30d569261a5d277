//! What the service tells of itself in numbers. Names and units are as
//! <https://prometheus.io/docs/practices/naming/> has them. Labels have few values: never an anomaly's
//! key, a path as it came, or a caller's name. What is told before a [`Recorder`] is there is lost, as in tests.

mod families;
mod labels;

use std::{fmt, sync::OnceLock, time::Duration};

use metrics::Gauge;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;

use self::families::{BATCH_ITEMS, Metrics};
pub use self::labels::{AlertResult, Denial, Fault, Outcome, Shed, State, StoreCall};
use crate::domain::EscalationLevel;

/// Upper bounds of buckets, in seconds and in items.
const SECONDS: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
const ITEMS: [f64; 12] =
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0];

static METRICS: OnceLock<Metrics> = OnceLock::new();

fn tell(what: impl FnOnce(&Metrics)) {
    if let Some(metrics) = METRICS.get() {
        what(metrics);
    }
}

/// What is told as it stands when somebody asks.
#[derive(Clone, Copy, Debug)]
pub struct StatusSnapshot {
    /// Where the service is.
    pub state: State,
    /// How many parts of the store don't answer.
    pub shards_unavailable: usize,
    /// What waits in the spool: operations, their bytes, and for how long the oldest has waited, in
    /// seconds.
    pub spool_operations: usize,
    /// Of the operations.
    pub spool_bytes: u64,
    /// How many bytes may wait.
    pub spool_max_bytes: u64,
    /// Of the oldest operation.
    pub spool_age_seconds: i64,
}

/// Gathers what is counted, and renders it. One a process.
pub struct Recorder {
    handle: PrometheusHandle,
    process: Collector,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    /// Begins to gather for the service on the store of this name.
    ///
    /// # Errors
    /// When the process has a recorder already.
    pub fn install(store: &'static str) -> Result<Self, BuildError> {
        let handle = PrometheusBuilder::new()
            .set_buckets(&SECONDS)?
            .set_buckets_for_metric(Matcher::Full(BATCH_ITEMS.to_owned()), &ITEMS)?
            .install_recorder()?;
        let process = Collector::default();
        process.describe();
        METRICS.get_or_init(|| Metrics::new(store));
        Ok(Self { handle, process })
    }

    /// Folds what was observed into the buckets. To be called every few seconds: until then each observation
    /// takes memory.
    pub fn keep_up(&self) {
        self.handle.run_upkeep();
    }

    /// All metrics in Prometheus' text format, version 0.0.4.
    pub fn render(&self, standing: StatusSnapshot) -> String {
        tell(|metrics| metrics.stand(standing));
        self.process.collect();
        self.handle.render()
    }
}

/// A request was answered. `route` is as the table of routes has it, `method` one of the standard ones.
pub fn request(route: &'static str, method: &'static str, status: u16, took: Duration) {
    tell(|metrics| {
        metrics.requests.of((route, method, status), |request| {
            request.count.increment(1);
            request.seconds.record(took);
        });
    });
}

/// A connection was opened; it is closed when what this gives is dropped.
pub fn connection() -> impl Drop + Send {
    Held::new(|metrics| &metrics.connections)
}

/// An idle connection was ended to make room for others.
pub fn idle_connection_closed() {
    tell(|metrics| metrics.idle_connections_closed.increment(1));
}

/// A request has to wait; it does so until what this gives is dropped.
pub fn waiting_request() -> impl Drop + Send {
    Held::new(|metrics| &metrics.waiting_requests)
}

/// One of those that a gauge counts.
struct Held(Option<&'static Gauge>);

impl Held {
    fn new(gauge: fn(&'static Metrics) -> &'static Gauge) -> Self {
        let gauge = METRICS.get().map(gauge);
        if let Some(gauge) = gauge {
            gauge.increment(1.0);
        }
        Self(gauge)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(gauge) = self.0 {
            gauge.decrement(1.0);
        }
    }
}

/// A call was refused so that others keep their latency.
pub fn shed(reason: Shed) {
    tell(|metrics| metrics.shed.of(reason).increment(1));
}

/// An occurrence was taken; its anomaly is at `level`, and was at `previous` before.
pub fn occurrence(
    outcome: Outcome,
    level: Option<EscalationLevel>,
    previous: Option<EscalationLevel>,
) {
    tell(|metrics| {
        metrics.occurrences.of(outcome).increment(1);
        if matches!(outcome, Outcome::Counted | Outcome::Spooled) {
            metrics.occurrences_by_level.of(level).increment(1);
        }
        if let Some(reached) = level.filter(|_| level > previous) {
            metrics.level_steps.of(reached).increment(1);
        }
    });
}

/// The store has answered a batch of one of its calls.
pub fn batch(call: StoreCall, items: usize, took: Duration) {
    tell(|metrics| {
        metrics.batch_items.of(call).record(items as f64);
        metrics.batch_seconds.of(call).record(took);
    });
}

/// The store has not carried out a call.
pub fn store_error(fault: Fault) {
    tell(|metrics| metrics.store_errors.of(fault).increment(1));
}

/// A part of the store has fallen away.
pub fn outage() {
    tell(|metrics| metrics.outages.increment(1));
}

/// So many operations were made to wait.
pub fn spooled(operations: usize) {
    tell(|metrics| metrics.spooled.increment(operations as u64));
}

/// So many operations that have waited were carried out, and so many refused for good.
pub fn replayed(done: usize, refused: usize) {
    tell(|metrics| {
        metrics.replayed.increment(done as u64);
        metrics.dead_letters.increment(refused as u64);
    });
}

/// So many acknowledged operations were sent again.
pub fn resent(operations: usize) {
    tell(|metrics| metrics.resent.increment(operations as u64));
}

/// An alert was delivered.
pub fn webhook_alert(result: AlertResult) {
    tell(|metrics| metrics.webhook_alerts.of(result).increment(1));
}

/// A sender has left so many alerts out of a delivery.
pub fn truncated_alerts(count: u64) {
    tell(|metrics| metrics.truncated_alerts.increment(count));
}

/// A caller was turned away.
pub fn auth_failure(denial: Denial) {
    tell(|metrics| metrics.auth_failures.of(denial).increment(1));
}
