//! The budget of memory for a POST to Redis.
#![allow(clippy::unwrap_used, reason = "a test says what failed by failing")]

mod budget;
#[path = "../support/servers/mod.rs"]
#[allow(dead_code, reason = "other tests and the benchmarks use the rest of it")]
mod servers;

use tempfile::TempDir;

use self::{
    budget::{Budget, check},
    servers::{
        process::{Process, on_free_port},
        redis::{redis_command, start_redis},
    },
};

/// With the arguments of the script and its reply.
const BUDGET: Budget = Budget { allocations: 16, bytes: 8 << 10 };

#[test]
fn a_post_to_redis_stays_within_its_budget() {
    let dir = TempDir::new().unwrap();
    let options = ["--dir".to_owned(), dir.path().display().to_string()];
    let start = |port| {
        let process = Process::spawn(&mut redis_command(port, &options), dir.path())?;
        Ok((port, start_redis(process)?))
    };
    let (port, _redis) = on_free_port(start).unwrap();
    check(&BUDGET, Some(&format!("redis://127.0.0.1:{port}")));
}
