//! Histories: buckets of occurrences over time, against a naive count, on every store and by
//! `GET /anomalies/{key}/history`.

use std::sync::Arc;

use anomaly_counter::{
    domain::{
        AnomalyKey, AskedPeriod, COARSE_BUCKET_SECONDS, HistoryPeriod, HistoryStep, Timestamp,
        Window,
    },
    store::{AnomalyHistory, Store},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::support::{
    EXACT_EVENTS, Fixture, RedisServer, Service, eventually, fix_mark, healthy_again, key_of,
    occurrence, over_every_store, start_of_tests, wall_clock,
};

/// Number of exact events: so few that most events of a history are rolled up.
const FEW_EXACT_EVENTS: u32 = 10;

mod with_few_exact_events {
    use super::*;

    over_every_store!(
        FEW_EXACT_EVENTS;
        rolled_up_counts_are_those_of_a_naive_count_or_say_that_they_are_not,
        hours_of_rolled_up_events_are_exact,
        what_has_left_is_in_no_bucket,
    );
}

mod with_all_events_exact {
    use super::*;

    over_every_store!(
        EXACT_EVENTS;
        exact_counts_are_those_of_a_naive_count,
        an_event_on_the_edge_of_a_bucket_is_in_the_later_one,
        a_history_has_the_audit_and_an_unknown_anomaly_has_none,
        the_events_of_many_buckets_and_of_long_timelines_are_counted,
    );
}

fn key(bits: u64) -> AnomalyKey {
    AnomalyKey::from_bits(bits)
}

async fn history(
    store: &Arc<dyn Store>,
    now: Timestamp,
    bits: u64,
    times: &[Timestamp],
) -> AnomalyHistory {
    store.history(now.into(), key(bits), times).await.unwrap().unwrap()
}

/// Records events at random times of the last twenty days, some of them late. Returns the time of
/// the last one and the times of all.
async fn record_at_random(
    store: &Arc<dyn Store>,
    bits: u64,
    random: &mut StdRng,
) -> (Timestamp, Vec<Timestamp>) {
    let begin = start_of_tests();
    let length_micros = random.random_range(3_600..20 * 86_400) * 1_000_000;
    let count = random.random_range(1..400);
    let mut times: Vec<Timestamp> = (0..count)
        .map(|_| Timestamp::from_micros(begin.as_micros() + random.random_range(0..length_micros)))
        .collect();
    times.sort_unstable();
    for _ in 0..count / 10 {
        let (a, b) = (random.random_range(0..count), random.random_range(0..count));
        times.swap(a, b);
    }
    let mut now = begin;
    for (number, batch) in times.chunks(random.random_range(1..40)).enumerate() {
        now = now.max(*batch.iter().max().unwrap());
        let events = batch.iter().enumerate();
        let events = events.map(|(index, at)| occurrence(bits, &format!("{number}-{index}"), *at));
        let results = store.record(now.into(), events.collect()).await;
        assert!(results.iter().all(Result::is_ok));
    }
    (now, times)
}

fn since(times: &[Timestamp], time: Timestamp) -> u64 {
    times.iter().filter(|at| **at >= time).count() as u64
}

fn any_period(random: &mut StdRng, now: Timestamp) -> HistoryPeriod {
    loop {
        let step = HistoryStep::ALL[random.random_range(0..HistoryStep::ALL.len())];
        let asked = if random.random_bool(0.5) {
            let hours = random.random_range(1..=720);
            AskedPeriod::Window(format!("{hours}h").parse().unwrap())
        } else {
            let [a, b] = [(); 2].map(|()| now.minus_seconds(random.random_range(0..29 * 86_400)));
            AskedPeriod::Between(a.min(b), a.max(b))
        };
        if let Ok(period) = HistoryPeriod::new(now, asked, Some(step)) {
            return period;
        }
    }
}

/// Compares the history of a period with a naive count. Returns the number of buckets that are
/// marked as not exact.
async fn check_period(
    store: &Arc<dyn Store>,
    now: Timestamp,
    bits: u64,
    all: &[Timestamp],
    period: &HistoryPeriod,
) -> usize {
    let times = period.times();
    assert!(times.is_sorted_by(|a, b| a < b));
    let history = history(store, now, bits, &times).await;
    assert_eq!(history.counts.len(), times.len());
    for (time, found) in times.iter().zip(&history.counts) {
        let least = since(all, *time);
        let hour = time.as_micros().rem_euclid(COARSE_BUCKET_SECONDS * 1_000_000);
        let most = since(all, Timestamp::from_micros(time.as_micros() - hour));
        let most = if found.is_approximate { most } else { least };
        assert!((least..=most).contains(&found.count), "{time}: {found:?}, {least} to {most}");
    }
    let buckets = period.buckets(&history.counts, history.known_since);
    let mut end = period.start();
    let mut inexact = 0;
    for bucket in &buckets {
        assert_eq!(bucket.start, end, "they follow each other without a gap");
        end = end.plus_seconds(period.step().seconds()).min(period.end());
        if !bucket.is_exact {
            inexact += 1;
            continue;
        }
        let behind = if end < now { since(all, end) } else { 0 };
        assert_eq!(bucket.count, since(all, bucket.start) - behind, "{bucket:?}");
        let day = since(all, Window::Day.start(end)) - behind;
        assert_eq!(bucket.count_24h, Some(day), "{bucket:?}");
    }
    assert_eq!(end, period.end());
    inexact
}

async fn check_random_histories(store: Arc<dyn Store>) -> usize {
    let mut inexact = 0;
    for seed in 0..6 {
        let mut random = StdRng::seed_from_u64(seed);
        let (now, all) = record_at_random(&store, seed, &mut random).await;
        for _ in 0..12 {
            let later = now.plus_seconds(random.random_range(0..9 * 86_400));
            let period = any_period(&mut random, later);
            inexact += check_period(&store, later, seed, &all, &period).await;
        }
    }
    inexact
}

async fn exact_counts_are_those_of_a_naive_count(fixture: impl Fixture) {
    assert_eq!(check_random_histories(fixture.store()).await, 0);
}

async fn rolled_up_counts_are_those_of_a_naive_count_or_say_that_they_are_not(
    fixture: impl Fixture,
) {
    assert!(check_random_histories(fixture.store()).await > 0);
}

async fn hours_of_rolled_up_events_are_exact(fixture: impl Fixture) {
    let store = fixture.store();
    let mut random = StdRng::seed_from_u64(7);
    let (now, all) = record_at_random(&store, 7, &mut random).await;
    let asked = AskedPeriod::Between(now.minus_seconds(28 * 86_400), now.minus_seconds(3_600));
    let step = "1h".parse().unwrap();
    let period = HistoryPeriod::new(now, asked, Some(step)).unwrap();
    let inexact = check_period(&store, now, 7, &all, &period).await;
    // The last bucket ends within an hour, and so do its 24 hours.
    assert!(inexact <= 1, "{inexact} are not exact");
}

/// Events that have expired are in no bucket: the oldest have left by the time of the last ones,
/// and the roll-up still has their number.
async fn what_has_left_is_in_no_bucket(fixture: impl Fixture) {
    let (store, begin) = (fixture.store(), start_of_tests());
    let mut times = Vec::new();
    for number in 0..200_i64 {
        let at = begin.plus_seconds(number * 6 * 3_600);
        store.record(at.into(), vec![occurrence(1, &number.to_string(), at)]).await;
        times.push(at);
    }
    let now = *times.last().unwrap();
    let month = since(&times, Window::Month.start(now));
    let period =
        HistoryPeriod::new(now, AskedPeriod::Window("30d".parse().unwrap()), None).unwrap();
    let found = history(&store, now, 1, &period.times()).await;
    let buckets = period.buckets(&found.counts, found.known_since);
    assert_eq!(buckets.len(), 120);
    let unknown = buckets.iter().take_while(|bucket| bucket.count_24h.is_none()).count();
    assert!((3..=4).contains(&unknown), "{unknown}: their 24 hours began 30 days ago");
    assert!(buckets[unknown..].iter().all(|bucket| bucket.count_24h.is_some()));
    let exact: Vec<_> = buckets.iter().filter(|bucket| bucket.is_exact).collect();
    assert!(exact.len() > 110 && exact.iter().all(|bucket| bucket.count == 1));
    let total: u64 = buckets.iter().map(|bucket| bucket.count).sum();
    assert!((month - 1..=month).contains(&total), "{total} of {month}");
}

async fn an_event_on_the_edge_of_a_bucket_is_in_the_later_one(fixture: impl Fixture) {
    let store = fixture.store();
    let noon = Timestamp::parse_rfc3339("2024-11-22T12:00:00Z").unwrap();
    let now = noon.plus_seconds(600);
    let before = Timestamp::from_micros(noon.as_micros() - 1);
    for (id, at) in [("before", before), ("on", noon), ("now", now)] {
        store.record(now.into(), vec![occurrence(1, id, at)]).await;
    }
    let asked = AskedPeriod::Window("2h".parse().unwrap());
    let period = HistoryPeriod::new(now, asked, Some("1h".parse().unwrap())).unwrap();
    assert_eq!((period.start(), period.end()), (noon.minus_seconds(3_600), now));
    let found = history(&store, now, 1, &period.times()).await;
    let counts: Vec<_> = period
        .buckets(&found.counts, found.known_since)
        .iter()
        .map(|bucket| (bucket.count, bucket.count_24h))
        .collect();
    assert_eq!(counts, [(1, Some(1)), (2, Some(3))]);
}

async fn a_history_has_the_audit_and_an_unknown_anomaly_has_none(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    assert_eq!(store.history(now.into(), key(1), &[now]).await, Ok(None));
    store.record(now.into(), vec![occurrence(1, "a", now)]).await;
    store.mark_fixed(now.into(), fix_mark(1, "mark", now)).await.unwrap();
    let found = history(&store, now, 1, &[now.minus_seconds(60), now]).await;
    assert_eq!(found.known_since, Some(now));
    assert_eq!(found.counts.iter().map(|since| since.count).collect::<Vec<_>>(), [1, 1]);
    let audit = store.audit(now.into(), key(1)).await.unwrap().unwrap();
    assert_eq!(audit.len(), 1);
    assert_eq!(found.audit, audit);
}

/// Counts more events than one command reads, in as many buckets as there may be.
async fn the_events_of_many_buckets_and_of_long_timelines_are_counted(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    let at = |number: i64| now.minus_seconds(number * 400);
    let all: Vec<Timestamp> = (0..700).rev().map(at).collect();
    let events = all.iter().enumerate();
    let events = events.map(|(number, at)| occurrence(1, &number.to_string(), *at)).collect();
    store.record(now.into(), events).await;
    let asked = AskedPeriod::Between(now.minus_seconds(999 * 300), now);
    let period = HistoryPeriod::new(now, asked, Some("5m".parse().unwrap())).unwrap();
    assert_eq!(check_period(&store, now, 1, &all, &period).await, 0);
}

/// Posts an occurrence of `HighCPU` of this many seconds ago.
async fn post_ago(service: &Service, seconds: i64) {
    let at = wall_clock().minus_seconds(seconds).to_string();
    service.post("/anomalies", &json!({"alert_name": "HighCPU", "occurred_at": at})).await.ok();
}

fn path(query: &str) -> String {
    format!("/anomalies/{}/history{query}", key_of("HighCPU"))
}

#[tokio::test]
async fn a_history_says_what_happened_and_what_was_done() {
    for service in both_services().await {
        for hours in [30, 29, 3, 2, 1] {
            post_ago(&service.1, hours * 3_600).await;
        }
        let service = &service.1;
        let key = key_of("HighCPU").to_string();
        let repair = json!({"anomaly_key": key, "action": "restart_pod", "success": false});
        service.post("/repairs", &repair).await.ok();
        let fix = json!({"anomaly_key": key, "fix_description": "raised the limit",
                         "fixed_by": "ops"});
        service.put("/permanent-fix", &fix).await.ok();

        let history = service.get(&path("?window=7d&step=1h")).await.ok();
        assert_eq!(history["anomaly_key"], key);
        assert_eq!(history["step_seconds"], 3_600);
        assert_eq!(history["total"], 5);
        assert_eq!(history["degraded"], false);
        let buckets = history["buckets"].as_array().unwrap();
        assert_eq!(buckets.len(), 168);
        assert_eq!(buckets[0]["start"], history["from"]);
        let last = &buckets[167];
        let frequency = service.get(&format!("/anomalies/{key}/frequency")).await.ok();
        assert_eq!(last["count_24h"], frequency["count_24h"]);
        assert_eq!(last["count_24h"], 3);
        assert_eq!(buckets[0]["count_24h"], 0, "it was not known then");
        let total: u64 = buckets.iter().map(|bucket| bucket["count"].as_u64().unwrap()).sum();
        assert_eq!(total, 5);
        assert!(buckets.iter().all(|bucket| bucket.get("exact").is_none()), "{history}");
        let kinds: Vec<&Value> =
            history["events"].as_array().unwrap().iter().map(|event| &event["event"]).collect();
        assert_eq!(kinds, ["repair_attempted", "marked_fixed"], "oldest first");
        assert_eq!(history["events"][1]["by"], "ops");
        assert_eq!(
            history["bands"],
            json!([{"level": "REPEAT", "condition": "3 in 24h"},
                   {"level": "ESCALATE", "condition": "5 in 24h"},
                   {"level": "PERMANENT_FIX", "condition": "10 in 24h"}])
        );
        let day = service.get(&path("")).await.ok();
        assert_eq!((&day["step_seconds"], &day["total"]), (&json!(900), &json!(3)));
        assert_eq!(day["buckets"].as_array().unwrap().len(), 96);
    }
}

/// Starts a service on the embedded store, and one on Redis.
async fn both_services() -> [(Option<RedisServer>, Service); 2] {
    let redis = RedisServer::start();
    let on_redis = Service::on_redis(&redis).await;
    [(None, Service::embedded().await), (Some(redis), on_redis)]
}

#[tokio::test]
async fn a_history_from_and_to_has_the_given_ends() {
    let service = Service::embedded().await;
    for minutes in [200, 130, 70, 10] {
        post_ago(&service, minutes * 60).await;
    }
    let ago = |minutes: i64| wall_clock().minus_seconds(minutes * 60).to_string();
    let query = format!("?from={}&to={}&step=5m", ago(140), ago(60));
    let past = service.get(&path(&query)).await.ok();
    assert_eq!(past["total"], 2, "{past}");
    let buckets = past["buckets"].as_array().unwrap();
    assert_eq!(buckets.last().unwrap()["count_24h"], 3);
    // The part outside of the retention is left out.
    let query = format!("?from={}&to={}", ago(60 * 24 * 60), ago(-60));
    let all = service.get(&path(&query)).await.ok();
    assert_eq!(all["total"], 4);
    assert_eq!(all["step_seconds"], 21_600);
}

#[tokio::test]
async fn an_impossible_history_is_refused_with_a_remedy() {
    let service = Service::embedded().await;
    post_ago(&service, 0).await;
    let refused = async |query: &str, field: &str, detail: &str| {
        let answer = service.get(&path(query)).await;
        assert_eq!(answer.body["field"], field, "{query}: {}", answer.body);
        let found = answer.problem(422);
        assert!(found.contains(detail), "{query}: {found}");
    };
    let too_many = "gives 2016 buckets, and the limit is 1000: 15m is the smallest";
    refused("?window=7d&step=5m", "step", too_many).await;
    refused("?window=30d&step=30m", "step", "1h is the smallest").await;
    refused("?step=7m", "step", "one of 5m, 15m, 30m").await;
    for window in ["59m", "31d", "7", "h", "-7d", "1w", "99999999999999999999d"] {
        refused(&format!("?window={window}"), "window", "from 1h to 30d").await;
    }
    refused("?from=yesterday", "from", "RFC 3339").await;
    refused("?to=2026-11-22T14:21:22Z", "from", "is missing").await;
    refused("?window=7d&from=2026-11-22T14:21:22Z", "window", "give one of the two").await;
    refused("?from=2020-01-01T00:00:00Z&to=2020-02-01T00:00:00Z", "from", "30 days").await;
    let swapped = format!("?from={}&to={}", wall_clock(), wall_clock().minus_seconds(60));
    refused(&swapped, "from", "earlier than `to`").await;
    refused("?steps=1h", "steps", "is unknown").await;
    refused("?step=1h&step=2h", "step", "more than once").await;
    service.get("/anomalies/0000000000000000/history").await.problem(404);
    service.get("/anomalies/HighCPU/history").await.problem(400);
}

#[tokio::test]
async fn a_history_is_refused_in_an_outage_and_a_lower_bound_while_writes_wait() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    post_ago(&service, 60).await;
    assert_eq!(service.get(&path("")).await.ok()["total"], 1);
    redis.kill();
    let refused = service.get(&path("")).await;
    assert!(refused.headers.contains_key("retry-after"));
    refused.problem(503);
    let waits = json!({"alert_name": "HighCPU", "event_id": "waits"});
    assert_eq!(service.post("/anomalies", &waits).await.status, 202);
    service.get(&path("")).await.problem(503);
    redis.restart();
    healthy_again(&service).await;
    let history = eventually("what waited is in it", || async {
        let history = service.get(&path("")).await.ok();
        (history["degraded"] == false).then_some(history)
    })
    .await;
    assert_eq!(history["total"], 2, "one was sent again");
}
