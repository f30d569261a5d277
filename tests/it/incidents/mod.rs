//! The rules of incidents, by which an alert counts or not, and the stores that apply them.

pub(crate) mod histories;
pub(crate) mod naive;
mod real_alertmanager;
mod rules;
mod service;
mod stores;
