//! What the service tells of itself in numbers: the one place that names metrics. Names and units are as
//! <https://prometheus.io/docs/practices/naming/> has them. Labels have few values: never an anomaly's
//! key, a path as it came, or a caller's name.

use std::{fmt, time::Duration};

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;

use crate::domain::EscalationLevel;

const REQUESTS: &str = "anomaly_counter_http_requests_total";
const REQUEST_SECONDS: &str = "anomaly_counter_http_request_duration_seconds";
const CONNECTIONS: &str = "anomaly_counter_http_connections";
const IDLE_CLOSED: &str = "anomaly_counter_http_idle_connections_closed_total";
const WAITING_REQUESTS: &str = "anomaly_counter_http_waiting_requests";
const SHED: &str = "anomaly_counter_shed_total";
const OCCURRENCES: &str = "anomaly_counter_occurrences_total";
const BY_LEVEL: &str = "anomaly_counter_occurrences_by_level_total";
const LEVEL_STEPS: &str = "anomaly_counter_level_steps_total";
const BATCH_ITEMS: &str = "anomaly_counter_batch_items";
const BATCH_SECONDS: &str = "anomaly_counter_batch_duration_seconds";
const STORE_ERRORS: &str = "anomaly_counter_store_errors_total";
const STORE_STATE: &str = "anomaly_counter_store_state";
const PARTS_AWAY: &str = "anomaly_counter_store_parts_away";
const OUTAGES: &str = "anomaly_counter_store_outages_total";
const SPOOL_OPERATIONS: &str = "anomaly_counter_spool_operations";
const SPOOL_BYTES: &str = "anomaly_counter_spool_bytes";
const SPOOL_MAX_BYTES: &str = "anomaly_counter_spool_max_bytes";
const SPOOL_AGE: &str = "anomaly_counter_spool_age_seconds";
const SPOOLED: &str = "anomaly_counter_spooled_operations_total";
const REPLAYED: &str = "anomaly_counter_replayed_operations_total";
const RESENT: &str = "anomaly_counter_resent_operations_total";
const DEAD_LETTERS: &str = "anomaly_counter_dead_letters_total";
const WEBHOOK_ALERTS: &str = "anomaly_counter_webhook_alerts_total";
const TRUNCATED_ALERTS: &str = "anomaly_counter_webhook_truncated_alerts_total";
const AUTH_FAILURES: &str = "anomaly_counter_auth_failures_total";
const BUILD_INFO: &str = "anomaly_counter_build_info";

/// Upper bounds of buckets, in seconds and in items.
const SECONDS: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
const ITEMS: [f64; 12] =
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0];

/// The values of a label.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident => $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$value_doc])* $value),+ }

        impl $name {
            const ALL: &[Self] = &[$(Self::$value),+];

            /// As the label has it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text),+ }
            }
        }
    };
}

label! {
    /// Why a call was refused, so that others keep their latency.
    Shed {
        /// More requests than can be worked on.
        Requests => "requests",
        /// More connections than are served.
        Connections => "connections",
        /// More large bodies than there is memory for.
        Bodies => "bodies",
        /// More calls wait for the store than may.
        Batch => "batch",
        /// Beyond a token's limit.
        Token => "token",
    }
}

label! {
    /// What became of an occurrence.
    Outcome {
        /// It counts.
        Counted => "counted",
        /// Its id was counted before.
        Duplicate => "duplicate",
        /// It is older than 30 days.
        TooOld => "too_old",
        /// It waits for the store.
        Spooled => "spooled",
    }
}

label! {
    /// What became of an alert of a delivery.
    AlertResult {
        /// It counts.
        Counted => "counted",
        /// It was counted before, or is too old.
        NotCounted => "not_counted",
        /// It has ended.
        Resolved => "resolved",
        /// It could not be read or recorded.
        Failed => "failed",
    }
}

label! {
    /// Why a caller was turned away.
    Denial {
        /// No token came with the request.
        Missing => "missing",
        /// The token or signature is not ours.
        Unknown => "unknown",
        /// The token has expired.
        Expired => "expired",
        /// The token is not good for this.
        Forbidden => "forbidden",
    }
}

label! {
    /// The class of a store's fault.
    Fault {
        /// It did not happen.
        Transient => "transient",
        /// It did not happen, since the anomaly is being moved.
        Moving => "moving",
        /// It may have happened.
        Indeterminate => "indeterminate",
        /// It can't happen.
        Permanent => "permanent",
    }
}

label! {
    /// Where the service is between a working store and none.
    State {
        /// The store answers, and nothing waits.
        Healthy => "healthy",
        /// The store, or a part of it, does not answer.
        Degraded => "degraded",
        /// What has waited is being carried out.
        Replaying => "replaying",
    }
}

/// What is told as it stands when somebody asks.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Where the service is.
    pub state: State,
    /// How many parts of the store don't answer.
    pub parts_away: usize,
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
        describe();
        begin_at_zero();
        gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION"), "store" => store).set(1.0);
        Ok(Self { handle, process })
    }

    /// Folds what was observed into the buckets. To be called every few seconds: until then each observation
    /// takes memory.
    pub fn keep_up(&self) {
        self.handle.run_upkeep();
    }

    /// All metrics in Prometheus' text format, version 0.0.4.
    pub fn render(&self, standing: Standing) -> String {
        for state in State::ALL {
            let is_it = f64::from(u8::from(*state == standing.state));
            gauge!(STORE_STATE, "state" => state.as_str()).set(is_it);
        }
        gauge!(PARTS_AWAY).set(standing.parts_away as f64);
        gauge!(SPOOL_OPERATIONS).set(standing.spool_operations as f64);
        gauge!(SPOOL_BYTES).set(standing.spool_bytes as f64);
        gauge!(SPOOL_MAX_BYTES).set(standing.spool_max_bytes as f64);
        gauge!(SPOOL_AGE).set(standing.spool_age_seconds as f64);
        self.process.collect();
        self.handle.render()
    }
}

fn describe() {
    describe_counter!(REQUESTS, "Requests answered, by route, method and status.");
    describe_histogram!(REQUEST_SECONDS, "Time from a request's head to its answer's, by route.");
    describe_gauge!(CONNECTIONS, "Open connections.");
    describe_counter!(IDLE_CLOSED, "Idle connections ended to make room for others.");
    describe_gauge!(WAITING_REQUESTS, "Requests that wait until others have ended.");
    describe_counter!(SHED, "Calls refused so that others keep their latency, by reason.");
    describe_counter!(OCCURRENCES, "Occurrences taken, by what became of them.");
    describe_counter!(BY_LEVEL, "Occurrences counted or spooled, by the level after each.");
    describe_counter!(LEVEL_STEPS, "Occurrences by which an anomaly has reached a level.");
    describe_histogram!(BATCH_ITEMS, "Elements of the batches that went to the store, by call.");
    describe_histogram!(BATCH_SECONDS, "Time that the store took for a batch, by call.");
    describe_counter!(STORE_ERRORS, "Calls that the store did not carry out, by class of fault.");
    describe_gauge!(STORE_STATE, "1 for the state that holds, 0 for the others.");
    describe_gauge!(PARTS_AWAY, "Parts of the store (masters) behind an open breaker.");
    describe_counter!(OUTAGES, "Breakers opened.");
    describe_gauge!(SPOOL_OPERATIONS, "Operations that wait for the store.");
    describe_gauge!(SPOOL_BYTES, "Bytes of the operations that wait.");
    describe_gauge!(SPOOL_MAX_BYTES, "Bytes that may wait; 0 where there is no spool.");
    describe_gauge!(SPOOL_AGE, "For how long there has been something that waits.");
    describe_counter!(SPOOLED, "Operations made to wait.");
    describe_counter!(REPLAYED, "Operations that have waited and are carried out.");
    describe_counter!(RESENT, "Acknowledged operations sent again after a reconnection.");
    describe_counter!(DEAD_LETTERS, "Operations that have waited and were refused for good.");
    describe_counter!(WEBHOOK_ALERTS, "Alerts delivered, by what became of them.");
    describe_counter!(TRUNCATED_ALERTS, "Alerts that senders left out of deliveries.");
    describe_counter!(AUTH_FAILURES, "Callers turned away, by reason.");
    describe_gauge!(BUILD_INFO, "1, with the version and the store as labels.");
}

/// What appears with its first event has no rate at that event: all counters are there from the start.
fn begin_at_zero() {
    Shed::ALL.iter().for_each(|reason| counter!(SHED, "reason" => reason.as_str()).absolute(0));
    for outcome in Outcome::ALL {
        counter!(OCCURRENCES, "outcome" => outcome.as_str()).absolute(0);
    }
    counter!(BY_LEVEL, "level" => level_name(None)).absolute(0);
    let levels =
        [EscalationLevel::Repeat, EscalationLevel::Escalate, EscalationLevel::PermanentFix];
    for level in levels {
        counter!(BY_LEVEL, "level" => level_name(Some(level))).absolute(0);
        counter!(LEVEL_STEPS, "level" => level.as_str()).absolute(0);
    }
    for fault in Fault::ALL {
        counter!(STORE_ERRORS, "class" => fault.as_str()).absolute(0);
    }
    for result in AlertResult::ALL {
        counter!(WEBHOOK_ALERTS, "result" => result.as_str()).absolute(0);
    }
    for denial in Denial::ALL {
        counter!(AUTH_FAILURES, "reason" => denial.as_str()).absolute(0);
    }
    let unlabelled =
        [IDLE_CLOSED, OUTAGES, SPOOLED, REPLAYED, RESENT, DEAD_LETTERS, TRUNCATED_ALERTS];
    for name in unlabelled {
        counter!(name).absolute(0);
    }
    gauge!(CONNECTIONS).set(0.0);
    gauge!(WAITING_REQUESTS).set(0.0);
}

fn level_name(level: Option<EscalationLevel>) -> &'static str {
    level.map_or("none", EscalationLevel::as_str)
}

/// A request was answered. `route` is as the table of routes has it, `method` one of the standard ones.
pub fn request(route: &'static str, method: &'static str, status: u16, took: Duration) {
    let labels = [("route", route), ("method", method)];
    histogram!(REQUEST_SECONDS, &labels).record(took);
    counter!(REQUESTS, "route" => route, "method" => method, "status" => status.to_string())
        .increment(1);
}

/// A connection was opened; it is closed when what this gives is dropped.
pub fn connection() -> impl Drop + Send {
    Held::new(CONNECTIONS)
}

/// An idle connection was ended to make room for others.
pub fn idle_connection_closed() {
    counter!(IDLE_CLOSED).increment(1);
}

/// A request has to wait; it does so until what this gives is dropped.
pub fn waiting_request() -> impl Drop + Send {
    Held::new(WAITING_REQUESTS)
}

/// One of those that a gauge counts.
struct Held(metrics::Gauge);

impl Held {
    fn new(name: &'static str) -> Self {
        let gauge = gauge!(name);
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// A call was refused so that others keep their latency.
pub fn shed(reason: Shed) {
    counter!(SHED, "reason" => reason.as_str()).increment(1);
}

/// An occurrence was taken; its anomaly is at `level`, and was at `previous` before.
pub fn occurrence(
    outcome: Outcome,
    level: Option<EscalationLevel>,
    previous: Option<EscalationLevel>,
) {
    counter!(OCCURRENCES, "outcome" => outcome.as_str()).increment(1);
    if matches!(outcome, Outcome::Counted | Outcome::Spooled) {
        counter!(BY_LEVEL, "level" => level_name(level)).increment(1);
    }
    if let Some(reached) = level.filter(|_| level > previous) {
        counter!(LEVEL_STEPS, "level" => reached.as_str()).increment(1);
    }
}

/// The store has answered a batch of one of its calls.
pub fn batch(call: &'static str, items: usize, took: Duration) {
    histogram!(BATCH_ITEMS, "call" => call).record(items as f64);
    histogram!(BATCH_SECONDS, "call" => call).record(took);
}

/// The store has not carried out a call.
pub fn store_error(fault: Fault) {
    counter!(STORE_ERRORS, "class" => fault.as_str()).increment(1);
}

/// A part of the store has fallen away.
pub fn outage() {
    counter!(OUTAGES).increment(1);
}

/// So many operations were made to wait.
pub fn spooled(operations: usize) {
    counter!(SPOOLED).increment(operations as u64);
}

/// So many operations that have waited were carried out, and so many refused for good.
pub fn replayed(done: usize, refused: usize) {
    counter!(REPLAYED).increment(done as u64);
    counter!(DEAD_LETTERS).increment(refused as u64);
}

/// So many acknowledged operations were sent again.
pub fn resent(operations: usize) {
    counter!(RESENT).increment(operations as u64);
}

/// An alert was delivered.
pub fn webhook_alert(result: AlertResult) {
    counter!(WEBHOOK_ALERTS, "result" => result.as_str()).increment(1);
}

/// A sender has left so many alerts out of a delivery.
pub fn truncated_alerts(count: u64) {
    counter!(TRUNCATED_ALERTS).increment(count);
}

/// A caller was turned away.
pub fn auth_failure(denial: Denial) {
    counter!(AUTH_FAILURES, "reason" => denial.as_str()).increment(1);
}
