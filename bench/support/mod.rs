//! What `make bench` and `make soak` share: a client, anomalies to record, the servers under load,
//! and how figures are written down. Each tool brings these modules to its root, where they find
//! each other, with a type `Outcome`. The processes are those of the tests' harness.

#[path = "../../tests/support/servers/mod.rs"]
pub(crate) mod servers;

pub(crate) mod http;
pub(crate) mod machine;
pub(crate) mod markdown;
pub(crate) mod process;
pub(crate) mod redis;
pub(crate) mod service;
pub(crate) mod stats;
pub(crate) mod workload;
