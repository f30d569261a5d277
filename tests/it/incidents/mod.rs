//! When an alert counts: the rules of incidents, and the stores that decide by them.

pub(crate) mod histories;
pub(crate) mod naive;
mod real_alertmanager;
mod rules;
mod service;
mod stores;
