//! The faults of a store: their class, by which callers decide what to do next, and their cause,
//! which operators see.

use std::sync::Arc;

use crate::telemetry::Label;

/// The fault of a store. The text is for the log; clients see only the text that is meant for them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct StoreError {
    class: FaultClass,
    cause: Cause,
    text: String,
    for_clients: Option<Arc<str>>,
}

/// The class of a [`StoreError`], as metrics and traces name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultClass {
    /// The call did not take effect. The same call may succeed later.
    Transient,
    /// The call did not take effect, because this anomaly is being moved to another server. The
    /// same call may succeed later, and the fault says nothing about other anomalies.
    Moving,
    /// The call did not take effect, because the store has reached its maximum number of anomalies.
    /// The same call may succeed when some have expired, and the fault says nothing about known
    /// anomalies.
    Full,
    /// The call may have taken effect. Repeating it with the same id is safe.
    Indeterminate,
    /// The call did not take effect, and will not while the data of this anomaly stay as they are.
    /// A verdict on one element, never on a whole call.
    Permanent,
}

impl Label for FaultClass {
    const ALL: &'static [Self] =
        &[Self::Transient, Self::Moving, Self::Full, Self::Indeterminate, Self::Permanent];

    fn value(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Moving => "moving",
            Self::Full => "full",
            Self::Indeterminate => "indeterminate",
            Self::Permanent => "permanent",
        }
    }
}

/// The cause of a fault, as `/readyz` and metrics report it. It contains no server and no data,
/// because everybody may read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The server has not replied in time.
    Timeout,
    /// No connection can be established, or it was lost.
    Unreachable,
    /// The server refuses the user or the password.
    Auth,
    /// The user lacks a permission.
    Permission,
    /// The server is a replica.
    Readonly,
    /// The server is loading its data.
    Loading,
    /// The server is busy with a script.
    Busy,
    /// The server has no memory left.
    Memory,
    /// The disk of the server or of the service fails or is full.
    Disk,
    /// The server has too few replicas to take writes.
    Replicas,
    /// The cluster, or some of its slots, is down.
    Cluster,
    /// The server refuses the call for another reason, or is no Redis.
    Refused,
}

impl Label for Cause {
    const ALL: &'static [Self] = &[
        Self::Timeout,
        Self::Unreachable,
        Self::Auth,
        Self::Permission,
        Self::Readonly,
        Self::Loading,
        Self::Busy,
        Self::Memory,
        Self::Disk,
        Self::Replicas,
        Self::Cluster,
        Self::Refused,
    ];

    fn value(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Auth => "auth",
            Self::Permission => "permission",
            Self::Readonly => "readonly",
            Self::Loading => "loading",
            Self::Busy => "busy",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Replicas => "replicas",
            Self::Cluster => "cluster",
            Self::Refused => "refused",
        }
    }
}

impl StoreError {
    /// Creates a fault of the class [`FaultClass::Transient`].
    pub fn transient(cause: Cause, text: impl Into<String>) -> Self {
        Self::new(FaultClass::Transient, cause, text.into())
    }

    /// Creates a fault of the class [`FaultClass::Moving`].
    pub fn moving(text: impl Into<String>) -> Self {
        Self::new(FaultClass::Moving, Cause::Cluster, text.into())
    }

    /// Creates a fault of the class [`FaultClass::Full`], for a store with this maximum.
    pub fn full(max_anomalies: usize) -> Self {
        let text =
            format!("the limit of {max_anomalies} anomalies (`store.max_anomalies`) is reached");
        Self::new(FaultClass::Full, Cause::Memory, text)
    }

    /// Creates a fault of the class [`FaultClass::Indeterminate`].
    pub fn indeterminate(cause: Cause, text: impl Into<String>) -> Self {
        let text = text.into() + " (it may have taken effect)";
        Self::new(FaultClass::Indeterminate, cause, text)
    }

    /// Creates a fault of the class [`FaultClass::Permanent`].
    pub fn permanent(text: impl Into<String>) -> Self {
        Self::new(FaultClass::Permanent, Cause::Refused, text.into())
    }

    /// Creates the fault of a shard that is known to be unavailable and was not called.
    pub fn unavailable() -> Self {
        Self::transient(Cause::Unreachable, "the store is unavailable")
    }

    /// Creates a fault of this service's disk, of the class [`FaultClass::Transient`]. Clients see
    /// the text, which names the path of the file.
    pub fn own_disk(text: impl Into<String>) -> Self {
        let text = text.into();
        Self::transient(Cause::Disk, text.clone()).shown_as(&text)
    }

    /// Returns the same fault with a text that clients may see.
    #[must_use]
    pub fn shown_as(self, text: &str) -> Self {
        Self { for_clients: Some(text.into()), ..self }
    }

    /// Creates the fault of a call that is not made because its shard has failed with `fault`.
    pub fn unavailable_since(fault: &Self) -> Self {
        let for_clients = fault.for_clients.clone();
        Self { cause: fault.cause, for_clients, ..Self::unavailable() }
    }

    fn new(class: FaultClass, cause: Cause, text: String) -> Self {
        Self { class, cause, text, for_clients: None }
    }

    /// Creates the fault of a call whose result is missing.
    pub fn no_result() -> Self {
        Self::indeterminate(Cause::Timeout, "no result was returned")
    }

    /// Returns the class of the fault.
    pub fn class(&self) -> FaultClass {
        self.class
    }

    /// Returns the cause of the fault.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// Returns the text that clients may see: the path of a file of this service.
    pub fn for_clients(&self) -> Option<&str> {
        self.for_clients.as_deref()
    }

    /// Returns true if the same call may succeed later.
    pub fn is_temporary(&self) -> bool {
        self.class != FaultClass::Permanent
    }

    /// Returns true if the shard that returned it is at fault, and not the call.
    pub fn is_outage(&self) -> bool {
        matches!(self.class, FaultClass::Transient | FaultClass::Indeterminate)
    }
}
