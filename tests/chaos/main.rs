//! Random faults under a steady load, then a comparison: every acknowledged write must be there
//! exactly once. A seed repeats the same faults. On Redis they are those of servers and networks;
//! on the embedded store those of disk and clock.
//!
//! `make chaos SEED=7 SECONDS=600 ON=cluster`
#![allow(clippy::unwrap_used, reason = "what can't be set up ends the run")]

#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "the tests use more of it")]
mod support;

mod faults;
mod ledger;
mod load;
mod machine;
mod report;
mod stage;

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};

use self::{faults::schedule, ledger::Ledger, load::Load, report::Report, stage::Stage};

/// Time between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// Injects faults into two instances of the service and their Redis, or into one instance on the
/// embedded store, and counts lost and doubled writes.
#[derive(Debug, Parser)]
struct Arguments {
    /// The same seed gives the same faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Length of the run.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The store that the service uses.
    #[arg(long, value_enum, default_value_t = Topology::Single)]
    on: Topology,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Topology {
    /// One Redis, behind a network that fails too.
    Single,
    /// A cluster of three masters, each with a replica.
    Cluster,
    /// No Redis: the embedded store, on a disk and by a clock that fail.
    Embedded,
}

fn main() -> ExitCode {
    let Arguments { seed, seconds, on } = Arguments::parse();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(run(seed, Duration::from_secs(seconds), on))
}

async fn run(seed: u64, length: Duration, on: Topology) -> ExitCode {
    let length_seconds = length.as_secs();
    println!("chaos: seed {seed}, {length_seconds} s, on {on:?}");
    let (ledger, report) = (Arc::new(Ledger::default()), Arc::new(Report::default()));
    let stage = Arc::new(Stage::build(on, Arc::clone(&report)).await);
    let load = Load::begin(seed, Arc::clone(&stage), Arc::clone(&ledger)).await;
    let begun = Instant::now();
    let telling = tokio::spawn({
        let report = Arc::clone(&report);
        async move {
            loop {
                tokio::time::sleep(PROGRESS_INTERVAL).await;
                println!("{:>5} s  {}", begun.elapsed().as_secs(), report.progress());
            }
        }
    });
    for planned in schedule(seed, length, on) {
        tokio::time::sleep(planned.at.saturating_sub(begun.elapsed())).await;
        println!("{:>7.1} s  {planned}", begun.elapsed().as_secs_f64());
        stage.inflict(planned);
    }
    tokio::time::sleep(length.saturating_sub(begun.elapsed())).await;
    println!("healing");
    stage.heal().await;
    load.end().await;
    stage.settle().await;
    telling.abort();

    report.print();
    let verdict = ledger.compare(&stage).await;
    let refused = report.refusals_without_reason();
    println!("\n{verdict}; refused without reason {refused}");
    println!("seed {seed}, {length_seconds} s, on {on:?}");
    if verdict.is_good() && refused == 0 {
        ExitCode::SUCCESS
    } else {
        println!("FAILED: `make chaos SEED={seed}` gives the same faults again");
        stage.print_logs();
        ExitCode::FAILURE
    }
}
