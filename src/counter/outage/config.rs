//! The section `degraded` of the configuration.

use std::{
    num::{NonZeroU32, NonZeroU64},
    time::Duration,
};

use serde::Deserialize;

/// The section `degraded` of the configuration.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DegradedConfig {
    /// Interval between probes of a shard that does not answer, in milliseconds.
    pub probe_interval_ms: NonZeroU64,
    /// Maximum memory for the last known state of anomalies, in bytes.
    pub known_bytes: usize,
    /// Maximum number of waiting operations that are applied per second after the store answers.
    pub replay_per_second: NonZeroU32,
    /// Time for which acknowledged writes are kept so that they can be sent again after a failover,
    /// in seconds.
    pub remember_seconds: u32,
    /// Maximum number of acknowledged writes that are kept.
    pub remember_operations: usize,
    /// Maximum memory of acknowledged writes, in bytes. Writes that were acknowledged before an
    /// ongoing outage may take the same amount again.
    pub remember_bytes: usize,
}

impl DegradedConfig {
    pub(crate) fn probe_interval(self) -> Duration {
        Duration::from_millis(self.probe_interval_ms.get())
    }
}
