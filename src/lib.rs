//! anomaly-counter counts how often an anomaly happens, and says when to stop restarting and fix
//! the cause. The binary is a thin shell around this library; ARCHITECTURE.md is the map.
//!
//! Modules import from left to right only:
//! `domain → store → counter → http → config → app → cli → main`.

pub mod counter;
pub mod domain;
pub mod store;
