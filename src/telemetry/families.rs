//! All metrics of the service, each made once with its name and description, and kept: looking one up by name and labels
//! for each request took a tenth of the service's time.

use std::{collections::HashMap, marker::PhantomData};

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use parking_lot::RwLock;

use super::{
    StatusSnapshot,
    labels::{AlertResult, Denial, Fault, Label, Outcome, Shed, State, StoreCall},
};
use crate::domain::EscalationLevel;

/// Its buckets are not of seconds.
pub(super) const BATCH_ITEMS: &str = "anomaly_counter_batch_items";

const REQUESTS: &str = "anomaly_counter_http_requests_total";
const REQUEST_SECONDS: &str = "anomaly_counter_http_request_duration_seconds";
const BUILD_INFO: &str = "anomaly_counter_build_info";

/// The metrics.
pub(super) struct Metrics {
    pub(super) requests: Requests,
    pub(super) connections: Gauge,
    pub(super) idle_connections_closed: Counter,
    pub(super) waiting_requests: Gauge,
    pub(super) shed: By<Shed, Counter>,
    pub(super) occurrences: By<Outcome, Counter>,
    pub(super) occurrences_by_level: By<Option<EscalationLevel>, Counter>,
    pub(super) level_steps: By<EscalationLevel, Counter>,
    pub(super) batch_items: By<StoreCall, Histogram>,
    pub(super) batch_seconds: By<StoreCall, Histogram>,
    pub(super) store_errors: By<Fault, Counter>,
    pub(super) store_state: By<State, Gauge>,
    pub(super) shards_unavailable: Gauge,
    pub(super) outages: Counter,
    pub(super) spool_operations: Gauge,
    pub(super) spool_bytes: Gauge,
    pub(super) spool_max_bytes: Gauge,
    pub(super) spool_age_seconds: Gauge,
    pub(super) spooled: Counter,
    pub(super) replayed: Counter,
    pub(super) resent: Counter,
    pub(super) dead_letters: Counter,
    pub(super) webhook_alerts: By<AlertResult, Counter>,
    pub(super) truncated_alerts: Counter,
    pub(super) auth_failures: By<Denial, Counter>,
}

impl Metrics {
    /// Makes all of them, as zero: what appears with its first event has no rate at that event. `store` is the store's
    /// name.
    pub(super) fn new(store: &'static str) -> Self {
        describe_gauge!(BUILD_INFO, "1, with the version and the store as labels.");
        gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION"), "store" => store).set(1.0);
        Self {
            requests: Requests::new(),
            connections: one_gauge("anomaly_counter_http_connections", "Open connections."),
            idle_connections_closed: one_counter(
                "anomaly_counter_http_idle_connections_closed_total",
                "Idle connections ended to make room for others.",
            ),
            waiting_requests: one_gauge(
                "anomaly_counter_http_waiting_requests",
                "Requests that wait until others have ended.",
            ),
            shed: counters(
                "anomaly_counter_shed_total",
                "reason",
                "Calls refused so that others keep their latency, by reason.",
            ),
            occurrences: counters(
                "anomaly_counter_occurrences_total",
                "outcome",
                "Occurrences taken, by what became of them.",
            ),
            occurrences_by_level: counters(
                "anomaly_counter_occurrences_by_level_total",
                "level",
                "Occurrences counted or spooled, by the level after each.",
            ),
            level_steps: counters(
                "anomaly_counter_level_steps_total",
                "level",
                "Occurrences by which an anomaly has reached a level.",
            ),
            batch_items: histograms(
                BATCH_ITEMS,
                "call",
                "Elements of the batches that went to the store, by call.",
            ),
            batch_seconds: histograms(
                "anomaly_counter_batch_duration_seconds",
                "call",
                "Time that the store took for a batch, by call.",
            ),
            store_errors: counters(
                "anomaly_counter_store_errors_total",
                "class",
                "Calls that the store did not carry out, by class of fault.",
            ),
            store_state: gauges(
                "anomaly_counter_store_state",
                "state",
                "1 for the state that holds, 0 for the others.",
            ),
            shards_unavailable: one_gauge(
                "anomaly_counter_store_shards_unavailable",
                "Parts of the store (masters) behind an open breaker.",
            ),
            outages: one_counter("anomaly_counter_store_outages_total", "Breakers opened."),
            spool_operations: one_gauge(
                "anomaly_counter_spool_operations",
                "Operations that wait for the store.",
            ),
            spool_bytes: one_gauge(
                "anomaly_counter_spool_bytes",
                "Bytes of the operations that wait.",
            ),
            spool_max_bytes: one_gauge(
                "anomaly_counter_spool_max_bytes",
                "Bytes that may wait; 0 where there is no spool.",
            ),
            spool_age_seconds: one_gauge(
                "anomaly_counter_spool_age_seconds",
                "For how long there has been something that waits.",
            ),
            spooled: one_counter(
                "anomaly_counter_spooled_operations_total",
                "Operations made to wait.",
            ),
            replayed: one_counter(
                "anomaly_counter_replayed_operations_total",
                "Operations that have waited and are carried out.",
            ),
            resent: one_counter(
                "anomaly_counter_resent_operations_total",
                "Acknowledged operations sent again after a reconnection.",
            ),
            dead_letters: one_counter(
                "anomaly_counter_dead_letters_total",
                "Operations that have waited and were refused for good.",
            ),
            webhook_alerts: counters(
                "anomaly_counter_webhook_alerts_total",
                "result",
                "Alerts delivered, by what became of them.",
            ),
            truncated_alerts: one_counter(
                "anomaly_counter_webhook_truncated_alerts_total",
                "Alerts that senders left out of deliveries.",
            ),
            auth_failures: counters(
                "anomaly_counter_auth_failures_total",
                "reason",
                "Callers turned away, by reason.",
            ),
        }
    }

    /// Sets what is told as it stands.
    pub(super) fn stand(&self, standing: StatusSnapshot) {
        for (state, gauge) in self.store_state.iter() {
            gauge.set(f64::from(u8::from(state == standing.state)));
        }
        self.shards_unavailable.set(standing.shards_unavailable as f64);
        self.spool_operations.set(standing.spool_operations as f64);
        self.spool_bytes.set(standing.spool_bytes as f64);
        self.spool_max_bytes.set(standing.spool_max_bytes as f64);
        self.spool_age_seconds.set(standing.spool_age_seconds as f64);
    }
}

/// A metric for each value of a label.
pub(super) struct By<L, M>(Vec<M>, PhantomData<L>);

impl<L: Label, M> By<L, M> {
    fn new(metric: impl Fn(&'static str) -> M) -> Self {
        Self(L::ALL.iter().map(|label| metric(label.text())).collect(), PhantomData)
    }

    pub(super) fn of(&self, label: L) -> &M {
        &self.0[label.index()]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (L, &M)> {
        L::ALL.iter().copied().zip(&self.0)
    }
}

fn one_counter(name: &'static str, description: &'static str) -> Counter {
    describe_counter!(name, description);
    counter!(name)
}

fn one_gauge(name: &'static str, description: &'static str) -> Gauge {
    describe_gauge!(name, description);
    gauge!(name)
}

fn counters<L: Label>(
    name: &'static str,
    label: &'static str,
    description: &'static str,
) -> By<L, Counter> {
    describe_counter!(name, description);
    By::new(|value| counter!(name, label => value))
}

fn gauges<L: Label>(
    name: &'static str,
    label: &'static str,
    description: &'static str,
) -> By<L, Gauge> {
    describe_gauge!(name, description);
    By::new(|value| gauge!(name, label => value))
}

fn histograms<L: Label>(
    name: &'static str,
    label: &'static str,
    description: &'static str,
) -> By<L, Histogram> {
    describe_histogram!(name, description);
    By::new(|value| histogram!(name, label => value))
}

/// The metrics of requests, which are as many as routes, methods and statuses come together.
pub(super) struct Requests(RwLock<HashMap<RequestKind, RouteMetrics>>);

/// Route, method and status.
type RequestKind = (&'static str, &'static str, u16);

pub(super) struct RouteMetrics {
    pub(super) count: Counter,
    pub(super) seconds: Histogram,
}

impl Requests {
    fn new() -> Self {
        describe_counter!(REQUESTS, "Requests answered, by route, method and status.");
        describe_histogram!(
            REQUEST_SECONDS,
            "Time from a request's head to its answer's, by route."
        );
        Self(RwLock::default())
    }

    /// Has `tell` tell those of one kind.
    pub(super) fn of(&self, kind: RequestKind, tell: impl FnOnce(&RouteMetrics)) {
        if let Some(metrics) = self.0.read().get(&kind) {
            return tell(metrics);
        }
        let (route, method, status) = kind;
        tell(self.0.write().entry(kind).or_insert_with(|| RouteMetrics {
            count: counter!(
                REQUESTS, "route" => route, "method" => method, "status" => status.to_string()
            ),
            seconds: histogram!(REQUEST_SECONDS, "route" => route, "method" => method),
        }));
    }
}
