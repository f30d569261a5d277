//! What the tools under `bench/` share: servers of their own on free ports, a client, anomalies to record,
//! and how figures are written down. Each tool brings these modules to its root, where they expect each
//! other, and an `Outcome`.

pub(crate) mod http;
pub(crate) mod machine;
pub(crate) mod markdown;
pub(crate) mod process;
pub(crate) mod redis;
pub(crate) mod service;
pub(crate) mod stats;
pub(crate) mod workload;
