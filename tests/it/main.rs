//! The integration tests, as one binary. Each starts real processes on free ports of 127.0.0.1 and
//! in temporary folders, which end with the test.
#![allow(clippy::unwrap_used, reason = "a test says what failed by failing")]

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "`make chaos` and the benchmarks use the rest of it")]
mod support;

mod access;
mod alertmanager;
mod bounded_timelines;
mod bounds;
mod callers;
mod catalogue;
mod catalogue_upkeep;
mod clock;
mod cluster;
mod command_line;
mod configuration;
mod conformance;
mod damaged_spool;
mod damaged_store;
mod dead_letters;
mod deployments;
mod durability;
mod forget;
mod forgetful_redis;
mod formats_without_alerts;
mod frequency;
mod full_disk;
mod grafana;
mod hanging_disk;
mod history;
mod honest_answers;
mod horizon;
mod hostile_clients;
mod hostile_input;
mod incidents;
mod judged_lists;
mod key_mapping;
mod key_masks;
mod key_properties;
mod lists;
mod lookup;
mod lost_tokens;
mod lower_bounds;
mod metadata;
mod metrics;
mod missing_data_dir;
mod model;
mod network;
mod news;
mod odd_deliveries;
mod older_writer;
mod openapi;
mod outage;
mod page;
mod permanent_fix;
mod quiet_log;
mod readme;
mod recent_ids;
mod redis_store;
mod refusing_redis;
mod remediation;
mod repairs;
mod replay;
mod rollup_vectors;
mod rule_windows;
mod rules;
mod rules_command;
mod shutdown;
mod signature;
mod stored_formats;
mod strict_http;
mod tidy;
mod tls;
mod traces;
mod weight;
