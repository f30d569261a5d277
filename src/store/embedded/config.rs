//! The section `store` of the configuration: limits of the embedded store and of its disk.

use std::{
    num::{NonZeroU64, NonZeroUsize},
    time::Duration,
};

use serde::Deserialize;

/// The section `store` of the configuration.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// Maximum number of anomalies. All of them are in memory. At the limit, occurrences of new
    /// anomalies are refused.
    pub max_anomalies: NonZeroUsize,
    /// Maximum time that a call waits for the disk of the embedded store or of the spool, in
    /// milliseconds.
    pub write_timeout_ms: NonZeroU64,
}

impl StoreConfig {
    /// Returns the maximum time that a call waits for the disk.
    pub fn write_timeout(self) -> Duration {
        Duration::from_millis(self.write_timeout_ms.get())
    }
}
