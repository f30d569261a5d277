//! Servers as child processes. The tests, `make chaos`, `make bench` and `make soak` start theirs
//! here; which client they use is their own choice.

pub(crate) mod process;
pub(crate) mod redis;
pub(crate) mod service;
