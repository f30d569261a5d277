//! A Redis user with exactly the permissions that the documents name.

use std::time::Duration;

use anomaly_counter::{
    domain::AnomalyKey,
    store::{Cause, RecordOutcome, SeriesSpan},
};

use super::{BUSY, QUIET, attempt, late, outcomes, roll_up, store_at};
use crate::support::{
    RedisCluster, RedisServer, fix_mark, fix_removal, occurrence, start_of_tests,
};

/// The permissions on a single Redis, for the key prefix `anomaly:`.
const RULE: &str = "~anomaly:* +evalsha +eval +del +exists +expire +get +hdel +hexists +hget \
                    +hgetall +hlen +hmget +hset +hsetnx +incr +llen +lpush +lrange +ltrim +mget \
                    +pttl +set +time +ttl +zadd +zcard +zcount +zrange +zrangebyscore +zrem \
                    +zremrangebyrank +zremrangebyscore +zrevrangebyscore +zrevrank +zscore";

/// The further permissions that lists need.
const LISTS_RULE: &str = "+scan +xadd +xread";

/// The further permissions on a cluster: the map of its slots. (ASKING is for slots that are
/// moving.)
const CLUSTER_RULE: &str = "+cluster|slots +asking";

fn url(redis: &RedisServer) -> String {
    format!("redis://counter:secret@127.0.0.1:{}", redis.port())
}

async fn server_with(rule: &str) -> RedisServer {
    let redis = RedisServer::start();
    add_user(&redis, rule).await;
    redis
}

async fn add_user(redis: &RedisServer, rule: &str) {
    let mut command = vec!["ACL", "SETUSER", "counter", "on", ">secret"];
    command.extend(rule.split_whitespace());
    redis.client().await.run(&command).await;
}

#[test]
fn the_document_has_these_permissions() {
    let rule = RULE.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = format!("    user anomaly-counter on >PASSWORD {rule} +info {LISTS_RULE}\n");
    assert!(include_str!("../../../docs/security.md").contains(&line), "{line}");
}

#[tokio::test]
async fn the_documented_user_may_do_all_that_the_service_does() {
    let redis = server_with(RULE).await;
    let (store, now) = (store_at(&url(&redis)).await, start_of_tests());
    let key = AnomalyKey::from_bits(BUSY);
    store.check(store.shards()[0]).await.unwrap();
    roll_up(&store, now).await;
    // Late events, expired events and coarse buckets too.
    let older = occurrence(QUIET, "older", now.minus_seconds(86_400));
    for events in [vec![late(now, "late")], vec![older, occurrence(QUIET, "newer", now)]] {
        for outcome in outcomes(&store, now, events).await {
            assert_eq!(outcome.unwrap(), RecordOutcome::Counted);
        }
    }
    let again =
        store.record_again(now.into(), vec![late(now, "late")]).await.pop().unwrap().unwrap();
    assert_eq!(again.outcome, RecordOutcome::Duplicate);
    let repair =
        store.record_repairs(now.into(), vec![attempt(BUSY, "r", now)]).await.pop().unwrap();
    assert!(repair.unwrap().unwrap().counted);
    assert!(store.mark_fixed(now.into(), fix_mark(BUSY, "m", now)).await.unwrap().is_some());
    assert!(
        store
            .stats(now.into(), vec![key])
            .await
            .pop()
            .unwrap()
            .unwrap()
            .unwrap()
            .fixed_at
            .is_some()
    );
    let removed = store.unmark_fixed(now.into(), fix_removal(BUSY, "u", now)).await.unwrap();
    assert_eq!(removed, Some(true));
    assert_eq!(store.details(now.into(), key).await.unwrap().unwrap().repairs.total, 1);
    assert_eq!(store.repairs(now.into(), key).await.unwrap().unwrap().total, 1);
    assert_eq!(store.audit(now.into(), key).await.unwrap().unwrap().len(), 3);
    let later = now.plus_seconds(30 * 86_400 - 60);
    let pruning = vec![occurrence(QUIET, "much later", later), late(later, "coarse")];
    for outcome in outcomes(&store, later, pruning).await {
        assert_eq!(outcome.unwrap(), RecordOutcome::Counted);
    }
    store.maintain(later.into()).await.unwrap();
    assert_eq!(store.identity(store.shards()[0]).await, None, "INFO is denied, and no outage");
    store.check(store.shards()[0]).await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn the_documented_user_may_do_what_lists_need() {
    let redis = server_with(&format!("{RULE} {LISTS_RULE}")).await;
    let (store, now) = (store_at(&url(&redis)).await, start_of_tests());
    outcomes(&store, now, vec![occurrence(QUIET, "e", now)]).await.remove(0).unwrap();
    let (rows, key) = (store.shared_rows().unwrap(), AnomalyKey::from_bits(QUIET));
    let found = rows.find(store.shards()[0], "").await.unwrap();
    assert_eq!((found.keys, found.next), (vec![key], None));
    let read = rows.read_rows(now.into(), &[key.into()]).await.remove(0).unwrap().unwrap();
    assert_eq!(read.stats.counts.day, 1);
    assert!(read.signature_json.is_some());
    let span = SeriesSpan { step_seconds: 3_600, buckets: 24 };
    let series = store.series(now.into(), span, vec![key]).await.remove(0).unwrap().unwrap();
    assert_eq!((series.len(), series[23]), (24, 1));

    let minute = Duration::from_secs(60);
    assert!(rows.take_lease("one", minute).await.unwrap());
    assert!(!rows.take_lease("another", minute).await.unwrap(), "one has it");
    assert!(rows.take_lease("one", minute).await.unwrap(), "who has it renews it");

    let begin = rows.announced(None).await.unwrap();
    assert!(begin.changes.is_empty());
    rows.announce(&[0, 159, 7]).await.unwrap();
    rows.announce(b"text").await.unwrap();
    let heard = rows.announced(Some(&begin.next)).await.unwrap();
    assert_eq!(heard.changes, [vec![0, 159, 7], b"text".to_vec()]);
    assert!(rows.announced(Some(&heard.next)).await.unwrap().changes.is_empty());
    let client = redis.client().await;
    let ttl = client.number(&["TTL", "anomaly:changes"]).await;
    assert!((1..=600).contains(&ttl), "{ttl}");
    store.close().await;
}

#[tokio::test]
async fn without_the_permissions_for_lists_all_else_works() {
    let redis = server_with(RULE).await;
    let (store, now) = (store_at(&url(&redis)).await, start_of_tests());
    let rows = store.shared_rows().unwrap();
    for fault in [
        rows.find(store.shards()[0], "").await.unwrap_err(),
        rows.announce(b"x").await.unwrap_err(),
        rows.announced(None).await.unwrap_err(),
    ] {
        assert_eq!(fault.cause(), Cause::Permission, "{fault}");
    }
    outcomes(&store, now, vec![occurrence(QUIET, "e", now)]).await.remove(0).unwrap();
    store.check(store.shards()[0]).await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn on_a_cluster_the_user_needs_the_map_of_the_slots_too() {
    let cluster = RedisCluster::of_masters(3).await;
    for master in cluster.masters() {
        add_user(master, &format!("{RULE} {CLUSTER_RULE}")).await;
    }
    let url = cluster.url().replace("://", "://counter:secret@");
    let (store, now) = (store_at(&url).await, start_of_tests());
    for shard in store.shards() {
        store.check(shard).await.unwrap();
        assert_eq!(store.identity(shard).await, None);
    }
    let events = (0..100).map(|key| occurrence(key, "e", now)).collect();
    for outcome in outcomes(&store, now, events).await {
        assert_eq!(outcome.unwrap(), RecordOutcome::Counted);
    }
    store.close().await;
}

#[tokio::test]
async fn a_user_who_lacks_any_of_these_permissions_fails_the_probe() {
    for denied in RULE.split_whitespace().filter(|word| *word != "+eval") {
        let rule: Vec<_> = RULE.split_whitespace().filter(|word| *word != denied).collect();
        let redis = server_with(&rule.join(" ")).await;
        let store = store_at(&url(&redis)).await;
        let fault = store.check(store.shards()[0]).await.expect_err(denied);
        assert!(fault.is_outage(), "{denied}: {fault}");
        store.close().await;
    }
}
