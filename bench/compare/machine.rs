//! The machine and the programs that the figures come from.

use std::{fmt, fs, process::Command, thread};

use serde::Serialize;

use crate::{Outcome, process::output};

/// Without these, two runs can't be compared.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    redis: String,
    wrk: String,
    commit: String,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, kernel, redis, wrk, commit } = self;
        write!(
            f,
            "{cores} cores of {cpu}, Linux {kernel}, Redis {redis}, wrk {wrk}, commit {commit}"
        )
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
        wrk: wrk_version()?,
        commit: commit().unwrap_or_else(|_| "unknown".to_owned()),
    })
}

fn commit() -> Outcome<String> {
    let changed = output("git", &["status", "--porcelain", "--untracked-files=no"])?;
    let commit = output("git", &["rev-parse", "--short", "HEAD"])?;
    let suffix = if changed.is_empty() { "" } else { " with changes" };
    Ok(format!("{}{suffix}", commit.trim()))
}

/// `wrk debian/4.1.0-3+b2 [epoll] …`, which it ends with a failure, since nothing is to be done.
fn wrk_version() -> Outcome<String> {
    let printed = Command::new("wrk").arg("--version").output()?.stdout;
    let text = String::from_utf8_lossy(&printed);
    Ok(text.split_whitespace().nth(1).unwrap_or("of an unknown version").to_owned())
}
