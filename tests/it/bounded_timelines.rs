//! Anomalies with more events than are kept exactly: their counts, their memory, and what other
//! readers see.

use std::sync::Arc;

use anomaly_counter::{
    domain::{AnomalyKey, AnomalyStats, FINE_BUCKET_SECONDS, Occurrence, Timestamp},
    store::{RecordOutcome, Store},
};
use serde_json::json;

use crate::redis_store::store_keeping;
use crate::support::{
    Fixture, OtherClient, RedisServer, Service, occurrence, over_every_store, start_of_tests,
    wall_clock,
};

const KEY: u64 = 0xb119_b2ed_aa9f_b08c;
const DAY: i64 = 86_400;

/// Records events at these times, with their numbers as ids.
async fn record(store: &Arc<dyn Store>, now: Timestamp, times: &[(u64, Timestamp)]) {
    for batch in times.chunks(500) {
        let batch = batch.iter().map(|(id, at)| occurrence(KEY, &id.to_string(), *at)).collect();
        for result in store.record(now.into(), batch).await {
            assert_eq!(result.unwrap().outcome, RecordOutcome::Counted);
        }
    }
}

async fn stats_at(store: &Arc<dyn Store>, now: Timestamp) -> AnomalyStats {
    let mut stats = store.stats(now.into(), vec![AnomalyKey::from_bits(KEY)]).await;
    stats.pop().unwrap().unwrap().unwrap()
}

/// Returns events at each of `seconds` before now, oldest first.
fn ago(now: Timestamp, seconds: impl Iterator<Item = i64>) -> Vec<(u64, Timestamp)> {
    seconds.enumerate().map(|(id, ago)| (id as u64, now.minus_seconds(ago))).collect()
}

async fn totals_are_exact_and_windows_err_by_one_bucket(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    // One every ten minutes for 29 days, and then one a second for an hour and a half.
    let month = (0..29 * DAY / 600).map(|n| 29 * DAY - n * 600).filter(|ago| *ago > 5_400);
    let times = ago(now, month.chain((0..5_400).rev()));
    record(&store, now, &times).await;
    let since = |seconds: i64| {
        times.iter().filter(|(_, at)| *at >= now.minus_seconds(seconds)).count() as u64
    };
    let stats = stats_at(&store, now).await;
    assert!(stats.is_approximate);
    assert_eq!(stats.counts.month, since(30 * DAY));
    assert_eq!(stats.first_seen, times.first().map(|(_, at)| *at));
    assert_eq!(stats.last_seen, Some(now));
    let beyond = |count: u64, seconds: i64| count - since(seconds);
    assert!(beyond(stats.counts.hour, 3_600) <= FINE_BUCKET_SECONDS as u64, "{stats:?}");
    assert!(beyond(stats.counts.day, DAY) <= 6, "{stats:?}");
    assert!(beyond(stats.counts.week, 7 * DAY) <= 6, "{stats:?}");
    // The events of the last minutes are exact.
    let later = now.plus_seconds(3_000);
    assert_eq!(stats_at(&store, later).await.counts.hour, since(600));
}

over_every_store!(1_000; totals_are_exact_and_windows_err_by_one_bucket);

async fn late_events_are_added_to_their_buckets_once(mut fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    record(&store, now, &ago(now, (0..20 * DAY / 600).map(|n| 20 * DAY - n * 600))).await;
    let before = stats_at(&store, now).await;
    // Late events, from before the oldest rolled-up one to the newest, in no order; the whole batch
    // comes twice.
    let late: Vec<_> = (0..100)
        .map(|n| (n * 791_919) % (24 * DAY) + 3 * DAY)
        .map(|ago| occurrence(KEY, &format!("late-{ago}"), now.minus_seconds(ago)))
        .collect();
    for outcome in [RecordOutcome::Counted, RecordOutcome::Duplicate] {
        for result in store.record(now.into(), late.clone()).await {
            assert_eq!(result.unwrap().outcome, outcome);
        }
    }
    drop(store);
    fixture.reopen().await;
    let store = fixture.store();
    let after = stats_at(&store, now).await;
    assert_eq!(after.counts.month, before.counts.month + 100);
    assert_eq!(after.counts.day, before.counts.day);
    assert_eq!(after.first_seen, late.iter().map(|occurrence| occurrence.at).min());
    let in_week = late.iter().filter(|late| late.at >= now.minus_seconds(7 * DAY)).count() as u64;
    // The bucket that the window's start cuts may add one of the late events, and six of the
    // others.
    let week = after.counts.week - before.counts.week;
    assert!((in_week..=in_week + 2).contains(&week), "{in_week} {week}");
    for result in store.record(now.into(), late).await {
        assert_eq!(result.unwrap().outcome, RecordOutcome::Duplicate);
    }
}

over_every_store!(500; late_events_are_added_to_their_buckets_once);

async fn rolled_up_events_leave_after_thirty_days(fixture: impl Fixture) {
    let (store, now) = (fixture.store(), start_of_tests());
    record(&store, now, &ago(now, (0..1_000).rev())).await;
    let later = now.plus_seconds(30 * DAY + 1);
    assert_eq!(stats_at(&store, later).await.counts.month, 0);
    let batch = vec![occurrence(KEY, "0", later)];
    let recorded = store.record(later.into(), batch).await.pop().unwrap().unwrap();
    assert_eq!(recorded.outcome, RecordOutcome::Counted, "its first copy has left");
    assert_eq!(recorded.stats.counts.month, 1);
    assert_eq!(recorded.stats.first_seen, Some(later));
    assert!(!recorded.stats.is_approximate);
}

over_every_store!(100; rolled_up_events_leave_after_thirty_days);

async fn keys(client: &OtherClient) -> Vec<String> {
    let mut keys = client.texts(&["KEYS", "anomaly:*"]).await;
    keys.sort();
    keys
}

/// Starts a service on Redis that keeps ten events of an anomaly exactly, with an anomaly of a
/// hundred events.
async fn with_a_hundred_events(redis: &RedisServer) -> Service {
    let options = [("REDIS__URL", redis.url()), ("TIMELINE__EXACT_EVENTS", "10".to_owned())];
    let options = options.each_ref().map(|(name, value)| (*name, value.as_str()));
    let service = Service::with(&options).await;
    let now = wall_clock();
    let times = (0..100).map(|n| now.minus_seconds(7_000 - n * 70).to_string());
    let events: Vec<_> = times
        .enumerate()
        .map(|(id, at)| {
            json!({"alert_name": "HighCPU", "event_id": id.to_string(), "occurred_at": at})
        })
        .collect();
    service.post("/anomalies", &events.into()).await.ok();
    service
}

#[tokio::test]
async fn a_frequency_says_when_it_is_not_exact_and_an_older_reader_sees_the_newest_events() {
    let redis = RedisServer::start();
    let service = with_a_hundred_events(&redis).await;
    let client = redis.client().await;
    let keys = keys(&client).await;
    let timeline = keys.iter().find(|key| key.contains("timeline")).unwrap();
    let newest: Vec<String> = (90..100).map(|id| id.to_string()).collect();
    assert_eq!(client.texts(&["ZRANGE", timeline, "0", "-1"]).await, newest);
    for key in &keys {
        assert!(client.number(&["TTL", key]).await > 34 * DAY, "{key}");
    }

    let key = timeline.rsplit(':').next().unwrap();
    let frequency = service.get(&format!("/anomalies/{key}/frequency")).await.ok();
    assert_eq!(frequency["count_30d"], 100);
    assert_eq!(frequency["exact"], false);
    assert!((51..=53).contains(&frequency["count_1h"].as_i64().unwrap()), "{frequency}");
    let anomaly = service.get(&format!("/anomalies/{key}")).await.ok();
    assert_eq!(anomaly["frequency"]["exact"], false);
    // The member is absent if no event is rolled up.
    let other = service.post("/anomalies", &json!({"alert_name": "Other"})).await.ok();
    assert!(other.get("exact").is_none(), "{other}");
}

#[tokio::test]
async fn a_foreign_key_in_the_place_of_the_roll_up_loses_no_events() {
    let redis = RedisServer::start();
    let service = with_a_hundred_events(&redis).await;
    let client = redis.client().await;
    let timeline = keys(&client).await.into_iter().find(|key| key.contains("timeline")).unwrap();
    let key = timeline.rsplit(':').next().unwrap().to_owned();
    for kind in ["folded", "folded_counts", "folded_ids"] {
        client.run(&["DEL", &format!("anomaly:{kind}:{key}")]).await;
    }
    client.run(&["SET", &format!("anomaly:folded_ids:{key}"), "foreign"]).await;
    client.run(&["SET", &format!("anomaly:folded:{key}"), "foreign"]).await;
    let events: Vec<_> = (0..50).map(|_| json!({"alert_name": "HighCPU"})).collect();
    service.post("/anomalies", &events.into()).await.ok();
    let frequency = service.get(&format!("/anomalies/{key}/frequency")).await.ok();
    assert_eq!(frequency["count_30d"], 60, "ten that were left, and fifty");
}

/// Writes a timeline as another writer does, with a member each 60 s up to `until`.
async fn left_by_another(client: &OtherClient, members: i64, until: Timestamp) {
    let timeline = format!("anomaly:timeline:{}", AnomalyKey::from_bits(KEY));
    for first in (0..members).step_by(1_000) {
        let mut command = vec!["ZADD".to_owned(), timeline.clone()];
        for n in first..members.min(first + 1_000) {
            let at = until.minus_seconds((members - n) * 60).as_micros() as f64 / 1e6;
            command.extend([at.to_string(), format!("m{n}")]);
        }
        client.run(&command.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
}

async fn length(client: &OtherClient, kind: &str) -> i64 {
    client.number(&["ZCARD", &format!("anomaly:{kind}:{}", AnomalyKey::from_bits(KEY))]).await
}

#[tokio::test]
async fn a_long_timeline_is_rolled_up_in_pieces_and_counts_stay_right_meanwhile() {
    const MEMBERS: i64 = 6_000;
    let redis = RedisServer::start();
    let (client, now) = (redis.client().await, start_of_tests());
    left_by_another(&client, MEMBERS, now).await;
    let store = store_keeping(100, &redis.url()).await;
    let mut left = MEMBERS;
    for n in 0..30 {
        let at = now.plus_seconds(n);
        // A late event beside the new one, and a copy of one that is still there.
        let ids = [format!("new{n}"), format!("late{n}"), format!("m{}", MEMBERS - 1 - n)];
        let [new, late, known] = ids.each_ref().map(|id| occurrence(KEY, id, at));
        let late = Occurrence { at: now.minus_seconds(86_400 + n), ..late };
        let outcomes = store.record(at.into(), vec![new, late, known]).await.into_iter();
        let outcomes: Vec<_> = outcomes.map(|result| result.unwrap().outcome).collect();
        use RecordOutcome::{Counted, Duplicate};
        assert_eq!(outcomes, [Counted, Counted, Duplicate]);
        let after = length(&client, "timeline").await;
        assert!(left + 2 - after <= 3 + 500, "{left} {after}");
        assert!(after < left || after <= 102, "{left} {after}");
        left = after;
        let stats = stats_at(&store, at).await;
        assert_eq!(stats.counts.month, (MEMBERS + 2 * (n + 1)) as u64);
        // An hour may count two minutes more, and a day an hour.
        assert!((60..=64).contains(&(stats.counts.hour - n as u64)), "{stats:?}");
        assert!((1_440..=1_540).contains(&stats.counts.day), "{stats:?}");
        assert_eq!(stats.last_seen, Some(at));
    }
    assert!(left <= 102, "{left}");
}

#[tokio::test]
async fn a_call_rewrites_the_buckets_of_no_more_anomalies_than_it_has_time_for() {
    const KEYS: u64 = 5;
    let redis = RedisServer::start();
    let (client, now) = (redis.client().await, start_of_tests());
    let store = store_keeping(10, &redis.url()).await;
    let name = |kind: &str, key: u64| format!("anomaly:{kind}:{}", AnomalyKey::from_bits(key));
    // A bucket of one event for each of the last 700 hours, except the last two.
    let hour = now.as_micros() / 3_600_000_000;
    for key in 0..KEYS {
        let mut command = vec!["ZADD".to_owned(), name("folded_counts", key)];
        for n in 0..698 {
            command.extend([((hour - 700 + n) * 3_600).to_string(), (n + 1).to_string()]);
        }
        client.run(&command.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let (first, edge) = ((hour - 700) * 3_600, (hour - 3) * 3_600);
        let folded = format!("{first} {edge} 698 {}", (hour - 24) * 3_600);
        client.run(&["SET", &name("folded", key), &folded]).await;
    }
    let event =
        |key: u64, id: u64, age: i64| occurrence(key, &id.to_string(), now.minus_seconds(age));
    let both = |key| (0..10).map(move |id| event(key, id, 0)).chain([event(key, 10, 699 * 3_600)]);
    let events: Vec<Occurrence> = (0..KEYS).flat_map(both).collect();
    for result in store.record(now.into(), events).await {
        assert_eq!(result.unwrap().outcome, RecordOutcome::Counted);
    }
    let mut rolled_up = 0;
    for key in 0..KEYS {
        rolled_up += u64::from(client.number(&["ZCARD", &name("timeline", key)]).await == 10);
    }
    assert_eq!(rolled_up, 1, "the others have to wait");
    for call in 0..KEYS {
        let events = (0..KEYS).map(|key| event(key, 11 + call, 0)).collect();
        for result in store.record(now.into(), events).await {
            assert_eq!(result.unwrap().outcome, RecordOutcome::Counted);
        }
    }
    let mut left = 0;
    for key in 0..KEYS {
        left += client.number(&["ZCARD", &name("timeline", key)]).await;
        let stats = store.stats(now.into(), vec![AnomalyKey::from_bits(key)]).await.pop().unwrap();
        assert_eq!(stats.unwrap().unwrap().counts.month, 698 + 11 + KEYS);
    }
    assert!(left < KEYS as i64 * 15, "{left}: each is rolled up in its turn");
}

#[tokio::test]
async fn expired_events_of_another_writer_are_removed_in_pieces() {
    const MEMBERS: i64 = 12_000;
    let redis = RedisServer::start();
    let (client, now) = (redis.client().await, start_of_tests());
    left_by_another(&client, MEMBERS, now.minus_seconds(31 * DAY)).await;
    let store = store_keeping(100, &redis.url()).await;
    let mut left = MEMBERS;
    for n in 0..4 {
        // The first copy of this id has expired, and may still be there.
        let id = format!("m{}", MEMBERS - 1 - n);
        let recorded =
            store.record(now.into(), vec![occurrence(KEY, &id, now)]).await.pop().unwrap();
        let recorded = recorded.unwrap();
        assert_eq!(recorded.outcome, RecordOutcome::Counted);
        assert_eq!(recorded.stats.counts.month, n as u64 + 1);
        assert_eq!(recorded.stats.first_seen, Some(now));
        assert!(!recorded.stats.is_approximate);
        let after = length(&client, "timeline").await;
        assert!(left - after <= 5_000, "{left} {after}");
        left = after;
    }
    assert_eq!(left, 4);
}

#[tokio::test]
async fn late_events_that_come_one_at_a_time_share_their_bucket() {
    let redis = RedisServer::start();
    let (client, now) = (redis.client().await, start_of_tests());
    let store = store_keeping(10, &redis.url()).await;
    record(&store, now, &ago(now, (0..50).rev())).await;
    let before = length(&client, "folded_counts").await;
    // Late events, oldest first, within six minutes.
    for n in 0..180 {
        let late = occurrence(KEY, &format!("late{n}"), now.minus_seconds(40_000 - n * 2));
        let recorded = store.record(now.into(), vec![late]).await.pop().unwrap().unwrap();
        assert_eq!(recorded.outcome, RecordOutcome::Counted);
    }
    let buckets = length(&client, "folded_counts").await - before;
    assert!((3..=4).contains(&buckets), "{buckets}");
    assert_eq!(stats_at(&store, now).await.counts.day, 230);

    // An older version has made a bucket of each event: the next late one makes them one.
    let counts = format!("anomaly:folded_counts:{}", AnomalyKey::from_bits(KEY));
    let first = now.minus_seconds(30_000).as_micros() as f64 / 1e6;
    let folded = format!("anomaly:folded:{}", AnomalyKey::from_bits(KEY));
    client.run(&["DEL", &counts]).await;
    for n in 0..100 {
        let ends_at = (first + f64::from(n) / 10.0).to_string();
        client.run(&["ZADD", &counts, &ends_at, &(n + 1).to_string()]).await;
    }
    client.run(&["SET", &folded, &format!("{first} {} 100 0", first + 9.9)]).await;
    let late = occurrence(KEY, "late", now.minus_seconds(40_000));
    store.record(now.into(), vec![late]).await.pop().unwrap().unwrap();
    assert!((2..=3).contains(&length(&client, "folded_counts").await));
    assert_eq!(stats_at(&store, now).await.counts.day, 100 + 1 + 10);
}
