//! The state that handlers share, and the parts of its request that each of them gets.

use std::{ops::Deref, sync::Arc};

use axum::extract::FromRef;
use bytes::Bytes;

use super::config::{AlertmanagerConfig, HttpConfig, PageConfig};
use crate::{
    auth::{Authenticator, Caller, SignedDelivery},
    counter::Counter,
    domain::{AnomalyConfig, KeyMapping},
    telemetry::{Recorder, RequestId},
};

/// The state that handlers share.
#[derive(Clone, Debug)]
pub struct AppState(Arc<SharedState>);

/// The parts of the state that handlers share.
#[derive(Debug)]
pub struct SharedState {
    /// Records and reads anomalies.
    pub counter: Arc<Counter>,
    /// Checks the callers' tokens.
    pub authenticator: Arc<Authenticator>,
    /// Renders `/metrics`.
    pub recorder: Arc<Recorder>,
    /// Maps posted fields and labels to the fields that identify an anomaly.
    pub keys: Arc<KeyMapping>,
    /// The section `anomaly` of the configuration.
    pub anomaly: AnomalyConfig,
    /// The section `http` of the configuration.
    pub http: HttpConfig,
    /// The section `alertmanager` of the configuration.
    pub alertmanager: AlertmanagerConfig,
    /// The section `page` of the configuration.
    pub page: PageConfig,
}

impl From<SharedState> for AppState {
    fn from(state: SharedState) -> Self {
        Self(Arc::new(state))
    }
}

impl Deref for AppState {
    type Target = SharedState;

    fn deref(&self) -> &SharedState {
        &self.0
    }
}

/// The parts of a request that a handler gets beside the head. They are passed as axum's state: the
/// extensions of a request would take a map, and a box for each part.
#[derive(Clone, Debug)]
pub(super) struct RequestState {
    pub(super) app: AppState,
    pub(super) id: RequestId,
    pub(super) caller: Caller,
    /// The signature of a delivery, which is checked with its body.
    pub(super) signed: Option<Box<SignedDelivery>>,
    /// The values of the path's parameters, in their order.
    pub(super) path_values: Vec<PathValue>,
    /// The whole body.
    pub(super) body: Bytes,
}

/// The value of a parameter of a path without percent-encoding; `None` if it is not UTF-8.
pub(super) type PathValue = Option<Box<str>>;

impl FromRef<RequestState> for AppState {
    fn from_ref(request: &RequestState) -> Self {
        request.app.clone()
    }
}
