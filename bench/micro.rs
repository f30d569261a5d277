//! Micro-benchmarks of the steps of a request: `make bench-micro`.
#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(clippy::unwrap_used, reason = "what can't be set up ends the run")]

use std::hint::black_box;

use anomaly_counter::{
    config::LoadedConfig,
    domain::{AskedPeriod, EventId, HistoryPeriod, Signature, Timeline, TimelineConfig, Timestamp},
};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use mimalloc::MiMalloc;
use serde_json::{Map, Value};

/// The same allocator as the service's.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const BODY: &str = r#"{"alert_name":"Bench","service":"svc-1","namespace":"prod","error_type":"OOMKilled","pod":"svc-1-7d9f8b6c5d-x2x8z","node":"node-3"}"#;
const NOW: &str = "2026-11-22T14:21:22.587413Z";
fn hashing(criterion: &mut Criterion) {
    let fields: Map<String, Value> = serde_json::from_str(BODY).unwrap();
    let signature = Signature::from_fields(&fields).unwrap();
    criterion.bench_function("signature: key", |bencher| {
        bencher.iter(|| black_box(&signature).key());
    });
    criterion.bench_function("signature: fields to key", |bencher| {
        bencher.iter(|| Signature::from_fields(black_box(&fields)).unwrap().key());
    });
    criterion.bench_function("event id: unique and its digest", |bencher| {
        bencher.iter(|| EventId::unique().digest());
    });
}

fn parsing(criterion: &mut Criterion) {
    let value: Value = serde_json::from_str(BODY).unwrap();
    let now = Timestamp::parse_rfc3339(NOW).unwrap();
    criterion.bench_function("timestamp: parse", |bencher| {
        bencher.iter(|| Timestamp::parse_rfc3339(black_box(NOW)));
    });
    criterion.bench_function("timestamp: print", |bencher| {
        bencher.iter(|| black_box(now).to_string());
    });
    criterion.bench_function("body: parse", |bencher| {
        bencher.iter(|| serde_json::from_str::<Value>(black_box(BODY)));
    });
    criterion.bench_function("body: print", |bencher| {
        bencher.iter(|| serde_json::to_string(black_box(&value)));
    });
}

/// Returns a timeline of `events` over the last 29 days, and the time after them.
fn timeline_of(events: i64, config: TimelineConfig) -> (Timeline, Timestamp) {
    let now = Timestamp::parse_rfc3339(NOW).unwrap();
    let mut timeline = Timeline::default();
    for number in 0..events {
        let ago = 29 * 86_400 * (events - number) / events;
        timeline.insert(now, now.minus_seconds(ago), EventId::unique().digest(), config);
    }
    (timeline, now)
}

fn timelines(criterion: &mut Criterion) {
    let config = LoadedConfig::load(None).unwrap().config.timeline;
    // As many events as are kept exactly by default, and so many that nearly all are rolled up.
    for (name, events) in [("10,000", 10_000), ("1,000,000", 1_000_000)] {
        let (timeline, now) = timeline_of(events, config);
        criterion.bench_function(&format!("timeline of {name}: counts"), |bencher| {
            bencher.iter(|| black_box(&timeline).counts(now));
        });
        let mut growing = timeline;
        // The timeline grows and rolls up events, so each insertion includes a share of that work.
        criterion.bench_function(&format!("timeline of {name}: insert at the end"), |bencher| {
            let next = || EventId::unique().digest();
            let insert = |id| growing.insert(now, now, id, config);
            bencher.iter_batched(next, insert, BatchSize::SmallInput);
        });
    }
}

/// Measures histories of a week in hours, of timelines with the events of 29 days.
fn histories(criterion: &mut Criterion) {
    let config = LoadedConfig::load(None).unwrap().config.timeline;
    for (name, events) in
        [("100", 100), ("1,000", 1_000), ("10,000", 10_000), ("1,000,000", 1_000_000)]
    {
        let (timeline, now) = timeline_of(events, config);
        let asked = AskedPeriod::Window("7d".parse().unwrap());
        let period = HistoryPeriod::new(now, asked, None).unwrap();
        criterion.bench_function(&format!("timeline of {name}: history"), |bencher| {
            bencher.iter(|| {
                let counts = black_box(&timeline).counts_since(now, &period.times());
                period.buckets(&counts, None)
            });
        });
    }
}

criterion_group!(benches, hashing, parsing, timelines, histories);
criterion_main!(benches);
