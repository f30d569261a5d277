//! `tests/data/rollup_vectors.json`: the expected results of both implementations of the roll-up,
//! the one in Lua (`rollup.lua`) and the one in Rust (`domain/rollup.rs`). Times are in seconds
//! after `base`.

use anomaly_counter::{
    domain::{AnomalyKey, AnomalyStats, Timestamp, WindowCounts},
    store::RecordOutcome,
};
use serde::Deserialize;

use crate::support::{EmbeddedFixture, Fixture, RedisFixture, occurrence};

const VECTORS: &str = include_str!("../data/rollup_vectors.json");
const KEY: u64 = 0xb119_b2ed_aa9f_b08c;

#[derive(Deserialize)]
struct Vectors {
    base: i64,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    exact_events: u32,
    steps: Vec<Step>,
}

/// Events that are recorded by one call, if any, and the stats after it.
#[derive(Deserialize)]
struct Step {
    now: f64,
    events: Vec<(String, f64)>,
    outcomes: Vec<String>,
    stats: Stats,
}

#[derive(Deserialize)]
struct Stats {
    hour: u64,
    day: u64,
    week: u64,
    month: u64,
    exact: bool,
    first: Option<f64>,
    last: Option<f64>,
}

impl Vectors {
    fn time(&self, seconds: f64) -> Timestamp {
        Timestamp::from_micros(self.base * 1_000_000 + (seconds * 1e6).round() as i64)
    }

    fn stats(&self, stats: &Stats) -> AnomalyStats {
        let Stats { hour, day, week, month, exact, first, last } = *stats;
        AnomalyStats {
            counts: WindowCounts { hour, day, week, month },
            is_approximate: !exact,
            first_seen: first.map(|first| self.time(first)),
            last_seen: last.map(|last| self.time(last)),
            ..AnomalyStats::default()
        }
    }
}

fn name(outcome: RecordOutcome) -> &'static str {
    match outcome {
        RecordOutcome::Counted => "counted",
        RecordOutcome::Duplicate => "duplicate",
        RecordOutcome::TooOld => "too_old",
        RecordOutcome::Unrecognisable => "unrecognisable",
        of_alert => panic!("{of_alert:?} of no alert"),
    }
}

async fn does_as_the_vectors_say<F: Fixture>() {
    let vectors: Vectors = serde_json::from_str(VECTORS).unwrap();
    for case in &vectors.cases {
        let mut fixture = F::keeping(case.exact_events).await;
        for (number, step) in case.steps.iter().enumerate() {
            let (store, now) = (fixture.store(), vectors.time(step.now));
            let events = step.events.iter();
            let events = events.map(|(id, at)| occurrence(KEY, id, vectors.time(*at))).collect();
            let recorded = store.record(now.into(), events).await.into_iter();
            let outcomes: Vec<_> = recorded.map(|r| name(r.unwrap().outcome)).collect();
            assert_eq!(outcomes, step.outcomes, "{}, step {number}", case.name);
            let stats =
                store.stats(now.into(), vec![AnomalyKey::from_bits(KEY)]).await.pop().unwrap();
            let expected = vectors.stats(&step.stats);
            assert_eq!(stats.unwrap(), Some(expected), "{}, step {number}", case.name);
            if number % 5 == 4 {
                drop(store);
                fixture.reopen().await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roll_up_in_rust_does_as_the_vectors_say() {
    does_as_the_vectors_say::<EmbeddedFixture>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roll_up_in_lua_does_as_the_vectors_say() {
    does_as_the_vectors_say::<RedisFixture>().await;
}
