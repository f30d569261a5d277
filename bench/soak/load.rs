//! Callers at a steady pace: first they record new anomalies, then they record, read and repair
//! random ones, and for ten seconds of each minute one anomaly has a storm.

use std::{
    sync::atomic::Ordering,
    thread::{Scope, ScopedJoinHandle},
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;

use crate::{
    http::{get, post, send},
    pace::Pace,
    target::{Caller, Occurrences, Target, anomaly},
};

/// The maximum length of an array.
const FILL_ARRAY_LENGTH: usize = 1_000;
const FILLERS: usize = 2;
/// Pace of the fill-up: if the service keeps up, a million anomalies are known within a minute.
const FILL_PER_SECOND: f64 = 20_000.0;

const CALLERS: usize = 4;
const ARRAY_LENGTH: usize = 100;
/// The number of anomalies with repairs and fixes: few, because each takes more memory than a quiet
/// one.
const REPAIRED: usize = 100;

/// Calls for each 1,000 occurrences, which are half single and half in arrays.
const MIX: [(Call, u32); 7] = [
    (Call::Record, 500),
    (Call::RecordArray, 5),
    (Call::Frequency, 250),
    (Call::Anomaly, 50),
    (Call::Repair, 4),
    (Call::MarkFixed, 2),
    (Call::UnmarkFixed, 2),
];
const OCCURRENCES: f64 = 1_000.0;

const STORM_CALLERS: usize = 2;
/// Factor by which a storm exceeds the pace.
const STORM_FACTOR: f64 = 10.0;
/// The beginning and the end of a storm within each minute.
const STORM_BEGIN_SECONDS: u64 = 20;
const STORM_END_SECONDS: u64 = 30;
const CALM_LOOK: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug)]
enum Call {
    Record,
    RecordArray,
    Frequency,
    Anomaly,
    Repair,
    MarkFixed,
    UnmarkFixed,
}

/// The load on all targets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load<'a> {
    pub(crate) targets: &'a [Target],
    /// Occurrences a second on each target, without storms.
    pub(crate) pace: u32,
}

/// Ends the load when it is dropped.
#[derive(Debug)]
pub(crate) struct Ending<'a>(&'a [Target]);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        for target in self.0 {
            target.must_end.store(true, Ordering::Relaxed);
        }
    }
}

impl<'a> Load<'a> {
    pub(crate) fn ending(&self) -> Ending<'a> {
        Ending(self.targets)
    }

    /// Records new anomalies until there are enough, or until `deadline`.
    pub(crate) fn fill<'s>(
        self,
        scope: &'s Scope<'s, '_>,
        deadline: Instant,
    ) -> Vec<ScopedJoinHandle<'s, ()>>
    where
        'a: 's,
    {
        let fillers = self.targets.iter().flat_map(|target| [target; FILLERS]);
        fillers.map(|target| scope.spawn(move || fill(target, deadline))).collect()
    }

    /// Starts the mix and the storms.
    pub(crate) fn begin<'s>(self, scope: &'s Scope<'s, '_>)
    where
        'a: 's,
    {
        let pace = f64::from(self.pace);
        let begun = Instant::now();
        for target in self.targets {
            for seed in 0..CALLERS as u64 {
                scope.spawn(move || mix(target, pace / CALLERS as f64, seed));
            }
            for _ in 0..STORM_CALLERS {
                scope.spawn(move || {
                    storms(target, pace * STORM_FACTOR / STORM_CALLERS as f64, begun);
                });
            }
        }
    }
}

fn fill(target: &Target, deadline: Instant) {
    let mut caller = Caller::new(target);
    let arrays_per_second = FILL_PER_SECOND / FILL_ARRAY_LENGTH as f64;
    let mut pace = Pace::per_second(arrays_per_second / FILLERS as f64);
    while Instant::now() < deadline && !has_ended(target) {
        pace.wait();
        let numbers = target.take_unknown(FILL_ARRAY_LENGTH);
        if numbers.is_empty() {
            return;
        }
        target.record(&mut caller, Occurrences::First(&numbers));
    }
}

fn mix(target: &Target, occurrences_per_second: f64, seed: u64) {
    let all: u32 = MIX.iter().map(|(_, calls)| calls).sum();
    let mut pace = Pace::per_second(occurrences_per_second * f64::from(all) / OCCURRENCES);
    let mut random = StdRng::seed_from_u64(seed);
    let mut caller = Caller::new(target);
    while !has_ended(target) {
        pace.wait();
        let mut drawn = random.random_range(0..all);
        for (call, calls) in MIX {
            if drawn < calls {
                make(call, target, &mut caller, &mut random);
                break;
            }
            drawn -= calls;
        }
    }
}

fn make(call: Call, target: &Target, caller: &mut Caller<'_>, random: &mut StdRng) {
    let known = target.known();
    let mut any = || random.random_range(0..known);
    let number = any();
    let key = anomaly(number).key();
    let repaired = anomaly(number % REPAIRED).key();
    let request = match call {
        Call::Record => return target.record(caller, Occurrences::Spread(&[number])),
        Call::RecordArray => {
            let numbers: Vec<usize> = (0..ARRAY_LENGTH).map(|_| any()).collect();
            return target.record(caller, Occurrences::Spread(&numbers));
        }
        Call::Frequency => get(&format!("/anomalies/{key}/frequency")),
        Call::Anomaly => get(&format!("/anomalies/{key}")),
        Call::Repair => {
            let success = number % 2 == 0;
            let body =
                json!({"anomaly_key": repaired, "action": "restart_pod", "success": success});
            post("/repairs", &body.to_string())
        }
        Call::MarkFixed => {
            let body = json!({"anomaly_key": repaired, "fix_description": "raised the limit"});
            send("PUT", "/permanent-fix", &body.to_string())
        }
        Call::UnmarkFixed => send("DELETE", &format!("/permanent-fix/{repaired}"), ""),
    };
    caller.call(&request, true);
}

fn storms(target: &Target, occurrences_per_second: f64, begun: Instant) {
    let mut caller = Caller::new(target);
    let arrays_per_second = occurrences_per_second / ARRAY_LENGTH as f64;
    let mut pace = Pace::per_second(arrays_per_second);
    while !has_ended(target) {
        if is_storm(begun.elapsed()) {
            pace.wait();
            target.record(&mut caller, Occurrences::Hot(ARRAY_LENGTH));
        } else {
            std::thread::sleep(CALM_LOOK);
            pace = Pace::per_second(arrays_per_second);
        }
    }
}

/// Returns true during a storm. `elapsed` is the time since the start of the steady load.
fn is_storm(elapsed: Duration) -> bool {
    (STORM_BEGIN_SECONDS..STORM_END_SECONDS).contains(&(elapsed.as_secs() % 60))
}

fn has_ended(target: &Target) -> bool {
    target.must_end.load(Ordering::Relaxed)
}
