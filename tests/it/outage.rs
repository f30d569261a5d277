//! Redis that is unavailable, stalls, or has lost data: no write is refused, lost or counted twice,
//! and no answer is a false zero.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anomaly_counter::domain::Timestamp;
use serde_json::{Value, json};

use crate::support::{
    Answer, RedisServer, Service, eventually, healthy_again, key_of, metric, record_batches,
};

/// The default of `redis.concurrent_batches`.
const CONCURRENT_BATCHES: u64 = 4;

/// The key of `cpu()`.
const KEY: &str = "af03baee239021c4";

fn cpu() -> Value {
    json!({"alert_name": "HighCPU"})
}

fn cpu_event(id: impl std::fmt::Display) -> Value {
    json!({"alert_name": "HighCPU", "event_id": id.to_string()})
}

/// Returns the body of a 202, which must have the header of a degraded answer.
#[track_caller]
fn accepted(answer: Answer) -> Value {
    assert_eq!(answer.status, 202, "{}", answer.body);
    assert_eq!(answer.headers["x-degraded"], "redis");
    answer.body
}

async fn frequency(service: &Service) -> Answer {
    service.get(&format!("/anomalies/{KEY}/frequency")).await
}

#[tokio::test]
async fn without_redis_from_the_first_second_every_write_waits_and_counts_later() {
    let mut redis = RedisServer::start();
    redis.kill();
    let service = Service::on_redis(&redis).await;
    // Nothing is known of the anomaly yet, not even that it is unknown.
    let unknown = frequency(&service).await;
    unknown.problem(503);
    assert_eq!(unknown.headers["retry-after"], "1");

    for count in 1..=3 {
        let answer = accepted(service.post("/anomalies", &cpu_event(count)).await);
        assert_eq!(answer["count_24h"], count);
        assert_eq!(answer["degraded"], true);
        assert_eq!(answer["counted"], true);
    }
    assert_eq!(accepted(service.post("/anomalies", &cpu_event(3)).await)["counted"], false);
    let read = frequency(&service).await;
    assert_eq!(read.headers["x-degraded"], "redis");
    let read = read.ok();
    assert_eq!(read["count_24h"], 3);
    assert_eq!(read["escalation_level"], "REPEAT");

    let repair =
        json!({"anomaly_key": KEY, "action": "restart", "success": false, "event_id": "r"});
    for counted in [true, false] {
        let answer = accepted(service.post("/repairs", &repair).await);
        assert_eq!(answer["counted"], counted);
        assert_eq!(answer["total"], Value::Null, "those before it are not known");
    }
    let fix = json!({"anomaly_key": KEY, "fix_description": "raised the limit"});
    let fixed_at = accepted(service.put("/permanent-fix", &fix).await)["fixed_at"].clone();
    let regressed = accepted(service.post("/anomalies", &cpu_event(4)).await);
    assert_eq!(regressed["regressed"], true);
    assert_eq!(regressed["count_1h"], 4);
    // Invalid input is refused also in an outage.
    service.post("/anomalies", &json!({})).await.problem(422);
    assert_eq!(service.get("/readyz").await.ok()["spool"]["operations"], 8);

    redis.restart();
    healthy_again(&service).await;
    let known = service.get(&format!("/anomalies/{KEY}")).await;
    assert!(!known.headers.contains_key("x-degraded"));
    let known = known.ok();
    assert_eq!(known["frequency"]["count_24h"], 4);
    assert_eq!(known["frequency"]["degraded"], false);
    assert_eq!(known["frequency"]["regressed"], true);
    assert_eq!(known["repairs"][0]["total"], 1);
    assert_eq!(known["permanent_fix"]["fixed_at"], fixed_at, "with its own time");
}

#[tokio::test]
async fn known_counts_are_answered_with_their_time_and_waiting_writes_are_added() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    for _ in 0..2 {
        service.post("/anomalies", &cpu()).await.ok();
    }
    let known = service.get(&format!("/anomalies/{KEY}")).await.ok();
    redis.kill();
    let step = accepted(service.post("/anomalies", &cpu()).await);
    assert_eq!(step["count_24h"], 3);
    assert_eq!(step["escalation_level"], "REPEAT");
    assert_eq!(step["previous_level"], Value::Null);
    assert_eq!(step["first_seen"], known["frequency"]["first_seen"]);
    let as_of = Timestamp::parse_rfc3339(step["as_of"].as_str().unwrap()).unwrap();
    assert!(as_of < Timestamp::parse_rfc3339(step["last_seen"].as_str().unwrap()).unwrap());

    let degraded = service.get(&format!("/anomalies/{KEY}")).await.ok();
    assert_eq!(degraded["frequency"]["degraded"], true);
    assert_eq!(degraded["signature"], known["signature"]);
    // An array waits too.
    let array = service.post("/anomalies", &json!([cpu(), {"alert_name": 1}, cpu()])).await;
    let array = accepted(array);
    assert_eq!(array[2]["count_24h"], 5);
    assert_eq!(array[1]["status"], 422);
}

#[tokio::test]
async fn a_redis_that_hangs_is_noticed_once_and_later_calls_do_not_wait() {
    let redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    service.post("/anomalies", &cpu_event(0)).await.ok();
    redis.pause();
    accepted(service.post("/anomalies", &cpu_event(1)).await);
    let batches = record_batches(&service).await;
    for id in 2..20 {
        accepted(service.post("/anomalies", &cpu_event(id)).await);
        frequency(&service).await.ok();
    }
    // A write that is not sent to Redis does not wait for it.
    assert_eq!(record_batches(&service).await, batches);
    redis.resume();
    healthy_again(&service).await;
    // The first write had been sent to Redis before it was put into the spool: it counts once.
    assert_eq!(frequency(&service).await.ok()["count_1h"], 20);
}

#[tokio::test]
async fn waiting_writes_survive_kill_9_and_are_applied_by_the_next_process() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    redis.kill();
    for id in 0..50 {
        accepted(service.post("/anomalies", &cpu_event(id)).await);
    }
    let service = service.restart().await;
    // The count comes from the spool: this process has never reached the store.
    assert_eq!(frequency(&service).await.ok()["count_1h"], 50);
    accepted(service.post("/anomalies", &cpu_event(50)).await);
    redis.restart();
    healthy_again(&service).await;
    assert_eq!(frequency(&service).await.ok()["count_1h"], 51);
}

#[tokio::test]
async fn an_outage_is_two_lines_in_the_log() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    service.post("/anomalies", &cpu()).await.ok();
    redis.kill();
    for _ in 0..20 {
        accepted(service.post("/anomalies", &cpu()).await);
    }
    redis.restart();
    healthy_again(&service).await;
    let log = service.log();
    let about = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(about("the store does not answer"), 1, "{log}");
    assert_eq!(about("the store answers again"), 1, "{log}");
    // News of the anomaly itself are reported too.
    let steps = about("has reached");
    assert_eq!(about("\"WARN\"") + about("\"ERROR\"") - steps, 1, "{log}");
}

#[tokio::test]
async fn a_spool_that_is_full_is_a_503_and_never_a_false_202() {
    let mut redis = RedisServer::start();
    let options = [("REDIS__URL", redis.url()), ("SPOOL__MAX_BYTES", "2000".to_owned())];
    let options: Vec<(&str, &str)> = options.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let service = Service::with(&options).await;
    redis.kill();
    let mut taken = 0;
    let refused = loop {
        let answer = service.post("/anomalies", &cpu_event(taken)).await;
        if answer.status != 202 {
            break answer;
        }
        taken += 1;
        assert!(taken < 100, "2000 bytes do not hold this many");
    };
    refused.problem(503);
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(taken > 5, "{taken}");
    assert_eq!(frequency(&service).await.ok()["count_1h"], taken);
    redis.restart();
    healthy_again(&service).await;
    assert_eq!(frequency(&service).await.ok()["count_1h"], taken);
}

#[tokio::test]
async fn a_write_that_the_store_refuses_permanently_does_not_delay_others() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    redis.kill();
    let unknown = json!({"anomaly_key": "0123456789abcdef", "action": "a", "success": true});
    accepted(service.post("/repairs", &unknown).await);
    accepted(service.post("/anomalies", &cpu()).await);
    accepted(service.post("/anomalies", &json!({"alert_name": "Foreign"})).await);
    redis.restart();
    let key = "anomaly:timeline:".to_owned() + &key_of("Foreign").to_string();
    redis.client().await.run(&["SET", &key, "foreign"]).await;
    healthy_again(&service).await;
    assert_eq!(frequency(&service).await.ok()["count_1h"], 1);
    assert!(service.log().contains("the store refuses a repair of anomaly 0123456789abcdef"));
}

#[tokio::test]
async fn acknowledged_writes_that_a_failover_has_forgotten_are_sent_again() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    for id in 0..30 {
        service.post("/anomalies", &cpu_event(id)).await.ok();
    }
    let repair = json!({"anomaly_key": KEY, "action": "restart", "success": true});
    service.post("/repairs", &repair).await.ok();
    let fix = json!({"anomaly_key": KEY, "fix_description": "raised the limit"});
    let fixed_at = service.put("/permanent-fix", &fix).await.ok()["fixed_at"].clone();
    // Nothing was saved or replicated: the server comes back empty.
    redis.restart();
    let known = eventually("all of it is there again", || async {
        let known = service.get(&format!("/anomalies/{KEY}")).await;
        (known.body["frequency"]["count_1h"] == 30
            && known.body["frequency"]["degraded"] == false
            && known.body["permanent_fix"]["fixed_at"] == fixed_at)
            .then_some(known.body)
    })
    .await;
    assert_eq!(known["frequency"]["auto_repair_count"], 1);
    assert_eq!(known["metadata"], json!({}));
}

#[tokio::test]
async fn scripts_that_the_server_has_forgotten_are_loaded_again_without_an_error() {
    let redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    let other = redis.client().await;
    let path = format!("/anomalies/{KEY}");
    for round in 1..4 {
        other.run(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(service.post("/anomalies", &cpu()).await.ok()["count_1h"], round);
        other.run(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(frequency(&service).await.ok()["count_1h"], round);
        other.run(&["SCRIPT", "FLUSH"]).await;
        service.get(&path).await.ok();
        other.run(&["SCRIPT", "FLUSH"]).await;
        let repair = json!({"anomaly_key": KEY, "action": "a", "success": true});
        assert_eq!(service.post("/repairs", &repair).await.ok()["total"], round);
        other.run(&["SCRIPT", "FLUSH"]).await;
        let fix = json!({"anomaly_key": KEY, "fix_description": "x"});
        service.put("/permanent-fix", &fix).await.ok();
        other.run(&["SCRIPT", "FLUSH"]).await;
        service.delete(&format!("/permanent-fix/{KEY}")).await.ok();
    }
}

#[tokio::test]
async fn the_first_use_of_a_script_is_no_reason_to_send_anything_again() {
    let redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    eventually("what the start asks is over", || async {
        service.log().contains("Redis at startup").then_some(())
    })
    .await;
    redis.client().await.run(&["CONFIG", "RESETSTAT"]).await;
    for id in 0..20 {
        service.post("/anomalies", &cpu_event(id)).await.ok();
    }
    frequency(&service).await.ok();
    service.get(&format!("/anomalies/{KEY}")).await.ok();
    // Writes are sent again within the interval of a probe.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let stats = redis.client().await.text(&["INFO", "commandstats"]).await.unwrap();
    let zadd = stats.lines().find(|line| line.starts_with("cmdstat_zadd:")).unwrap();
    assert!(zadd.starts_with("cmdstat_zadd:calls=20,"), "{zadd}");
}

#[tokio::test]
async fn a_redis_that_is_full_makes_writes_wait() {
    let redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    let other = redis.client().await;
    assert_eq!(service.post("/anomalies", &cpu()).await.ok()["count_1h"], 1);
    other.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_eq!(accepted(service.post("/anomalies", &cpu()).await)["count_1h"], 2);
    other.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    healthy_again(&service).await;
    assert_eq!(frequency(&service).await.ok()["count_1h"], 2);
}

#[tokio::test]
async fn a_damaged_spool_is_set_aside_and_its_readable_writes_are_applied() {
    let mut redis = RedisServer::start();
    let mut service = Service::on_redis(&redis).await;
    redis.kill();
    for id in 0..20 {
        accepted(service.post("/anomalies", &cpu_event(id)).await);
    }
    service.kill();
    // Destroy the head of the file, without which redb can't read the rest.
    let file = service.data_dir().join("spool.redb");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[..320].fill(0xA5);
    std::fs::write(&file, bytes).unwrap();

    let service = service.restart().await;
    assert!(service.log().contains("the spool's file is damaged"), "{}", service.log());
    assert_eq!(frequency(&service).await.ok()["count_1h"], 20);
    let names = std::fs::read_dir(service.data_dir()).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().any(|name| name.to_string_lossy().contains("damaged-")), "{names:?}");
    redis.restart();
    healthy_again(&service).await;
    assert_eq!(frequency(&service).await.ok()["count_1h"], 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_at_once_do_not_wait_one_timeout_after_the_other() {
    let redis = RedisServer::start();
    // One call is one batch, so that the callers need 600 of them.
    let options = [("REDIS__URL", &*redis.url()), ("REDIS__BATCH_ITEMS", "1")];
    let service = Arc::new(Service::with(&options).await);
    service.post("/anomalies", &cpu_event("first")).await.ok();
    let batches = record_batches(&service).await;
    redis.pause();
    let callers: Vec<_> = (0..600)
        .map(|id| {
            let service = Arc::clone(&service);
            tokio::spawn(async move {
                accepted(service.post("/anomalies", &cpu_event(id)).await);
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    // Only the batches in progress when the first one failed have waited for Redis.
    let waited = record_batches(&service).await - batches;
    assert!((1..=CONCURRENT_BATCHES).contains(&waited), "{waited} batches");
    redis.resume();
    healthy_again(&service).await;
    assert_eq!(frequency(&service).await.ok()["count_1h"], 601);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_under_load_lose_and_double_nothing() {
    let redis = RedisServer::start();
    const CALLERS: u64 = 8;
    const WRITES: u64 = 100;
    let service = Arc::new(Service::on_redis(&redis).await);
    let other = redis.client().await;
    let sent = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (service, sent) = (Arc::clone(&service), Arc::clone(&sent));
            tokio::spawn(async move {
                for number in 0..WRITES {
                    let body = cpu_event(format!("{caller}-{number}"));
                    let answer = service.post("/anomalies", &body).await;
                    assert!(answer.status.is_success(), "{} {}", answer.status, answer.body);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    // Connections are closed after every fiftieth write.
    for writes in (0..CALLERS * WRITES).step_by(50) {
        other.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        eventually("more is written", || async {
            (sent.load(Ordering::Relaxed) > writes).then_some(())
        })
        .await;
    }
    for caller in callers {
        caller.await.unwrap();
    }
    healthy_again(&service).await;
    assert_eq!(frequency(&service).await.ok()["count_1h"], CALLERS * WRITES);
}

#[tokio::test]
async fn a_redis_that_hangs_again_and_again_within_the_timeout_is_slow_and_no_outage() {
    let redis = RedisServer::start();
    let url = redis.url();
    let options = [("REDIS__URL", &*url), ("REDIS__COMMAND_TIMEOUT_MS", "20000")];
    let service = Service::with(&options).await;
    let slow = || metric(&service, "anomaly_counter_store_shards_slow");
    let hang = || async {
        redis.pause();
        let alert = json!({"alert_name": "HighCPU"});
        let written = async { service.post("/anomalies", &alert).await.ok() };
        let resumed = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            redis.resume();
        };
        let (answer, ()) = tokio::join!(written, resumed);
        assert_eq!(answer["degraded"], false);
        // The next pause is another hang.
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    hang().await;
    assert_eq!(slow().await, 0.0, "one slow call is nothing");
    for _ in 0..4 {
        hang().await;
    }
    assert_eq!(slow().await, 1.0);
    let log = service.log();
    assert_eq!(log.matches("the store is slow: calls repeatedly").count(), 1, "{log}");
    assert!(!log.contains("does not answer"), "{log}");
    assert_eq!(service.get("/readyz").await.ok()["status"], "ready");
}
