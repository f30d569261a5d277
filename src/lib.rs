//! anomaly-counter counts how often an anomaly happens, and says when to stop restarting and fix
//! the cause. The binary is a thin layer over this library; ARCHITECTURE.md is the map.
//!
//! Modules import from left to right only:
//! `printable → options → domain → telemetry → rules → tls → traces → redb_file | commit_witness →`
//! `store | spool → catalogue → counter → auth → http → logging → config → app → cli → main`.

pub mod app;
pub mod auth;
pub mod catalogue;
pub mod cli;
mod commit_witness;
pub mod config;
pub mod counter;
pub mod domain;
pub mod http;
pub mod logging;
pub mod options;
pub mod printable;
mod redb_file;
pub mod rules;
pub mod spool;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod traces;
