//! The machine and the programs of a run.

use std::{fmt, fs, process::Command, thread, time::Duration};

use serde::Serialize;

use crate::{Outcome, process::output};

/// Facts without which two runs can't be compared.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    redis: String,
    /// The version, if it is installed: not every tool needs it.
    wrk: Option<String>,
    commit: String,
    /// The load of the cores by other programs before the run, in percent.
    busy_percent: f64,
}

/// Above this load, other programs disturb the results.
const QUIET_PERCENT: f64 = 5.0;
const LOOK: Duration = Duration::from_secs(1);

impl Machine {
    /// Returns true if other programs use the machine.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy_percent > QUIET_PERCENT
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, kernel, redis, wrk, commit, busy_percent } = self;
        write!(
            f,
            "{cores} cores of {cpu}, {busy_percent:.0} % busy before, Linux {kernel}, \
             Redis {redis}, "
        )?;
        if let Some(wrk) = wrk {
            write!(f, "wrk {wrk}, ")?;
        }
        write!(f, "commit {commit}")
    }
}

pub(crate) fn facts() -> Outcome<Machine> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let cpu = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let redis = output("redis-server", &["--version"])?;
    let redis = redis.split_whitespace().find_map(|word| word.strip_prefix("v="));
    Ok(Machine {
        cpu: cpu.map_or("an unnamed CPU", |(_, name)| name).to_owned(),
        cores: thread::available_parallelism()?.get(),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        redis: redis.unwrap_or("of an unknown version").to_owned(),
        wrk: wrk_version(),
        commit: commit().unwrap_or_else(|_| "unknown".to_owned()),
        busy_percent: busy_percent()?,
    })
}

/// Measures the share of all cores' time that is not idle in one [`LOOK`].
fn busy_percent() -> Outcome<f64> {
    let before = CoreTime::read()?;
    thread::sleep(LOOK);
    let after = CoreTime::read()?;
    let (idle, all) = (after.idle - before.idle, after.all - before.all);
    Ok(100.0 * (1.0 - idle / all))
}

/// Ticks since the machine was started: the first line of /proc/stat, see proc(5).
struct CoreTime {
    idle: f64,
    all: f64,
}

impl CoreTime {
    fn read() -> Outcome<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().unwrap_or_default();
        // User, nice, system, idle, waiting for a disk, and so on; guests are in user already.
        let ticks: Vec<f64> =
            line.split_whitespace().skip(1).take(8).map(str::parse).collect::<Result<_, _>>()?;
        let idle = ticks.iter().skip(3).take(2).sum();
        Ok(Self { idle, all: ticks.iter().sum() })
    }
}

fn commit() -> Outcome<String> {
    let changed = output("git", &["status", "--porcelain", "--untracked-files=no"])?;
    let commit = output("git", &["rev-parse", "--short", "HEAD"])?;
    let suffix = if changed.is_empty() { "" } else { " with changes" };
    Ok(format!("{}{suffix}", commit.trim()))
}

/// Parses `wrk debian/4.1.0-3+b2 [epoll] …`. `wrk --version` ends with a failure.
fn wrk_version() -> Option<String> {
    let printed = Command::new("wrk").arg("--version").output().ok()?.stdout;
    let text = String::from_utf8_lossy(&printed);
    Some(text.split_whitespace().nth(1).unwrap_or("of an unknown version").to_owned())
}
