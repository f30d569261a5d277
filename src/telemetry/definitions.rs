//! The definitions of all metrics: the only place that names them. Metrics whose label is an enum
//! of a higher module are generic over it, and that module registers them when it starts; all
//! others are registered with the recorder.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, describe_gauge, gauge};

use super::{
    families::{
        CountGauges, Counters, NumberGauges, Requests, StateGauges, counter_of, gauge_of,
        histogram_of,
    },
    labels::{Label, Shed},
};
use crate::domain::EscalationLevel;

/// The histogram whose buckets are not seconds.
pub(super) const BATCH_ITEMS: &str = "anomaly_counter_batch_items";

const BUILD_INFO: &str = "anomaly_counter_build_info";

/// The metrics that are registered with the recorder.
pub(super) struct Metrics {
    pub(super) requests: Requests,
    pub(super) connections: Gauge,
    pub(super) idle_connections_closed: Counter,
    pub(super) waiting_requests: Gauge,
    pub(super) shed: Counters<Shed>,
    pub(super) occurrences_by_level: Counters<Option<EscalationLevel>>,
    pub(super) level_steps: Counters<EscalationLevel>,
    pub(super) regressions: Counter,
    pub(super) outages: Counter,
    pub(super) spooled: Counter,
    pub(super) replayed: Counter,
    pub(super) resent: Counter,
    pub(super) dead_letters: Counter,
    pub(super) dead_letters_dropped: Counter,
    pub(super) lost_writes: Counter,
    pub(super) truncated_alerts: Counter,
    pub(super) senders_behind: Counter,
    pub(super) clock_jumps: Counter,
    pub(super) log_lines_dropped: Counter,
    pub(super) key_checksum: Gauge,
    pub(super) rules_reload_failures: Counter,
}

impl Metrics {
    /// Registers all of them with zero, because a counter that appears with its first event has no
    /// rate at that event. `store` is the store's name.
    pub(super) fn new(store: &'static str) -> Self {
        describe_gauge!(BUILD_INFO, "1, with the version and the store as labels.");
        gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION"), "store" => store).set(1.0);
        Self {
            requests: Requests::new(),
            connections: gauge_of("anomaly_counter_http_connections", "Open connections."),
            idle_connections_closed: counter_of(
                "anomaly_counter_http_idle_connections_closed_total",
                "Idle connections closed at the limit of connections.",
            ),
            waiting_requests: gauge_of(
                "anomaly_counter_http_waiting_requests",
                "Requests that wait until others end.",
            ),
            shed: Counters::new(
                "anomaly_counter_shed_total",
                "reason",
                "Calls refused to protect the latency of others, by reason.",
            ),
            occurrences_by_level: Counters::new(
                "anomaly_counter_occurrences_by_level_total",
                "level",
                "Occurrences counted or spooled, by the anomaly's level afterwards.",
            ),
            level_steps: Counters::new(
                "anomaly_counter_level_steps_total",
                "level",
                "Occurrences that raised an anomaly to a level.",
            ),
            regressions: counter_of(
                "anomaly_counter_regressions_total",
                "Anomalies that occurred again after their cause was marked as fixed.",
            ),
            outages: counter_of(
                "anomaly_counter_store_outages_total",
                "Outages of the store, or of a shard of it: circuit breakers opened.",
            ),
            spooled: counter_of(
                "anomaly_counter_spooled_operations_total",
                "Operations written to the spool.",
            ),
            replayed: counter_of(
                "anomaly_counter_replayed_operations_total",
                "Operations applied from the spool to the store.",
            ),
            resent: counter_of(
                "anomaly_counter_resent_operations_total",
                "Acknowledged operations sent again after a reconnection.",
            ),
            dead_letters: counter_of(
                "anomaly_counter_dead_letters_total",
                "Operations that the store refused permanently, or whose ids it does not store any \
                 more.",
            ),
            dead_letters_dropped: counter_of(
                "anomaly_counter_dead_letters_dropped_total",
                "Dead letters dropped because there were too many, or spool.max_bytes was reached.",
            ),
            lost_writes: counter_of(
                "anomaly_counter_store_lost_writes_total",
                "Anomalies whose count fell although their events are less than 30 days old, or \
                 whose last write is gone after an outage.",
            ),
            truncated_alerts: counter_of(
                "anomaly_counter_webhook_truncated_alerts_total",
                "Alerts that senders omitted from deliveries.",
            ),
            senders_behind: counter_of(
                "anomaly_counter_senders_behind_total",
                "Senders whose times are always late on arrival, each at most once a day.",
            ),
            clock_jumps: counter_of(
                "anomaly_counter_clock_jumps_total",
                "Jumps of the wall clock by more than a minute.",
            ),
            log_lines_dropped: counter_of(
                "anomaly_counter_log_lines_dropped_total",
                "Log lines dropped because standard error was not read.",
            ),
            key_checksum: gauge_of(
                "anomaly_counter_key_checksum",
                "Checksum of the configuration that determines keys, as a number.",
            ),
            rules_reload_failures: counter_of(
                "anomaly_counter_rules_reload_failures_total",
                "Failed reloads of the rules; the previous rules remain in force.",
            ),
        }
    }
}

/// Registers the counters of occurrences by outcome.
pub fn occurrences<L: Label>() -> Counters<L> {
    Counters::new("anomaly_counter_occurrences_total", "outcome", "Occurrences, by outcome.")
}

/// Registers the counters of faults of the store by class.
pub fn store_errors<L: Label>() -> Counters<L> {
    Counters::new(
        "anomaly_counter_store_errors_total",
        "class",
        "Calls that the store failed to execute, by class of fault.",
    )
}

/// Registers the counters of delivered alerts by result.
pub fn webhook_alerts<L: Label>() -> Counters<L> {
    Counters::new("anomaly_counter_webhook_alerts_total", "result", "Alerts delivered, by result.")
}

/// Registers the counters of refused deliveries by reason.
pub fn webhook_refusals<L: Label>() -> Counters<L> {
    Counters::new(
        "anomaly_counter_webhook_refused_total",
        "reason",
        "Deliveries refused as a whole, by reason.",
    )
}

/// Registers the counters of refused callers by reason.
pub fn auth_failures<L: Label>() -> Counters<L> {
    Counters::new(
        "anomaly_counter_auth_failures_total",
        "reason",
        "Calls refused by authentication, by reason.",
    )
}

/// The metrics of one kind of batch call to the store.
#[derive(Debug)]
pub struct BatchMetrics {
    items: Histogram,
    seconds: Histogram,
}

impl BatchMetrics {
    /// Registers the metrics of the call of this name.
    pub fn register(call: &'static str) -> Self {
        Self {
            items: histogram_of(
                BATCH_ITEMS,
                "call",
                call,
                "Elements of the batches sent to the store, by call.",
            ),
            seconds: histogram_of(
                "anomaly_counter_batch_duration_seconds",
                "call",
                call,
                "Time that the store takes for a batch, by call.",
            ),
        }
    }

    /// Records a completed batch.
    pub fn record(&self, items: usize, took: Duration) {
        self.items.record(items as f64);
        self.seconds.record(took);
    }
}

/// The figures that are read when the metrics are rendered. `S` is the state of the service, `C`
/// the cause why a shard is unavailable.
#[derive(Clone, Copy, Debug)]
pub struct StatusSnapshot<'a, S, C> {
    /// The current state.
    pub state: S,
    /// The causes of the open breakers, one for each shard of the store behind one.
    pub unavailable: &'a [C],
    /// Anomalies in the store; 0 if it does not count them.
    pub anomalies: usize,
    /// Limit of `anomalies`; 0 if there is none.
    pub max_anomalies: usize,
    /// Number of shards of the store that are repeatedly slow.
    pub slow: usize,
    /// Operations in the spool.
    pub spool_operations: usize,
    /// Bytes of the operations in the spool.
    pub spool_bytes: u64,
    /// Limit of `spool_bytes`; 0 without a spool.
    pub spool_max_bytes: u64,
    /// Time since the spool was last empty, in seconds.
    pub spool_age_seconds: i64,
    /// True if there is a spool that accepts no writes.
    pub spool_is_unusable: bool,
    /// The wall clock minus the time that the service uses, in seconds; 0 while they agree.
    pub clock_disagreement_seconds: i64,
    /// The checksum of the rules in force.
    pub rules_checksum: u32,
}

/// The gauges of a [`StatusSnapshot`].
pub struct StatusGauges<S: 'static, C: 'static> {
    state: StateGauges<S>,
    unavailable: CountGauges<C>,
    shards_unavailable: Gauge,
    anomalies: Gauge,
    max_anomalies: Gauge,
    shards_slow: Gauge,
    spool_operations: Gauge,
    spool_bytes: Gauge,
    spool_max_bytes: Gauge,
    spool_age_seconds: Gauge,
    spool_unusable: Gauge,
    clock_disagreement_seconds: Gauge,
    rules_checksum: Gauge,
}

impl<S: Label, C: Label> StatusGauges<S, C> {
    /// Registers the gauges.
    pub fn register() -> Self {
        Self {
            state: StateGauges::new(
                "anomaly_counter_store_state",
                "state",
                "1 for the current state, 0 for the others.",
            ),
            unavailable: CountGauges::new(
                "anomaly_counter_store_unavailable",
                "cause",
                "Shards of the store behind an open breaker, by the cause of the last fault.",
            ),
            shards_unavailable: gauge_of(
                "anomaly_counter_store_shards_unavailable",
                "Shards of the store (masters) behind an open breaker.",
            ),
            anomalies: gauge_of(
                "anomaly_counter_store_anomalies",
                "Anomalies in the embedded store; 0 on Redis, which does not count them.",
            ),
            max_anomalies: gauge_of(
                "anomaly_counter_store_max_anomalies",
                "Maximum number of anomalies in the embedded store; 0 on Redis.",
            ),
            shards_slow: gauge_of(
                "anomaly_counter_store_shards_slow",
                "Shards of the store that are repeatedly slow, but within the timeout.",
            ),
            spool_operations: gauge_of(
                "anomaly_counter_spool_operations",
                "Operations that wait for the store.",
            ),
            spool_bytes: gauge_of(
                "anomaly_counter_spool_bytes",
                "Bytes of the operations that wait for the store.",
            ),
            spool_max_bytes: gauge_of(
                "anomaly_counter_spool_max_bytes",
                "Maximum number of bytes that may wait; 0 without a spool.",
            ),
            spool_age_seconds: gauge_of(
                "anomaly_counter_spool_age_seconds",
                "Time since the spool was last empty.",
            ),
            spool_unusable: gauge_of(
                "anomaly_counter_spool_unusable",
                "1 while the spool accepts no writes: its file is missing, or its disk fails or \
                 hangs.",
            ),
            clock_disagreement_seconds: gauge_of(
                "anomaly_counter_clock_disagreement_seconds",
                "Wall clock minus the time that the service uses; 0 while it uses the wall clock.",
            ),
            rules_checksum: gauge_of(
                "anomaly_counter_rules_checksum",
                "Checksum of the rules in force, as a number; it differs between instances with \
                 different rules.",
            ),
        }
    }

    /// Sets the gauges.
    pub fn set(&self, status: StatusSnapshot<'_, S, C>) {
        self.state.set(status.state);
        self.unavailable.set(status.unavailable);
        self.shards_unavailable.set(status.unavailable.len() as f64);
        self.anomalies.set(status.anomalies as f64);
        self.max_anomalies.set(status.max_anomalies as f64);
        self.shards_slow.set(status.slow as f64);
        self.spool_operations.set(status.spool_operations as f64);
        self.spool_bytes.set(status.spool_bytes as f64);
        self.spool_max_bytes.set(status.spool_max_bytes as f64);
        self.spool_age_seconds.set(status.spool_age_seconds as f64);
        self.spool_unusable.set(f64::from(u8::from(status.spool_is_unusable)));
        self.clock_disagreement_seconds.set(status.clock_disagreement_seconds as f64);
        self.rules_checksum.set(f64::from(status.rules_checksum));
    }
}

impl<S, C> std::fmt::Debug for StatusGauges<S, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatusGauges").finish_non_exhaustive()
    }
}

/// The numbers of anomalies, according to the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct CatalogueSnapshot {
    /// Their number by level, in the order of the values of the label.
    pub by_level: [(Option<EscalationLevel>, u64); 4],
    /// The number of those with a mark of a permanent fix.
    pub fixed: u64,
    /// The number of those that occurred again after the mark.
    pub regressed: u64,
}

/// The gauges of a [`CatalogueSnapshot`], and of its completeness and age.
pub struct CatalogueGauges {
    anomalies: NumberGauges<Option<EscalationLevel>>,
    fixed: Gauge,
    regressed: Gauge,
    loaded: Gauge,
    age_seconds: Gauge,
}

impl CatalogueGauges {
    /// Registers the gauges.
    pub fn register() -> Self {
        Self {
            anomalies: NumberGauges::new(
                "anomaly_counter_anomalies",
                "level",
                "Anomalies by level, according to the catalogue.",
            ),
            fixed: gauge_of(
                "anomaly_counter_anomalies_fixed",
                "Anomalies marked as permanently fixed, according to the catalogue.",
            ),
            regressed: gauge_of(
                "anomaly_counter_anomalies_regressed",
                "Anomalies that occurred again after their mark, according to the catalogue.",
            ),
            loaded: gauge_of(
                "anomaly_counter_catalogue_loaded",
                "1 if lists include all anomalies.",
            ),
            age_seconds: gauge_of(
                "anomaly_counter_catalogue_age_seconds",
                "Time since the catalogue last read the writes of other instances; 0 on the \
                 embedded store.",
            ),
        }
    }

    /// Sets the numbers of anomalies.
    pub fn set(&self, snapshot: CatalogueSnapshot) {
        for (level, number) in snapshot.by_level {
            self.anomalies.set(level, number as f64);
        }
        self.fixed.set(snapshot.fixed as f64);
        self.regressed.set(snapshot.regressed as f64);
    }

    /// Sets the completeness and the age of these numbers.
    pub fn set_state(&self, is_complete: bool, age: Duration) {
        self.loaded.set(f64::from(u8::from(is_complete)));
        self.age_seconds.set(age.as_secs_f64());
    }
}

impl std::fmt::Debug for CatalogueGauges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CatalogueGauges").finish_non_exhaustive()
    }
}
