//! Metrics of the service. Names and units follow <https://prometheus.io/docs/practices/naming/>.
//! Labels have few values: never an anomaly's key, a raw path, or a caller's name. Without a
//! [`Recorder`], as in unit tests, nothing is recorded; components that keep handles start after
//! it.

mod definitions;
mod families;
mod labels;
mod log_limiter;
mod log_output;
mod request_fields;

use std::{fmt, sync::OnceLock, time::Duration};

use metrics::Gauge;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;

use self::definitions::{BATCH_ITEMS, Metrics};
use crate::domain::EscalationLevel;

pub use self::{
    definitions::{
        BatchMetrics, CatalogueGauges, CatalogueSnapshot, StatusGauges, StatusSnapshot,
        auth_failures, occurrences, store_errors, webhook_alerts, webhook_refusals,
    },
    families::Counters,
    labels::{Label, Shed},
    log_limiter::{LogSource, may_log, summarise_log, summarise_log_at_end},
    log_output::{LogOutput, exit_with_log, flush_log, write_log},
    request_fields::{RequestFields, RequestId},
};

/// Upper bounds of buckets, in seconds and in items.
const SECONDS: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
const ITEMS: [f64; 12] =
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0];

static METRICS: OnceLock<Metrics> = OnceLock::new();

fn with_metrics(record: impl FnOnce(&Metrics)) {
    if let Some(metrics) = METRICS.get() {
        record(metrics);
    }
}

/// Records and renders the metrics. One per process.
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
    /// Starts recording for the service on the store of this name.
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

    /// Aggregates observations into the buckets. Must be called every few seconds, because each
    /// observation uses memory until then.
    pub fn keep_up(&self) {
        self.handle.run_upkeep();
    }

    /// Renders all metrics in Prometheus' text format, version 0.0.4.
    pub fn render(&self) -> String {
        self.process.collect();
        self.handle.render()
    }
}

/// Records a completed request. `route` is a route of the router's table, `method` a standard one.
pub fn request(route: &'static str, method: &'static str, status: u16, took: Duration) {
    with_metrics(|metrics| metrics.requests.record((route, method, status), took));
}

/// Counts an open connection until the guard is dropped.
pub fn connection() -> impl Drop + Send {
    GaugeGuard::new(|metrics| &metrics.connections)
}

/// Counts an idle connection that was closed at the limit of connections.
pub fn idle_connection_closed() {
    with_metrics(|metrics| metrics.idle_connections_closed.increment(1));
}

/// Counts a request that waits until the guard is dropped.
pub fn waiting_request() -> impl Drop + Send {
    GaugeGuard::new(|metrics| &metrics.waiting_requests)
}

/// Holds a gauge one higher until it is dropped.
struct GaugeGuard(Option<&'static Gauge>);

impl GaugeGuard {
    fn new(gauge: fn(&'static Metrics) -> &'static Gauge) -> Self {
        let gauge = METRICS.get().map(gauge);
        if let Some(gauge) = gauge {
            gauge.increment(1.0);
        }
        Self(gauge)
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        if let Some(gauge) = self.0 {
            gauge.decrement(1.0);
        }
    }
}

/// Counts a call that was refused to protect the latency of others.
pub fn shed(reason: Shed) {
    with_metrics(|metrics| metrics.shed.increment(reason));
}

/// Counts an occurrence by the level of its anomaly after it.
pub fn occurrence_at_level(level: Option<EscalationLevel>) {
    with_metrics(|metrics| metrics.occurrences_by_level.increment(level));
}

/// Counts an occurrence that raised its anomaly to a level.
pub fn level_step(reached: EscalationLevel) {
    with_metrics(|metrics| metrics.level_steps.increment(reached));
}

/// Counts an anomaly that has come back after its cause was marked as fixed.
pub fn regression() {
    with_metrics(|metrics| metrics.regressions.increment(1));
}

/// Counts a breaker that has opened.
pub fn outage() {
    with_metrics(|metrics| metrics.outages.increment(1));
}

/// Counts operations written to the spool.
pub fn spooled(operations: usize) {
    with_metrics(|metrics| metrics.spooled.increment(operations as u64));
}

/// Counts operations of the spool that were applied, and those that were refused permanently.
pub fn replayed(applied: usize, rejected: usize) {
    with_metrics(|metrics| {
        metrics.replayed.increment(applied as u64);
        metrics.dead_letters.increment(rejected as u64);
    });
}

/// Counts dead letters that did not come from the spool.
pub fn buried(letters: usize) {
    with_metrics(|metrics| metrics.dead_letters.increment(letters as u64));
}

/// Counts dead letters that were dropped because a limit was reached.
pub fn dead_letters_dropped(letters: u64) {
    with_metrics(|metrics| metrics.dead_letters_dropped.increment(letters));
}

/// Counts anomalies whose count fell because the store lost events.
pub fn lost_writes(anomalies: u64) {
    with_metrics(|metrics| metrics.lost_writes.increment(anomalies));
}

/// Counts acknowledged operations that were sent again.
pub fn resent(operations: usize) {
    with_metrics(|metrics| metrics.resent.increment(operations as u64));
}

/// Counts alerts that a sender omitted from a delivery.
pub fn truncated_alerts(count: u64) {
    with_metrics(|metrics| metrics.truncated_alerts.increment(count));
}

/// Counts a sender whose clock is behind.
pub fn sender_behind() {
    with_metrics(|metrics| metrics.senders_behind.increment(1));
}

/// Counts a jump of the wall clock.
pub fn clock_jump() {
    with_metrics(|metrics| metrics.clock_jumps.increment(1));
}

/// Counts a log line that was dropped because standard error was not read.
fn log_line_dropped() {
    with_metrics(|metrics| metrics.log_lines_dropped.increment(1));
}

/// Sets the checksum of the configuration that determines keys.
pub fn key_checksum(checksum: u32) {
    with_metrics(|metrics| metrics.key_checksum.set(f64::from(checksum)));
}

/// Counts a reload of the rules that has failed.
pub fn rules_reload_failure() {
    with_metrics(|metrics| metrics.rules_reload_failures.increment(1));
}
