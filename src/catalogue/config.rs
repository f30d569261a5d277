//! The section `catalogue` of the configuration.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use serde::Deserialize;

/// The section `catalogue` of the configuration.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogueConfig {
    /// Maximum number of anomalies on Redis that an instance keeps for lists. Beyond it, the
    /// quietest are left out, and lists say so.
    pub max_anomalies: NonZeroUsize,
    /// Interval, in minutes, at which one instance scans Redis for changes by other programs.
    pub reconcile_minutes: NonZeroU32,
}

impl CatalogueConfig {
    pub(crate) fn reconcile_interval(self) -> Duration {
        Duration::from_secs(u64::from(self.reconcile_minutes.get()) * 60)
    }
}
