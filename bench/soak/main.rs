//! `make soak`: a steady mixed load with storms on both stores for half an hour, which fails when
//! something grows that should not. bench/README.md defines growth.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what can't be set up ends the run")]

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "the benchmarks use more of it")]
mod support;

mod load;
mod pace;
mod sample;
mod target;
mod verdict;

use std::{
    fs,
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use serde_json::json;

use self::{
    load::Load,
    sample::{Phase, Sample, Sampler},
    service::{Service, Store},
    support::{http, machine, markdown, process, redis, servers, service, stats, workload},
    target::Target,
};

/// The result of a step.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const STORES: [Store; 2] = [Store::Embedded, Store::Redis];
/// A short run is sampled more often, so that a quarter of it has enough samples for a median.
const SAMPLE_INTERVAL_SECONDS: f64 = 10.0;
const LEAST_SAMPLES: f64 = 24.0;
/// Divisor of the whole time, for the maximum time of the fill-up.
const FILL_SHARE: u32 = 5;
/// Interval at which the main thread checks whether a sample is due.
const LOOK: Duration = Duration::from_millis(20);

/// Loads the service on both stores steadily, and checks whether memory, files or latencies grow.
#[derive(Debug, Parser)]
struct Arguments {
    /// Length of the run
    #[arg(long, default_value_t = 1800, value_parser = clap::value_parser!(u32).range(30..))]
    seconds: u32,
    /// Occurrences a second on each store; ten times as many in a storm
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u32).range(10..))]
    pace: u32,
    /// Maximum number of anomalies
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1000..))]
    keys: u32,
    /// `cargo bench` passes it to whatever it runs
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("soak: FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether the run has passed.
fn run(arguments: &Arguments) -> Outcome<bool> {
    let &Arguments { seconds, pace, keys, .. } = arguments;
    let length = Duration::from_secs(seconds.into());
    let machine = machine::facts()?;
    let build = if cfg!(debug_assertions) { "development" } else { "release" };
    println!("{machine}\nsoak: {seconds} s, {pace} occurrences/s on each store, {build} build");
    // In the main thread, because a server ends with the thread that starts it.
    let services = STORES.map(Service::on).into_iter().collect::<Outcome<Vec<Service>>>()?;
    let targets: Vec<Target> =
        services.iter().map(|service| Target::new(service.port(), keys as usize)).collect();
    let mut samplers = STORES
        .iter()
        .zip(services.iter().zip(&targets))
        .map(|(store, (service, target))| Sampler::new(*store, service, target))
        .collect::<Outcome<Vec<Sampler<'_>>>>()?;

    let samples = soak(length, pace, &targets, &mut samplers)?;
    // All targets are reported, also after a wrong one.
    let are_right: Vec<bool> =
        targets.iter().zip(STORES).map(|(target, store)| is_right(target, store)).collect();
    let is_right = are_right.iter().all(|is_right| *is_right);
    for store in STORES {
        if let Some(share) = sample::share_of_pace(store, &samples, pace) {
            println!("{}: {:.0} % of the pace was kept", store.name(), 100.0 * share);
        }
    }
    let verdicts = verdict::judge(&STORES, &samples);
    println!("\n{machine}, {build} build\n\n{}", verdict::render(&verdicts));
    save(&json!({
        "machine": machine, "build": build, "seconds": seconds, "pace": pace,
        "samples": samples, "verdicts": verdicts,
    }))?;
    let has_grown = verdicts.iter().any(|verdict| verdict.has_grown());
    let growth = if has_grown { "something GREW" } else { "nothing grew" };
    println!(
        "soak: {growth}, {}",
        if is_right { "all calls and counts are right" } else { "FAILED" }
    );
    Ok(is_right && !has_grown)
}

/// Loads all targets at the same time, and samples them.
fn soak(
    length: Duration,
    pace: u32,
    targets: &[Target],
    samplers: &mut [Sampler<'_>],
) -> Outcome<Vec<Sample>> {
    let begun = Instant::now();
    let interval = length.as_secs_f64() / LEAST_SAMPLES;
    let interval = Duration::from_secs_f64(interval.clamp(1.0, SAMPLE_INTERVAL_SECONDS));
    let (mut samples, mut due) = (Vec::new(), interval);
    let mut sample_when_due = |phase: Phase, samples: &mut Vec<Sample>| -> Outcome<()> {
        thread::sleep(due.saturating_sub(begun.elapsed()).min(LOOK));
        if begun.elapsed() >= due {
            due += interval;
            for sampler in &mut *samplers {
                let sample = sampler.sample(begun.elapsed(), phase)?;
                println!("{sample}");
                samples.push(sample);
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        // The scope waits for the load, so the load must end in case of an error too.
        let load = Load { targets, pace };
        let _ending = load.ending();
        let fillers = load.fill(scope, begun + length / FILL_SHARE);
        while !fillers.iter().all(|filler| filler.is_finished()) {
            sample_when_due(Phase::Fill, &mut samples)?;
        }
        load.begin(scope);
        while begun.elapsed() < length {
            sample_when_due(Phase::Steady, &mut samples)?;
        }
        Ok(samples)
    })
}

/// Prints what a target has acknowledged, and returns whether its counts are right.
fn is_right(target: &Target, store: Store) -> bool {
    let store = store.name();
    println!("\n{store}: {target}");
    if let Some(failure) = target.first_failure() {
        println!("{store}: FAILED: {failure}");
    }
    match target.compare() {
        Ok(compared) => println!("{store}: the counts of {compared} anomalies are right"),
        Err(error) => {
            println!("{store}: FAILED: {error}");
            return false;
        }
    }
    target.first_failure().is_none()
}

fn save(results: &serde_json::Value) -> Outcome<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/results");
    fs::create_dir_all(&dir)?;
    let file = dir.join("soak.json");
    fs::write(&file, serde_json::to_string_pretty(results)?)?;
    println!("written: {}", file.display());
    Ok(())
}
