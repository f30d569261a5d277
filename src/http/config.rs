//! The sections `http`, `alertmanager` and `page` of the configuration.

use std::num::{NonZeroU16, NonZeroUsize};

use serde::Deserialize;

use crate::{
    domain::{AlertPolicy, CountBy},
    options::Period,
};

/// The section `http` of the configuration.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// Maximum size of a request body, in bytes. Deliveries of Alertmanager have a limit of their
    /// own.
    pub max_body_bytes: NonZeroUsize,
    /// Maximum size of all bodies in memory together, in bytes. One body of the largest size always
    /// fits.
    pub max_total_body_bytes: NonZeroUsize,
    /// Maximum number of open connections.
    pub max_connections: NonZeroU16,
    /// Maximum number of requests that are handled at the same time.
    pub max_concurrent_requests: NonZeroU16,
    /// Timeout for the head of a request and for an idle connection, in seconds.
    pub header_timeout_seconds: NonZeroU16,
    /// Timeout for the body of a request, in seconds.
    pub body_timeout_seconds: NonZeroU16,
    /// Timeout for the answer to a request whose body is complete, in seconds.
    pub response_timeout_seconds: NonZeroU16,
    /// Timeout for a client that does not read its answer, in seconds.
    pub send_timeout_seconds: NonZeroU16,
    /// Maximum time for requests in progress when the service stops, in seconds.
    pub shutdown_timeout_seconds: u16,
}

/// The section `page` of the configuration.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageConfig {
    /// True if browsers get the page at `/`, and may log in to it.
    pub enabled: bool,
}

/// The section `alertmanager` of the configuration.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertmanagerConfig {
    /// The unit in which firing alerts are counted.
    pub count: CountBy,
    /// True if the preset for Kubernetes finds the workload of an alert of kube-state-metrics.
    pub kubernetes: bool,
    /// Time after which an alert that was not delivered again is considered ended.
    pub stale_after: Period,
    /// Maximum time after the last counted start of an incident: an episode that begins later is a
    /// new incident.
    pub incident_max: Period,
    /// True if an alert counts although only its end was delivered.
    pub count_missed: bool,
    /// Maximum size of a delivery, in bytes.
    pub max_body_bytes: NonZeroUsize,
}

impl AlertmanagerConfig {
    /// Returns the policy by which alerts are counted.
    pub fn alerts(self) -> AlertPolicy {
        AlertPolicy {
            count: self.count,
            stale_after_seconds: self.stale_after.seconds(),
            incident_max_seconds: self.incident_max.seconds(),
            count_missed: self.count_missed,
        }
    }
}
