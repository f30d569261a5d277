//! The section `store` of the configuration: limits of the embedded store.

use std::num::NonZeroUsize;

use serde::Deserialize;

/// Limits of the embedded store.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// Maximum number of anomalies, all of which are in memory. At the limit, occurrences of new
    /// ones are refused.
    pub max_anomalies: NonZeroUsize,
}
