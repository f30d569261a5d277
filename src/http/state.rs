//! The state that handlers share.

use std::sync::Arc;

use super::config::{AlertmanagerConfig, HttpConfig};
use crate::{
    auth::Authenticator,
    counter::Counter,
    domain::{AnomalyConfig, KeyMapping},
    telemetry::Recorder,
};

/// The state that handlers share.
#[derive(Clone, Debug)]
pub struct AppState {
    /// Records and reads anomalies.
    pub counter: Arc<Counter>,
    /// Checks the callers' tokens.
    pub authenticator: Arc<Authenticator>,
    /// Renders `/metrics`.
    pub recorder: Arc<Recorder>,
    /// Maps what is posted to the fields that identify an anomaly.
    pub keys: Arc<KeyMapping>,
    /// The section `anomaly` of the configuration.
    pub anomaly: AnomalyConfig,
    /// The section `http` of the configuration.
    pub http: HttpConfig,
    /// The section `alertmanager` of the configuration.
    pub alertmanager: AlertmanagerConfig,
}
