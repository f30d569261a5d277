//! Samples of a service and its store: their sizes at a moment, and the latencies since the last
//! one.

use std::{fmt, time::Duration};

use serde::Serialize;

use crate::{
    Outcome,
    markdown::grouped,
    redis::Client,
    service::{Service, Store},
    target::Target,
};

/// The phase of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    Fill,
    Steady,
}

/// A sample. Its latencies are those of single calls since the last one.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) store: &'static str,
    elapsed_seconds: f64,
    /// The phase at the start of the interval.
    pub(crate) phase: Phase,
    calls_per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    longest_ms: f64,
    pub(crate) service_bytes: u64,
    pub(crate) redis_bytes: Option<u64>,
    pub(crate) file_bytes: u64,
    anomalies: usize,
    /// Occurrences of known anomalies since the start, without those of the hot one.
    pub(crate) spread: u64,
    degraded: u64,
    failures: u64,
}

/// Takes samples of one service.
#[derive(Debug)]
pub(crate) struct Sampler<'a> {
    store: Store,
    service: &'a Service,
    target: &'a Target,
    redis: Option<Client>,
    last_elapsed: Duration,
    last_calls: u64,
    last_phase: Phase,
}

impl<'a> Sampler<'a> {
    pub(crate) fn new(store: Store, service: &'a Service, target: &'a Target) -> Outcome<Self> {
        let redis = match store {
            Store::Redis => Some(service.redis()?.client()?),
            Store::Embedded => None,
        };
        let (last_elapsed, last_calls, last_phase) = (Duration::ZERO, 0, Phase::Fill);
        Ok(Self { store, service, target, redis, last_elapsed, last_calls, last_phase })
    }

    pub(crate) fn sample(&mut self, elapsed: Duration, phase: Phase) -> Outcome<Sample> {
        let target = self.target;
        let mut latencies_us = target.take_latencies();
        latencies_us.sort_unstable();
        let calls = target.calls();
        let interval = elapsed.saturating_sub(self.last_elapsed);
        let sample = Sample {
            store: self.store.name(),
            elapsed_seconds: elapsed.as_secs_f64(),
            phase: self.last_phase,
            calls_per_second: (calls - self.last_calls) as f64 / interval.as_secs_f64(),
            p50_ms: percentile_ms(&latencies_us, 0.5),
            p99_ms: percentile_ms(&latencies_us, 0.99),
            longest_ms: percentile_ms(&latencies_us, 1.0),
            service_bytes: self.service.resident_bytes()?,
            redis_bytes: self.redis.as_mut().map(Client::used_bytes).transpose()?,
            file_bytes: self.service.disk_bytes()?,
            anomalies: target.known(),
            spread: target.spread(),
            degraded: target.degraded(),
            failures: target.failures(),
        };
        (self.last_elapsed, self.last_calls, self.last_phase) = (elapsed, calls, phase);
        Ok(sample)
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let redis = self.redis_bytes.map(|bytes| format!(", Redis {:.1} MiB", mib(bytes)));
        write!(
            f,
            "{:>5.0} s {:8} {:>6}/s, p50 {:.2} p99 {:.2} longest {:.0} ms, service {:.1} MiB{}, \
             files {:.1} MiB, {} anomalies, {} degraded, {} failed",
            self.elapsed_seconds,
            self.store,
            grouped(self.calls_per_second),
            self.p50_ms,
            self.p99_ms,
            self.longest_ms,
            mib(self.service_bytes),
            redis.unwrap_or_default(),
            mib(self.file_bytes),
            grouped(self.anomalies as f64),
            self.degraded,
            self.failures,
        )
    }
}

/// Returns the share of the planned occurrences that were recorded in the steady time, if there was
/// one.
pub(crate) fn share_of_pace(store: Store, samples: &[Sample], pace: u32) -> Option<f64> {
    let is_steady =
        |sample: &&Sample| sample.store == store.name() && sample.phase == Phase::Steady;
    let first = samples.iter().find(is_steady)?;
    let last = samples.iter().rfind(is_steady)?;
    let expected = (last.elapsed_seconds - first.elapsed_seconds) * f64::from(pace);
    Some((last.spread - first.spread) as f64 / expected)
}

/// Returns a percentile of sorted microseconds in milliseconds; 0 without calls.
fn percentile_ms(sorted_us: &[u32], share: f64) -> f64 {
    let index = (sorted_us.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted_us.get(index).map_or(0.0, |us| f64::from(*us) / 1e3)
}
