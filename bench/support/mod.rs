//! The parts that `make bench` and `make soak` share: a client, anomalies to record, the servers
//! under load, and the formats of results. Each tool imports these modules into its root, where
//! they find each other, and defines `Outcome` there. The processes are those of the tests'
//! harness.

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
