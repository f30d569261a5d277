//! A disk that hangs: calls are answered within `store.write_timeout_ms`, no read shows writes that
//! may not be durable, no acknowledged write is lost, and the process can be ended.

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Answer, HangingDisk, RedisServer, Service, anomaly_counter, eventually, healthy_again, key_of,
    metric,
};

const TIMEOUT: (&str, &str) = ("STORE__WRITE_TIMEOUT_MS", "300");

/// Time limit of an immediate answer, far below the time for which the disk hangs: until the test
/// lets it answer.
const AT_ONCE: Duration = Duration::from_secs(5);

fn event(name: &str, id: &str) -> Value {
    json!({"alert_name": name, "event_id": id})
}

async fn count(service: &Service, name: &str) -> Value {
    let path = format!("/anomalies/{}/frequency", key_of(name));
    service.get(&path).await.ok()["count_1h"].clone()
}

/// Returns the event id of an answer that says that the event may count.
#[track_caller]
fn may_count(answer: &Answer) -> String {
    let detail = answer.problem(503);
    assert!(detail.contains("may have been counted: retry with the event_id"), "{detail}");
    let id = answer.body["event_id"].as_str().unwrap_or_else(|| panic!("{}", answer.body));
    assert!(detail.contains(id), "{detail}");
    id.to_owned()
}

/// Asserts that the call had no effect, because of the disk of `file`.
#[track_caller]
fn was_refused(answer: &Answer, file: &str) {
    let detail = answer.problem(503);
    assert!(detail.contains(file) && detail.contains("had no effect"), "{detail}");
    assert_eq!(answer.body["event_id"], Value::Null);
}

#[tokio::test]
async fn while_the_embedded_stores_disk_hangs_calls_are_503_within_the_timeout() {
    let disk = HangingDisk::new();
    let service = disk.service(&[TIMEOUT]).await;
    let key = key_of("HighCPU");
    service.post("/anomalies", &event("HighCPU", "1")).await.ok();
    disk.hang();
    let begun_at = Instant::now();
    // If the caller gives no id, the answer has the generated one.
    let without_id = json!({"alert_name": "HighCPU"});
    let (hung, queued) = tokio::join!(service.post("/anomalies", &without_id), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let repair = json!({"anomaly_key": key, "action": "restart", "success": true});
        service.post("/repairs", &repair).await
    },);
    assert!(begun_at.elapsed() < AT_ONCE);
    let hung_id = may_count(&hung);
    was_refused(&queued, "anomalies.redb");
    was_refused(&service.post("/anomalies", &event("HighCPU", "3")).await, "anomalies.redb");

    // Reads must neither show nor hide a write that may not be durable.
    for path in ["/frequency", "", "/repairs", "/repairs/restart", "/audit", "/history"] {
        service.get(&format!("/anomalies/{key}{path}")).await.problem(503);
    }
    let ready = service.get("/readyz").await.ok();
    assert_eq!((&ready["status"], &ready["cause"]), (&json!("degraded"), &json!("disk")));
    service.get("/healthz").await.ok();
    assert!(begun_at.elapsed() < AT_ONCE);

    disk.answer();
    healthy_again(&service).await;
    assert_eq!(count(&service, "HighCPU").await, 2, "the one under way is durable");
    let again = service.post("/anomalies", &event("HighCPU", &hung_id)).await.ok();
    assert_eq!((&again["counted"], &again["count_1h"]), (&json!(false), &json!(2)));
    let repairs = service.get(&format!("/anomalies/{key}/repairs")).await.ok();
    assert_eq!(repairs["auto_repair_count"], 0, "{repairs}");
    let log = service.log();
    assert_eq!(log.matches("the store does not answer").count(), 1, "{log}");
    assert_eq!(log.matches("the store answers again").count(), 1, "{log}");
    let service = service.restart().await;
    assert_eq!(count(&service, "HighCPU").await, 2);
}

#[tokio::test]
async fn a_process_whose_disk_hangs_can_be_ended() {
    let disk = HangingDisk::new();
    let redis = RedisServer::start();
    for url in [None, Some(redis.url())] {
        let mut options = vec![TIMEOUT, ("HTTP__SHUTDOWN_TIMEOUT_SECONDS", "2")];
        options.extend(url.as_deref().map(|url| ("REDIS__URL", url)));
        let mut service = disk.service(&options).await;
        redis.pause();
        disk.hang();
        may_count(&service.post("/anomalies", &event("HighCPU", "1")).await);
        let begun_at = Instant::now();
        service.terminate();
        assert!(service.ended_well().await);
        assert!(begun_at.elapsed() < AT_ONCE);
        disk.answer();
        redis.resume();
    }
}

#[tokio::test]
async fn a_write_whose_spool_hangs_keeps_its_place_in_the_order() {
    let disk = HangingDisk::new();
    let mut redis = RedisServer::start();
    let service = disk.service(&[TIMEOUT, ("REDIS__URL", &redis.url())]).await;
    redis.kill();
    assert_eq!(service.post("/anomalies", &event("HighCPU", "1")).await.status, 202);
    assert_eq!(service.get("/readyz").await.ok()["spool"]["usable"], true);
    disk.hang();
    let begun_at = Instant::now();
    let hung = service.post("/anomalies", &event("HighCPU", "2")).await;
    assert_eq!(may_count(&hung), "2");
    was_refused(&service.post("/anomalies", &event("HighCPU", "3")).await, "spool.redb");
    assert_eq!(service.get("/readyz").await.ok()["spool"]["usable"], false);
    assert_eq!(metric(&service, "anomaly_counter_spool_unusable").await, 1.0);
    assert!(begun_at.elapsed() < AT_ONCE);

    // With Redis back, calls about anomalies without waiting writes are served as usual.
    redis.restart();
    let is_served = || async {
        (service.post("/anomalies", &event("Other", "1")).await.status == 200).then_some(())
    };
    eventually("another anomaly is counted", is_served).await;
    was_refused(&service.post("/anomalies", &event("HighCPU", "4")).await, "spool.redb");

    disk.answer();
    healthy_again(&service).await;
    assert_eq!(count(&service, "HighCPU").await, 2, "the one under way has waited");
    let again = service.post("/anomalies", &event("HighCPU", "2")).await.ok();
    assert_eq!(again["counted"], false);
    eventually("the spool is usable", || async {
        (metric(&service, "anomaly_counter_spool_unusable").await == 0.0).then_some(())
    })
    .await;
    let log = service.log();
    assert_eq!(log.matches("the spool can't be used").count(), 1, "{log}");
    assert_eq!(log.matches("the spool can be used again").count(), 1, "{log}");
}

#[tokio::test]
async fn applied_writes_leave_a_spool_that_hung_meanwhile() {
    let disk = HangingDisk::new();
    let redis = RedisServer::start();
    let service = disk.service(&[TIMEOUT, ("REDIS__URL", &redis.url())]).await;
    redis.pause();
    for id in 0..20 {
        let answer = service.post("/anomalies", &event("HighCPU", &id.to_string())).await;
        assert_eq!(answer.status, 202);
    }
    // The disk has recorded that they are sent, but not that they were applied.
    disk.hang_after(1);
    redis.resume();
    let is_over = |usable| {
        let service = &service;
        async move {
            let ready = service.get("/readyz").await.ok();
            (ready["spool"]["usable"] == usable).then_some(ready)
        }
    };
    let ready = eventually("the spool is noticed to hang", || is_over(false)).await;
    assert_eq!(ready["spool"]["operations"], 20, "it is not known whether they have left it");
    let other = service.post("/anomalies", &event("Other", "1")).await.ok();
    assert_eq!(other["degraded"], false);
    disk.answer();
    healthy_again(&service).await;
    assert_eq!(count(&service, "HighCPU").await, 20);
    eventually("the spool is usable", || is_over(true)).await;
}

#[tokio::test]
async fn a_start_on_a_disk_that_hangs_ends_at_once_on_sigterm() {
    let disk = HangingDisk::new();
    disk.hang();
    for redis_url in [None, Some("redis://127.0.0.1:1")] {
        let dir = TempDir::new().unwrap();
        let mut command = anomaly_counter(&[]);
        command
            .envs(disk.environment())
            .envs(redis_url.map(|url| ("ANOMALY_COUNTER__REDIS__URL", url)));
        command.env("ANOMALY_COUNTER__LISTEN", "127.0.0.1:0");
        command.env("ANOMALY_COUNTER__DATA_DIR", dir.path());
        let mut start = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the start has come to its disk", || async {
            fs::read_dir(dir.path()).unwrap().next().map(|_| ())
        })
        .await;
        assert_eq!(start.try_wait().unwrap(), None, "it waits for the disk");
        let told_at = Instant::now();
        let sent = Command::new("kill").args(["-TERM", &start.id().to_string()]).status();
        assert!(sent.unwrap().success());
        let ended = loop {
            match start.try_wait().unwrap() {
                None if told_at.elapsed() < 2 * AT_ONCE => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                ended => break ended,
            }
        };
        let _ = start.kill();
        assert!(ended.is_some_and(|status| status.success()), "{redis_url:?}: {ended:?}");
    }
}
