//! A Redis that answers and refuses writes: each element fails as one that may succeed later, none
//! is answered as counted, and each is there once when it is sent again.

use std::sync::Arc;

use anomaly_counter::{
    domain::{AnomalyKey, Timestamp},
    store::{Cause, FaultClass, RecordOutcome, Store, StoreError},
};
use fred::types::Value;

use super::{BUSY, QUIET, attempt, count, late, outcomes, roll_up, store_at, takes_writes};
use crate::{
    incidents::{
        histories::alert,
        naive::{Delivery, State},
    },
    support::{
        OtherClient, RedisServer, eventually, fix_mark, fix_removal, occurrence, start_of_tests,
    },
};

/// Returns the fault of each kind of write, in the order in which they were sent.
async fn faults(store: &Arc<dyn Store>, now: Timestamp) -> Vec<StoreError> {
    let batch = vec![late(now, "late"), occurrence(QUIET, "new", now), late(now, "later")];
    let mut faults: Vec<_> =
        outcomes(store, now, batch).await.into_iter().map(|r| r.expect_err("refused")).collect();
    let attempts = vec![attempt(QUIET, "repair", now), attempt(BUSY, "repair", now)];
    let repairs = store.record_repairs(now.into(), attempts).await;
    faults.extend(repairs.into_iter().map(|repair| repair.expect_err("refused")));
    faults.push(
        store.mark_fixed(now.into(), fix_mark(BUSY, "mark", now)).await.expect_err("refused"),
    );
    let removal = fix_removal(BUSY, "removal", now);
    faults.push(store.unmark_fixed(now.into(), removal).await.expect_err("refused"));
    faults.push(store.check(store.shards()[0]).await.expect_err("refused"));
    faults
}

/// A script stops where its user may not run a command, and does not take back what it did before.
#[tokio::test]
async fn a_repair_whose_script_fails_half_way_counts_once_when_it_is_sent_again() {
    for command in ["ltrim", "expire", "lpush", "incr", "zadd"] {
        let redis = RedisServer::start();
        let client = redis.client().await;
        let (store, now) = (store_at(&redis.url()).await, start_of_tests());
        outcomes(&store, now, vec![occurrence(QUIET, "first", now)]).await[0].clone().unwrap();
        let first = store.record_repairs(now.into(), vec![attempt(QUIET, "first", now)]).await;
        assert_eq!(first[0].as_ref().unwrap().as_ref().unwrap().history.total, 1);
        client.run(&["ACL", "SETUSER", "default", &format!("-{command}")]).await;
        for _ in 0..3 {
            let refused =
                store.record_repairs(now.into(), vec![attempt(QUIET, "again", now)]).await;
            assert!(refused[0].is_err(), "{command}");
        }
        client.run(&["ACL", "SETUSER", "default", "+@all"]).await;
        takes_writes(&store).await;
        let taken = store.record_repairs(now.into(), vec![attempt(QUIET, "again", now)]).await;
        let history = &taken[0].as_ref().unwrap().as_ref().unwrap().history;
        assert_eq!((history.total, history.recent.len()), (2, 2), "{command}");
        let audit = store.audit(now.into(), AnomalyKey::from_bits(QUIET)).await.unwrap().unwrap();
        assert_eq!(audit.len(), 2, "{command}");
    }
}

/// Refuses writes by `refuse` on a server with `options`, and then takes them again.
async fn all_wait(options: &[&str], refuse: &[&[&str]], allow: &[&[&str]], cause: Cause) {
    let redis = RedisServer::start_with(options);
    let client = redis.client().await;
    let (store, now) = (store_at(&redis.url()).await, start_of_tests());
    roll_up(&store, now).await;
    let quiet = vec![occurrence(QUIET, "first", now)];
    assert_eq!(outcomes(&store, now, quiet).await, [Ok(RecordOutcome::Counted)]);

    run(&client, refuse).await;
    let faults = faults(&store, now).await;
    assert_eq!(faults[0].cause(), cause, "{}", faults[0]);
    assert_eq!(faults[0].class(), FaultClass::Indeterminate, "{}", faults[0]);
    for fault in &faults {
        // A reconnection may come in between.
        assert!(fault.is_outage(), "{fault}");
    }

    run(&client, allow).await;
    takes_writes(&store).await;
    let again = vec![late(now, "late"), occurrence(QUIET, "new", now), late(now, "later")];
    for outcome in [RecordOutcome::Counted, RecordOutcome::Duplicate] {
        let results = outcomes(&store, now, again.clone()).await;
        assert_eq!(results, [Ok(outcome), Ok(outcome), Ok(outcome)]);
    }
    assert_eq!(count(&store, now, BUSY).await, 102);
    assert_eq!(count(&store, now, QUIET).await, 2);
    let attempts = vec![attempt(QUIET, "repair", now), attempt(BUSY, "repair", now)];
    for repair in store.record_repairs(now.into(), attempts).await {
        assert_eq!(repair.unwrap().unwrap().history.total, 1);
    }
    let fix = store.mark_fixed(now.into(), fix_mark(BUSY, "mark", now)).await.unwrap();
    assert!(fix.is_some());
    let audit = store.audit(now.into(), AnomalyKey::from_bits(BUSY)).await.unwrap().unwrap();
    assert_eq!(audit.len(), 2, "{audit:?}");
}

async fn run(client: &OtherClient, commands: &[&[&str]]) {
    for command in commands {
        client.run(command).await;
    }
}

#[tokio::test]
async fn every_write_waits_while_the_server_is_a_replica() {
    let (refuse, allow) = (["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"]);
    all_wait(&[], &[&refuse], &[&allow], Cause::Readonly).await;
}

#[tokio::test]
async fn every_write_waits_while_replicas_are_missing() {
    let set = |replicas| ["CONFIG", "SET", "min-replicas-to-write", replicas];
    all_wait(&[], &[&set("1")], &[&set("0")], Cause::Replicas).await;
}

#[tokio::test]
async fn every_write_waits_while_the_memory_is_full() {
    let set = |bytes| ["CONFIG", "SET", "maxmemory", bytes];
    all_wait(&[], &[&set("1")], &[&set("0")], Cause::Memory).await;
}

#[tokio::test]
async fn every_write_waits_while_the_user_may_not_call_one_command_of_the_scripts() {
    let set = |rule| ["ACL", "SETUSER", "default", rule];
    all_wait(&[], &[&set("-zadd")], &[&set("+@all")], Cause::Permission).await;
}

#[tokio::test]
async fn every_write_waits_while_scripts_are_denied() {
    let set = |rule| ["ACL", "SETUSER", "default", rule];
    all_wait(&[], &[&set("-@scripting")], &[&set("+@all")], Cause::Permission).await;
}

#[tokio::test]
async fn every_write_waits_while_no_snapshot_can_be_saved() {
    // No file can be created there by any user.
    let options = ["--dir", "/proc"];
    let redis = RedisServer::start_with(&options);
    let client = redis.client().await;
    let (store, now) = (store_at(&redis.url()).await, start_of_tests());
    roll_up(&store, now).await;
    client.run(&["CONFIG", "SET", "save", "1 1"]).await;
    client.run(&["BGSAVE"]).await;
    eventually("the snapshot has failed", || async {
        let info = client.text(&["INFO", "persistence"]).await?;
        info.contains("rdb_last_bgsave_status:err").then_some(())
    })
    .await;
    for fault in outcomes(&store, now, vec![late(now, "a"), occurrence(QUIET, "b", now)]).await {
        let fault = fault.expect_err("refused");
        assert_eq!(fault.cause(), Cause::Disk, "{fault}");
        assert!(fault.is_outage(), "{fault}");
    }
    assert!(store.check(store.shards()[0]).await.is_err());
    client.run(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]).await;
    takes_writes(&store).await;
    let again = vec![late(now, "a"), occurrence(QUIET, "b", now)];
    let counted = Ok(RecordOutcome::Counted);
    assert_eq!(outcomes(&store, now, again).await, [counted.clone(), counted]);
    assert_eq!(count(&store, now, BUSY).await, 101);
}

/// Each command of the script is refused alone: the writes before the refusal are neither lost nor
/// counted twice.
#[tokio::test]
async fn a_script_that_is_refused_half_way_loses_nothing_and_doubles_nothing() {
    let redis = RedisServer::start();
    let client = redis.client().await;
    let (store, now) = (store_at(&redis.url()).await, start_of_tests());
    let denied = [
        "zadd",
        "zrem",
        "zremrangebyrank",
        "zremrangebyscore",
        "zrange",
        "zrangebyscore",
        "zrevrangebyscore",
        "zcard",
        "zscore",
        "mget",
        "hget",
        "hmget",
        "hexists",
        "expire",
        "ttl",
        "set",
        "hsetnx",
        "del",
    ];
    for (key, command) in (1..).zip(denied) {
        // In two batches: the first rolls up, and the second has late events too.
        let event = |n: i64| occurrence(key, &n.to_string(), now.minus_seconds(2_000 - n));
        let late = |n: i64| occurrence(key, &n.to_string(), now.minus_seconds(3_000 - n));
        let batches: [Vec<_>; 3] = [
            (0..100).map(event).collect(),
            (100..110).map(late).chain((110..130).map(event)).collect(),
            (130..140).map(late).chain((140..160).map(event)).collect(),
        ];
        for (denied_in, batch) in batches.iter().enumerate() {
            if denied_in > 0 {
                client.run(&["ACL", "SETUSER", "default", &format!("-{command}")]).await;
                let refused = outcomes(&store, now, batch.clone()).await;
                client.run(&["ACL", "SETUSER", "default", "+@all"]).await;
                assert!(refused.iter().all(|r| r == &Ok(RecordOutcome::Counted) || is_outage(r)));
            }
            let _ = outcomes(&store, now, batch.clone()).await;
            for outcome in outcomes(&store, now, batch.clone()).await {
                assert_eq!(outcome.unwrap(), RecordOutcome::Duplicate, "{command} {denied_in}");
            }
        }
        assert_eq!(count(&store, now, key).await, 160, "{command}");
    }
}

/// The same as above, for alerts of one incident.
#[tokio::test]
async fn alerts_that_are_refused_half_way_count_once() {
    let redis = RedisServer::start();
    let client = redis.client().await;
    let (store, now) = (store_at(&redis.url()).await, start_of_tests());
    let denied = ["zadd", "hmget", "hgetall", "hlen", "hset", "hexists", "hsetnx", "expire", "ttl"];
    for (key, command) in (1..).zip(denied) {
        let delivery = |alert: u16| Delivery {
            alert,
            starts: Some(i64::from(alert)),
            delivered: 60,
            state: State::Firing,
        };
        let alerts: Vec<_> = (0..20).map(|n| alert(key, delivery(n))).collect();
        client.run(&["ACL", "SETUSER", "default", &format!("-{command}")]).await;
        let refused = outcomes(&store, now, alerts.clone()).await;
        client.run(&["ACL", "SETUSER", "default", "+@all"]).await;
        assert!(refused.iter().any(is_outage), "{command}: {refused:?}");
        for _ in 0..2 {
            for outcome in outcomes(&store, now, alerts.clone()).await {
                outcome.unwrap();
            }
        }
        assert_eq!(count(&store, now, key).await, 1, "{command}");
    }
}

fn is_outage(result: &Result<RecordOutcome, StoreError>) -> bool {
    result.as_ref().is_err_and(StoreError::is_outage)
}

#[tokio::test]
async fn a_key_of_a_foreign_type_fails_its_own_anomaly_and_no_other() {
    let redis = RedisServer::start();
    let client = redis.client().await;
    let (store, now) = (store_at(&redis.url()).await, start_of_tests());
    roll_up(&store, now).await;
    let counts = format!("anomaly:folded_counts:{}", AnomalyKey::from_bits(BUSY));
    client.run(&["DEL", &counts]).await;
    client.run(&["SET", &counts, "foreign"]).await;
    client.run(&["SET", &format!("anomaly:timeline:{}", AnomalyKey::from_bits(1)), "x"]).await;
    let batch = vec![
        late(now, "late"),
        occurrence(QUIET, "new", now),
        occurrence(1, "new", now),
        occurrence(BUSY, "newest", now),
    ];
    let results = outcomes(&store, now, batch).await;
    // Late events are in the timeline, and stay there while they can't be rolled up.
    for (index, is_at_fault) in [(0, false), (1, false), (2, true), (3, false)] {
        match &results[index] {
            Ok(outcome) => assert!(!is_at_fault && *outcome == RecordOutcome::Counted, "{index}"),
            Err(fault) => {
                assert!(is_at_fault, "{index}: {fault}");
                assert_eq!(fault.class(), FaultClass::Permanent, "{fault}");
                assert!(fault.to_string().starts_with("WRONGTYPE"), "{fault}");
            }
        }
    }
    let kind = client.run(&["TYPE", &counts]).await;
    assert_eq!(kind, Value::from("string"), "nothing of another writer is removed");
}
