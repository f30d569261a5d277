//! The faults and their times: a plan that follows from the seed.

use std::{fmt, time::Duration};

use rand::{Rng, RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::Topology;

/// A fault. The first number is the index of the instance or node that it hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    RedisPaused(usize),
    RedisKilled(usize),
    ScriptsForgotten(usize),
    WritesRefused(usize, Refusal),
    ConnectionsCut(usize),
    ConnectionsHalfClosed(usize),
    ConnectionsStranded(usize),
    NetworkSlow(usize, Duration),
    RepliesLost(usize),
    BlackHole(usize),
    ServiceKilled(usize),
    /// Ended by SIGTERM, and started again later.
    ServiceStopped(usize),
    DiskFull(usize),
    /// fsync hangs.
    DiskHangs(usize),
    DataDirMoved(usize),
    /// The wall clock jumps by this offset, and later back.
    ClockJumps(usize, &'static str),
}

const DISK_FULL: &str = "disk full";
const DISK_HANGS: &str = "disk hangs";
const DATA_DIR_MOVED: &str = "data_dir moved";

/// The names of the faults during which a write may be refused.
pub(crate) const REASONS_TO_REFUSE: [&str; 3] = [DISK_FULL, DISK_HANGS, DATA_DIR_MOVED];

/// The reason for which a Redis that answers refuses all writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is demoted to a replica.
    Readonly,
    /// It is at `maxmemory`.
    Memory,
    /// It has fewer replicas than `min-replicas-to-write`.
    Replicas,
    /// The user may not run a command that the scripts need.
    Permission,
}

impl Fault {
    /// The name of its row in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RedisPaused(_) => "redis paused",
            Self::RedisKilled(_) => "redis killed",
            Self::ScriptsForgotten(_) => "scripts forgotten",
            Self::WritesRefused(_, Refusal::Readonly) => "redis demoted",
            Self::WritesRefused(_, Refusal::Memory) => "redis out of memory",
            Self::WritesRefused(_, Refusal::Replicas) => "too few replicas",
            Self::WritesRefused(_, Refusal::Permission) => "permission lost",
            Self::ConnectionsCut(_) => "connections cut",
            Self::ConnectionsHalfClosed(_) => "connections half closed",
            Self::ConnectionsStranded(_) => "connections stranded",
            Self::NetworkSlow(..) => "network slow",
            Self::RepliesLost(_) => "replies lost",
            Self::BlackHole(_) => "black hole",
            Self::ServiceKilled(_) => "service killed",
            Self::ServiceStopped(_) => "service stopped",
            Self::DiskFull(_) => DISK_FULL,
            Self::DiskHangs(_) => DISK_HANGS,
            Self::DataDirMoved(_) => DATA_DIR_MOVED,
            Self::ClockJumps(..) => "clock jumps",
        }
    }
}

/// A fault with its time from the start of the run, and its length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planned {
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    pub(crate) fault: Fault,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} for {:.1} s", self.fault, self.lasts.as_secs_f64())
    }
}

/// The faults of a run. They may overlap; the last one ends some seconds before the run does.
pub(crate) fn schedule(seed: u64, length: Duration, on: Topology) -> Vec<Planned> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut planned = Vec::new();
    let mut at = Duration::from_secs(2);
    loop {
        let lasts = Duration::from_millis(random.random_range(300..5_000));
        if at + lasts + Duration::from_secs(2) > length {
            return planned;
        }
        let fault = match on {
            Topology::Single => single(&mut random),
            Topology::Cluster => cluster(&mut random),
            Topology::Embedded => embedded(&mut random),
        };
        planned.push(Planned { at, lasts, fault });
        // One in three begins while the last one still lasts.
        let share = if random.random_bool(0.33) { 0.5 } else { 1.0 };
        at += lasts.mul_f64(share) + Duration::from_millis(random.random_range(200..2_500));
    }
}

fn single(random: &mut impl Rng) -> Fault {
    use Refusal::{Memory, Permission, Readonly, Replicas};
    let instance = random.random_range(0..2);
    match random.random_range(0..16) {
        0 | 1 => Fault::RedisPaused(0),
        2 | 3 => Fault::RedisKilled(0),
        4 => Fault::ScriptsForgotten(0),
        5 => Fault::ConnectionsCut(instance),
        6 => Fault::ConnectionsHalfClosed(instance),
        7 => Fault::ConnectionsStranded(instance),
        8 => Fault::NetworkSlow(instance, Duration::from_millis(random.random_range(20..900))),
        9 => Fault::RepliesLost(instance),
        10 => Fault::BlackHole(instance),
        11..=13 => {
            let refusals = [Readonly, Memory, Replicas, Permission];
            Fault::WritesRefused(0, refusals[random.random_range(0..refusals.len())])
        }
        _ => other(random, instance),
    }
}

fn cluster(random: &mut impl Rng) -> Fault {
    use Refusal::{Memory, Permission, Replicas};
    let (node, instance) = (random.random_range(0..6), random.random_range(0..2));
    match random.random_range(0..6) {
        0 => Fault::RedisPaused(node),
        1 | 2 => Fault::RedisKilled(node),
        3 => Fault::ScriptsForgotten(node),
        // A node of a cluster can't be demoted by REPLICAOF.
        4 => {
            let refusals = [Memory, Replicas, Permission];
            Fault::WritesRefused(node, refusals[random.random_range(0..refusals.len())])
        }
        _ => other(random, instance),
    }
}

fn embedded(random: &mut impl Rng) -> Fault {
    // Beyond all that is kept, by about an hour, and by as much as NTP may correct.
    const JUMPS: [&str; 6] = ["+40d", "-40d", "+70m", "-70m", "+2m", "-2m"];
    match random.random_range(0..10) {
        0 | 1 => Fault::ServiceKilled(0),
        2 => Fault::ServiceStopped(0),
        3 | 4 => Fault::DiskFull(0),
        5 | 6 => Fault::DiskHangs(0),
        7 => Fault::DataDirMoved(0),
        _ => Fault::ClockJumps(0, JUMPS[random.random_range(0..JUMPS.len())]),
    }
}

fn other(random: &mut impl Rng, instance: usize) -> Fault {
    match random.random_range(0..5) {
        0 | 1 => Fault::ServiceKilled(instance),
        2 => Fault::ServiceStopped(instance),
        _ => Fault::DiskFull(instance),
    }
}
