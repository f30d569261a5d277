//! A Redis that refuses calls: whatever its error says, no acknowledged write is lost, and a write
//! that is at fault itself delays no other.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::{ErrorProxy, RedisServer, Service, eventually, healthy_again, key_of, metric};

/// Error texts of servers and proxies, known and unknown.
const ERRORS: [&str; 6] = [
    "ERR max number of clients reached",
    "ERR unknown command 'EVALSHA'",
    "NOPROTO these words are new",
    "Backend unavailable",
    "READONLY You can't write against a read only replica.",
    "OOM command not allowed when used memory > 'maxmemory'.",
];

fn event(name: &str, id: impl std::fmt::Display) -> Value {
    json!({"alert_name": name, "event_id": id.to_string()})
}

async fn behind_a_proxy() -> (RedisServer, ErrorProxy, Service) {
    let redis = RedisServer::start();
    let proxy = ErrorProxy::to(redis.port()).await;
    let service = Service::with(&[("REDIS__URL", &proxy.url())]).await;
    (redis, proxy, service)
}

async fn count(service: &Service, name: &str) -> Value {
    let path = format!("/anomalies/{}/frequency", key_of(name));
    service.get(&path).await.ok()["count_1h"].clone()
}

async fn dead_letters(service: &Service) -> Vec<Value> {
    service.get("/spool/dead-letters").await.ok().as_array().unwrap().clone()
}

#[tokio::test]
async fn temporary_errors_of_any_text_lose_no_write() {
    let (_redis, proxy, service) = behind_a_proxy().await;
    for (round, error) in ERRORS.iter().enumerate() {
        proxy.refuse_all(error);
        for id in 0..10 {
            let answer =
                service.post("/anomalies", &event("HighCPU", format!("{round}-{id}"))).await;
            assert_eq!(answer.status, 202, "{error}: {}", answer.body);
        }
        let ready = service.get("/readyz").await.ok();
        assert_eq!(ready["status"], "degraded", "{error}");
        assert!(ready["cause"].is_string(), "{error}: {ready}");
        proxy.refuse_nothing();
        healthy_again(&service).await;
        assert_eq!(service.get("/readyz").await.ok().get("cause"), None);
        assert_eq!(count(&service, "HighCPU").await, 10 * (round + 1), "{error}");
    }
    assert_eq!(dead_letters(&service).await, Vec::<Value>::new());
}

#[tokio::test]
async fn waiting_writes_survive_a_redis_that_comes_back_and_refuses_them() {
    let (mut redis, proxy, service) = behind_a_proxy().await;
    redis.kill();
    for id in 0..100 {
        let answer = service.post("/anomalies", &event(&format!("Alert{}", id % 5), id)).await;
        assert_eq!(answer.status, 202);
    }
    proxy.refuse_all("ERR these words are new");
    redis.restart();
    eventually("the refusal is its cause", || async {
        let ready = service.get("/readyz").await.ok();
        assert_eq!(ready["status"], "degraded");
        (ready["cause"] == "refused").then_some(())
    })
    .await;
    let refused = "anomaly_counter_store_unavailable{cause=\"refused\"}";
    assert_eq!(metric(&service, refused).await, 1.0);
    assert_eq!(dead_letters(&service).await, Vec::<Value>::new());
    proxy.refuse_nothing();
    healthy_again(&service).await;
    for number in 0..5 {
        assert_eq!(count(&service, &format!("Alert{number}")).await, 20);
    }
    assert_eq!(metric(&service, refused).await, 0.0);
}

#[tokio::test]
async fn a_write_that_is_refused_alone_becomes_a_dead_letter_and_delays_no_other() {
    let (mut redis, proxy, service) = behind_a_proxy().await;
    redis.kill();
    for id in 0..60 {
        let answer = service.post("/anomalies", &event(&format!("Alert{}", id % 3), id)).await;
        assert_eq!(answer.status, 202);
    }
    proxy.refuse("ERR this one breaks the script", "poison");
    let poison = event("Alert1", "poison");
    assert_eq!(service.post("/anomalies", &poison).await.status, 202);
    assert_eq!(service.post("/anomalies", &event("Alert1", "behind")).await.status, 202);
    redis.restart();
    healthy_again(&service).await;
    let letters = dead_letters(&service).await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["event_id"], "poison");
    assert!(letters[0]["reason"].as_str().unwrap().contains("this one breaks the script"));
    assert_eq!(count(&service, "Alert0").await, 20);
    assert_eq!(count(&service, "Alert1").await, 21, "what was behind it is counted");
    proxy.refuse_nothing();
    let retried = service.post("/spool/dead-letters/retry", &json!({})).await.ok();
    assert_eq!(retried["retried"], 1);
    healthy_again(&service).await;
    assert_eq!(count(&service, "Alert1").await, 22);
    assert_eq!(dead_letters(&service).await, Vec::<Value>::new());
}

/// Posts an event of each of this many anomalies, which all wait.
async fn post_each(service: &Service, name: &str, anomalies: usize) {
    for number in 0..anomalies {
        let answer = service.post("/anomalies", &event(&format!("{name}{number}"), "e")).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
    }
}

#[tokio::test]
async fn poisoned_writes_become_dead_letters_also_if_no_others_wait() {
    for poisoned in [2, 3, 10] {
        let (_redis, proxy, service) = behind_a_proxy().await;
        proxy.refuse("ERR this one breaks the script", "Poison");
        post_each(&service, "Poison", poisoned).await;
        assert_eq!(service.get("/readyz").await.ok()["status"], "degraded");
        healthy_again(&service).await;
        assert_eq!(dead_letters(&service).await.len(), poisoned);
        let fine = service.post("/anomalies", &event("Fine", "e")).await;
        assert_eq!((fine.status.as_u16(), &fine.body["degraded"]), (200, &json!(false)));
    }
}

#[tokio::test]
async fn poisoned_writes_do_not_delay_those_behind_them() {
    for poisoned in [3, 10] {
        let (mut redis, proxy, service) = behind_a_proxy().await;
        redis.kill();
        post_each(&service, "Poison", poisoned).await;
        post_each(&service, "Fine", 200).await;
        proxy.refuse("ERR this one breaks the script", "Poison");
        redis.restart();
        eventually("those behind are counted, and the breaker is closed", || async {
            let ready = service.get("/readyz").await.ok();
            let waiting = ready["spool"]["operations"].as_u64().unwrap() as usize;
            (ready["status"] != "degraded" && waiting <= poisoned).then_some(())
        })
        .await;
        for number in [0, 100, 199] {
            assert_eq!(count(&service, &format!("Fine{number}")).await, 1);
        }
        let fine = service.post("/anomalies", &event("Other", "e")).await;
        assert_eq!(fine.status, 200, "{}", fine.body);
        healthy_again(&service).await;
        assert_eq!(dead_letters(&service).await.len(), poisoned);
    }
}

#[tokio::test]
async fn many_poisoned_writes_become_dead_letters_while_others_are_accepted() {
    let (mut redis, proxy, service) = behind_a_proxy().await;
    redis.kill();
    // More writes than are read at once, and too many to blame them because of a successful probe.
    let poisoned = 300;
    post_each(&service, "Poison", poisoned).await;
    post_each(&service, "Fine", 100).await;
    proxy.refuse("ERR this one breaks the script", "Poison");
    redis.restart();
    let written = AtomicUsize::new(0);
    eventually("all of them are dead letters", || async {
        let fine = service.post("/anomalies", &json!({"alert_name": "Live"})).await;
        assert!(fine.status.is_success(), "{}", fine.body);
        written.fetch_add(1, Ordering::Relaxed);
        (dead_letters_total(&service).await == poisoned).then_some(())
    })
    .await;
    healthy_again(&service).await;
    assert_eq!(count(&service, "Live").await, written.into_inner());
    assert_eq!(count(&service, "Fine99").await, 1);
}

async fn dead_letters_total(service: &Service) -> usize {
    metric(service, "anomaly_counter_dead_letters_total").await as usize
}

#[tokio::test]
async fn a_server_that_answers_probes_and_refuses_all_anomalies_is_at_fault() {
    let (_redis, proxy, service) = behind_a_proxy().await;
    proxy.refuse("ERR crossslot these words are new", "anomaly:timeline:");
    post_each(&service, "Alert", 60).await;
    // Fewer than twenty writes are refused in a pass, so this takes a dozen passes.
    let enough = proxy.refused() + 240;
    eventually("many passes", || async { (proxy.refused() > enough).then_some(()) }).await;
    let ready = service.get("/readyz").await.ok();
    assert_eq!((&ready["status"], &ready["cause"]), (&json!("degraded"), &json!("refused")));
    assert_eq!(dead_letters(&service).await, Vec::<Value>::new());
    proxy.refuse_nothing();
    healthy_again(&service).await;
    for number in [0, 30, 59] {
        assert_eq!(count(&service, &format!("Alert{number}")).await, 1);
    }
}

#[tokio::test]
async fn dead_letters_are_bounded_by_the_spools_bytes() {
    let mut redis = RedisServer::start();
    let url = redis.url();
    let options = [("REDIS__URL", &*url), ("SPOOL__MAX_BYTES", "20000")];
    let service = Service::with(&options).await;
    for _ in 0..2 {
        redis.kill();
        assert_eq!(service.post("/anomalies", &event("Other", "o")).await.status, 202);
        let mut accepted = 0_u64;
        loop {
            let (key, action) = (format!("{accepted:016x}"), "a".repeat(100));
            let repair = json!({"anomaly_key": key, "action": action, "success": true});
            if service.post("/repairs", &repair).await.status != 202 {
                break;
            }
            accepted += 1;
        }
        assert!(accepted > 50, "{accepted}");
        redis.restart();
        healthy_again(&service).await;
    }
    let letters = dead_letters(&service).await;
    assert!((50..150).contains(&letters.len()), "{}", letters.len());
    assert!(metric(&service, "anomaly_counter_dead_letters_dropped_total").await > 0.0);
    assert!(service.log().contains("dead letters were dropped"));
}

#[tokio::test]
async fn an_occurrence_that_is_too_old_does_not_make_an_unknown_anomaly_zero() {
    let mut redis = RedisServer::start();
    let (service, _clock) = Service::aged(&[("REDIS__URL", &redis.url())]).await;
    let old = json!({"alert_name": "Old", "occurred_at": "2020-01-01T00:00:00Z"});
    let known = json!({"alert_name": "Known", "occurred_at": "2020-01-01T00:00:00Z"});
    assert_eq!(service.post("/anomalies", &known).await.ok()["counted"], false);
    redis.kill();
    service.post("/anomalies", &old).await;
    let path = |name| format!("/anomalies/{}/frequency", key_of(name));
    service.get(&path("Old")).await.problem(503);
    // Redis has said that it has no occurrences of this one.
    let estimate = service.get(&path("Known")).await.ok();
    assert_eq!(estimate["count_30d"], 0);
    assert_eq!(estimate["degraded"], true);
}

/// The disk is too full for a write that Redis has lost and refuses to accept again.
#[tokio::test]
async fn writes_that_can_neither_be_sent_again_nor_wait_are_kept_and_retried() {
    let (redis, proxy, service) = behind_a_proxy().await;
    service.post("/anomalies", &event("HighCPU", "poison")).await.ok();
    service.post("/anomalies", &event("Other", 1)).await.ok();
    // The limit is enough for the log, but not for the spool.
    service.limit_file_size(Some(12_000));
    proxy.refuse("ERR these words are new", "poison");
    redis.client().await.run(&["FLUSHALL"]).await;
    // This answer shows the service that writes were lost.
    let path = format!("/anomalies/{}/frequency", key_of("Other"));
    let answer = service.get(&path).await;
    assert_eq!(answer.status, 404, "{}", answer.body);
    eventually("the other one is counted", || async {
        (service.get(&path).await.body["count_1h"] == 1).then_some(())
    })
    .await;
    let failed = "can't be spooled; it is sent again";
    eventually("it can't wait", || async { service.log().contains(failed).then_some(()) }).await;
    let before = proxy.refused();
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert!(proxy.refused() - before <= 2, "{before}, then {}", proxy.refused());
    proxy.refuse_nothing();
    let path = format!("/anomalies/{}/frequency", key_of("HighCPU"));
    eventually("it is counted", || async {
        (service.get(&path).await.body["count_1h"] == 1).then_some(())
    })
    .await;
}
