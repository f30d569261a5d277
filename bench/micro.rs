//! Micro-benchmarks of what every request does: `make bench-micro`.
#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(clippy::unwrap_used, reason = "what can't be set up ends the run")]

use std::hint::black_box;

use anomaly_counter::domain::{EventId, Signature, Timeline, Timestamp};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use serde_json::{Map, Value};

const BODY: &str = r#"{"alert_name":"Bench","service":"svc-1","namespace":"prod","error_type":"OOMKilled","pod":"svc-1-7d9f8b6c5d-x2x8z","node":"node-3"}"#;
const NOW: &str = "2026-11-22T14:21:22.587413Z";
/// As many as a timeline keeps exactly by default.
const EVENTS: i64 = 10_000;

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

/// A timeline of [`EVENTS`] over the last 29 days, and the time after them.
fn long_timeline() -> (Timeline, Timestamp) {
    let now = Timestamp::parse_rfc3339(NOW).unwrap();
    let mut timeline = Timeline::default();
    for number in 0..EVENTS {
        let ago = 29 * 86_400 * (EVENTS - number) / EVENTS;
        timeline.insert(now.minus_seconds(ago), EventId::unique().digest());
    }
    (timeline, now)
}

fn timelines(criterion: &mut Criterion) {
    let (timeline, now) = long_timeline();
    criterion.bench_function("timeline of 10,000: counts", |bencher| {
        bencher.iter(|| black_box(&timeline).counts(now));
    });
    criterion.bench_function("timeline of 10,000: insert at the end", |bencher| {
        let next = || (timeline.clone(), EventId::unique().digest());
        // The timeline is given back, so that the time to drop it is not counted.
        let insert = |(mut timeline, id): (Timeline, _)| {
            timeline.insert(now, id);
            timeline
        };
        bencher.iter_batched(next, insert, BatchSize::LargeInput);
    });
}

criterion_group!(benches, hashing, parsing, timelines);
criterion_main!(benches);
