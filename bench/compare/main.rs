//! `make bench`: the speed of the service. Each row is measured beside its reference, in one run on
//! one machine. bench/README.md explains each row, and what makes its figure better or worse than
//! it should be.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what can't be set up ends the run")]

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "the soak uses more of it")]
mod support;

mod bench;
mod load;
mod plot;
mod rows;
mod table;
mod wrk;

use std::{fs, path::Path, process::ExitCode, time::Duration};

use clap::Parser;

use self::{
    bench::{Bench, Findings, Settings},
    rows::Selection,
    support::{http, machine, markdown, process, redis, servers, service, stats, workload},
};

/// The result of a step.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measures the service beside its HTTP ceiling and raw Redis, and says which goals it meets.
#[derive(Debug, Parser)]
#[command(after_help = rows::list())]
struct Arguments {
    /// Run this row only; also `post` for `post-redis` and `post-embedded`
    #[arg(long, value_name = "ROW", value_parser = rows::parse)]
    row: Option<Selection>,
    /// Number of turns for each of a row's contestants
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Length of a turn
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    window_seconds: u64,
    /// Maximum number of occurrences of a key in `key-depth`
    #[arg(long, default_value_t = 10_000_000)]
    max_depth: u64,
    /// Number of keys in `many-keys`
    #[arg(long, default_value_t = 1_000_000)]
    many_keys: u64,
    /// `cargo bench` passes it to whatever it runs
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let Arguments { row, rounds, window_seconds, max_depth, many_keys, .. } = Arguments::parse();
    let settings =
        Settings { rounds, window: Duration::from_secs(window_seconds), max_depth, many_keys };
    let selections = row.map_or_else(rows::all, |row| vec![row]);
    let machine = match machine::facts() {
        Ok(machine) => machine,
        Err(error) => {
            eprintln!("bench: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("{machine}");
    if machine.is_busy() {
        println!("Other programs use this machine, which affects the figures.");
    }

    let mut bench = Bench::new(settings, selections.iter().map(|row| row.group.seconds).sum());
    let mut failures = Vec::new();
    for (number, Selection { group, stores }) in selections.iter().enumerate() {
        bench.begin(format!("{}/{} {}", number + 1, selections.len(), group.name));
        if let Err(error) = (group.run)(&mut bench, stores) {
            println!("{} FAILED: {error}", group.name);
            failures.push(group.name);
        }
    }
    let findings = bench.into_findings();
    println!("\n{machine}\n\n{}", table::render(&findings.lines));
    if let Err(error) = save(&machine, &findings) {
        println!("the results can't be saved: {error}");
        return ExitCode::FAILURE;
    }
    if failures.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("These rows FAILED, and their lines are missing: {}", failures.join(", "));
    ExitCode::FAILURE
}

fn save(machine: &machine::Machine, findings: &Findings) -> Outcome<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/results");
    fs::create_dir_all(&dir)?;
    let json = serde_json::json!({"machine": machine, "findings": findings});
    let file = dir.join("latest.json");
    fs::write(&file, serde_json::to_string_pretty(&json)?)?;
    println!("written: {}", file.display());
    for plot in plot::draw(&dir, findings)? {
        println!("written: {}", plot.display());
    }
    Ok(())
}
