//! Families of metrics: the metrics of one name, one for each value of a label. The handles are
//! created once and kept: looking one up by name and labels for each request took a tenth of the
//! service's time.

use std::{collections::HashMap, fmt, time::Duration};

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use parking_lot::RwLock;

use super::labels::Label;

/// A counter for each value of a label.
pub struct Counters<L: 'static>(Family<L, Counter>);

impl<L: Label> Counters<L> {
    pub(super) fn new(name: &'static str, label: &'static str, description: &'static str) -> Self {
        describe_counter!(name, description);
        Self(Family::new(|value| counter!(name, label => value)))
    }

    /// Adds one to the counter of `label`.
    pub fn increment(&self, label: L) {
        self.increment_by(label, 1);
    }

    /// Adds `count` to the counter of `label`.
    pub fn increment_by(&self, label: L, count: usize) {
        let counter = self.0.of(label);
        debug_assert!(counter.is_some(), "`{}` is not in Label::ALL", label.value());
        if let Some(counter) = counter {
            counter.increment(count as u64);
        }
    }
}

impl<L> fmt::Debug for Counters<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counters").finish_non_exhaustive()
    }
}

/// A gauge for each value of a label, of which one is 1 and all others are 0.
pub(super) struct StateGauges<L: 'static>(Family<L, Gauge>);

impl<L: Label> StateGauges<L> {
    pub(super) fn new(name: &'static str, label: &'static str, description: &'static str) -> Self {
        Self(Family::of_gauges(name, label, description))
    }

    pub(super) fn set(&self, state: L) {
        for (label, gauge) in &self.0.members {
            gauge.set(f64::from(u8::from(*label == state)));
        }
    }
}

/// A gauge for each value of a label: the number of times it occurs.
pub(super) struct CountGauges<L: 'static>(Family<L, Gauge>);

impl<L: Label> CountGauges<L> {
    pub(super) fn new(name: &'static str, label: &'static str, description: &'static str) -> Self {
        Self(Family::of_gauges(name, label, description))
    }

    pub(super) fn set(&self, occurring: &[L]) {
        for (label, gauge) in &self.0.members {
            gauge.set(occurring.iter().filter(|other| *other == label).count() as f64);
        }
    }
}

/// A gauge for each value of a label: a number.
pub(super) struct NumberGauges<L: 'static>(Family<L, Gauge>);

impl<L: Label> NumberGauges<L> {
    pub(super) fn new(name: &'static str, label: &'static str, description: &'static str) -> Self {
        Self(Family::of_gauges(name, label, description))
    }

    pub(super) fn set(&self, label: L, number: f64) {
        if let Some(gauge) = self.0.of(label) {
            gauge.set(number);
        }
    }
}

struct Family<L, M> {
    members: Vec<(L, M)>,
}

impl<L: Label, M> Family<L, M> {
    fn new(metric: impl Fn(&'static str) -> M) -> Self {
        Self { members: L::ALL.iter().map(|label| (*label, metric(label.value()))).collect() }
    }

    /// Labels have so few values that a search is as fast as an index.
    fn of(&self, label: L) -> Option<&M> {
        self.members.iter().find(|(other, _)| *other == label).map(|(_, metric)| metric)
    }
}

impl<L: Label> Family<L, Gauge> {
    fn of_gauges(name: &'static str, label: &'static str, description: &'static str) -> Self {
        describe_gauge!(name, description);
        Self::new(|value| gauge!(name, label => value))
    }
}

pub(super) fn counter_of(name: &'static str, description: &'static str) -> Counter {
    describe_counter!(name, description);
    counter!(name)
}

pub(super) fn gauge_of(name: &'static str, description: &'static str) -> Gauge {
    describe_gauge!(name, description);
    gauge!(name)
}

pub(super) fn histogram_of(
    name: &'static str,
    label: &'static str,
    value: &'static str,
    description: &'static str,
) -> Histogram {
    describe_histogram!(name, description);
    histogram!(name, label => value)
}

const REQUESTS: &str = "anomaly_counter_http_requests_total";
const REQUEST_SECONDS: &str = "anomaly_counter_http_request_duration_seconds";

/// The metrics of requests, one set for each combination of route, method and status that occurs.
pub(super) struct Requests(RwLock<HashMap<RequestKind, RouteMetrics>>);

/// Route, method and status.
type RequestKind = (&'static str, &'static str, u16);

struct RouteMetrics {
    count: Counter,
    seconds: Histogram,
}

impl RouteMetrics {
    fn new((route, method, status): RequestKind) -> Self {
        Self {
            count: counter!(
                REQUESTS, "route" => route, "method" => method, "status" => status.to_string()
            ),
            seconds: histogram!(REQUEST_SECONDS, "route" => route, "method" => method),
        }
    }

    fn record(&self, took: Duration) {
        self.count.increment(1);
        self.seconds.record(took);
    }
}

impl Requests {
    pub(super) fn new() -> Self {
        describe_counter!(REQUESTS, "Requests completed, by route, method and status.");
        describe_histogram!(
            REQUEST_SECONDS,
            "Time from the head of a request to the head of its response, by route."
        );
        Self(RwLock::default())
    }

    pub(super) fn record(&self, kind: RequestKind, took: Duration) {
        if let Some(metrics) = self.0.read().get(&kind) {
            return metrics.record(took);
        }
        self.0.write().entry(kind).or_insert_with(|| RouteMetrics::new(kind)).record(took);
    }
}
