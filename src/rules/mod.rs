//! The rules in force: read from the configuration or from a file of their own, and replaced
//! without interruption when that is read again. The rules themselves are defined in
//! `domain/rules/`.
//!
//! Order of imports: config → in_force → loading.

mod config;
mod in_force;
mod loading;

pub use config::RulesConfig;
pub use in_force::RulesInForce;
pub use loading::{Rules, RulesError};
