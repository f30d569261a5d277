//! Answers in an outage about values that the service has not seen: null or a 503, never a zero or
//! false.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Answer, Proxy, RedisServer, Service, Weather, healthy_again};

/// The key of `cpu()`.
const KEY: &str = "af03baee239021c4";

fn cpu() -> Value {
    json!({"alert_name": "HighCPU"})
}

fn restart(success: bool) -> Value {
    json!({"anomaly_key": KEY, "action": "restart_pod", "success": success})
}

#[track_caller]
fn accepted(answer: Answer) -> Value {
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.body
}

#[track_caller]
fn assert_null(body: &Value, members: &[&str]) {
    for member in members {
        assert_eq!(body.get(member), Some(&Value::Null), "{member} of {body}");
    }
}

async fn of_anomaly(service: &Service, path: &str) -> Answer {
    service.get(&format!("/anomalies/{KEY}{path}")).await
}

/// Starts two services on one Redis. The second one has never seen the anomaly: it may neither look
/// for anomalies nor read the announcements of the first.
async fn stranger(redis: &RedisServer) -> (Service, Service) {
    let service = Service::on_redis(redis).await;
    for _ in 0..4 {
        service.post("/anomalies", &cpu()).await.ok();
    }
    for command in ["-scan", "-xread"] {
        redis.client().await.run(&["ACL", "SETUSER", "default", command]).await;
    }
    let stranger = Service::on_redis(redis).await;
    (service, stranger)
}

#[tokio::test]
async fn if_only_occurrences_wait_repairs_and_the_mark_are_unknown() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    service.post("/anomalies", &cpu()).await.ok();
    for _ in 0..5 {
        service.post("/repairs", &restart(false)).await.ok();
    }
    redis.kill();
    let service = service.restart().await;
    for path in ["", "/frequency", "/repairs", "/repairs/restart_pod", "/audit", "/history"] {
        of_anomaly(&service, path).await.problem(503);
    }
    let unknown =
        ["first_seen", "auto_repair_count", "permanent_fix_applied", "regressed", "as_of"];
    let posted = accepted(service.post("/anomalies", &cpu()).await);
    assert_null(&posted, &unknown);
    assert_eq!(posted["count_24h"], 1);
    let posted = accepted(service.post("/anomalies", &json!([cpu(), cpu()])).await);
    assert_null(&posted[1], &unknown);
    assert_eq!(posted[1]["count_24h"], 3, "a lower bound");
    let read = of_anomaly(&service, "/frequency").await.ok();
    assert_null(&read, &unknown);
    assert_eq!(read["degraded"], true);

    let known = of_anomaly(&service, "").await.ok();
    assert_null(&known, &["metadata", "known_since", "permanent_fix", "repairs"]);
    assert_eq!(known["signature"]["alert_name"], "HighCPU", "the waiting write has it");
    let found = service.get("/anomalies/lookup?alert_name=HighCPU").await.ok();
    assert_eq!(found["signature"], known["signature"]);
    assert_null(&known, &["as_of"]);
    assert_eq!(known["degraded"], true);
    for path in ["/repairs", "/repairs/restart_pod", "/audit", "/history"] {
        of_anomaly(&service, path).await.problem(503);
    }

    let repair = accepted(service.post("/repairs", &restart(true)).await);
    assert_null(&repair, &["total", "success", "success_rate", "auto_repair_count", "as_of"]);
    assert_eq!(repair["counted"], true);
    for path in ["/repairs", "/repairs/restart_pod"] {
        of_anomaly(&service, path).await.problem(503);
    }
    let path = format!("/permanent-fix/{KEY}");
    let removed = accepted(service.delete(&path).await);
    assert_null(&removed, &["removed", "as_of"]);
    let read = of_anomaly(&service, "/frequency").await.ok();
    assert_eq!(read["permanent_fix_applied"], false, "once the removal is applied");
    assert_eq!(read["regressed"], false);
    let fix = json!({"anomaly_key": KEY, "fix_description": "raised the limit"});
    let marked = accepted(service.put("/permanent-fix", &fix).await);
    assert_eq!(marked["permanent_fix_applied"], true);
    let read = of_anomaly(&service, "/frequency").await.ok();
    assert_eq!(read["permanent_fix_applied"], true);
    assert_null(&read, &["regressed"]);
    assert_eq!(accepted(service.delete(&path).await)["removed"], true, "the mark that waits");
}

#[tokio::test]
async fn if_only_repairs_or_marks_wait_counts_are_unknown() {
    let mut redis = RedisServer::start();
    redis.kill();
    let service = Service::on_redis(&redis).await;
    accepted(service.post("/repairs", &restart(false)).await);
    let fix = json!({"anomaly_key": KEY, "fix_description": "raised the limit"});
    accepted(service.put("/permanent-fix", &fix).await);
    for path in ["", "/frequency", "/repairs", "/repairs/restart_pod", "/audit", "/history"] {
        of_anomaly(&service, path).await.problem(503);
    }
}

#[tokio::test]
async fn known_repairs_without_counts_give_advice_and_no_counts() {
    let mut redis = RedisServer::start();
    let (_other, service) = stranger(&redis).await;
    for _ in 0..5 {
        service.post("/repairs", &restart(false)).await.ok();
    }
    redis.kill();
    for path in ["", "/frequency", "/audit"] {
        of_anomaly(&service, path).await.problem(503);
    }
    let advice = of_anomaly(&service, "/repairs/restart_pod").await.ok();
    assert_eq!(advice["should_skip"], true);
    assert_eq!(advice["total"], 5);
    assert_eq!(advice["degraded"], true);
    assert!(advice["as_of"].is_string(), "{advice}");
    let repair = accepted(service.post("/repairs", &restart(true)).await);
    assert_eq!(repair["total"], 6);
    assert_eq!(repair["success"], 1);
    let list = of_anomaly(&service, "/repairs").await.ok();
    assert_eq!(list["auto_repair_count"], 6);
    assert_eq!(list["attempts"].as_array().map(Vec::len), Some(6));

    let posted = accepted(service.post("/anomalies", &cpu()).await);
    assert_eq!(posted["auto_repair_count"], 6);
    assert_null(&posted, &["first_seen", "permanent_fix_applied", "regressed"]);
    let known = of_anomaly(&service, "").await.ok();
    assert_eq!(known["repairs"][0]["total"], 6);
    assert_null(&known, &["metadata", "permanent_fix"]);
}

#[tokio::test]
async fn an_anomaly_that_was_marked_is_known_with_its_counts() {
    let mut redis = RedisServer::start();
    let (_other, service) = stranger(&redis).await;
    let fix = json!({"anomaly_key": KEY, "fix_description": "raised the limit"});
    let fixed_at = service.put("/permanent-fix", &fix).await.ok()["fixed_at"].clone();
    redis.kill();
    let read = of_anomaly(&service, "/frequency").await.ok();
    assert_eq!(read["count_24h"], 4, "read with the mark, for lists");
    assert_eq!(read["permanent_fix_applied"], true);
    let posted = accepted(service.post("/anomalies", &cpu()).await);
    assert_eq!(posted["permanent_fix_applied"], true);
    assert_eq!(posted["regressed"], true);
    assert_eq!(posted["count_24h"], 5);
    let known = of_anomaly(&service, "").await.ok();
    assert_eq!(known["permanent_fix"]["fix_description"], "raised the limit");
    assert_eq!(known["permanent_fix"]["fixed_at"], fixed_at);
    let removed = accepted(service.delete(&format!("/permanent-fix/{KEY}")).await);
    assert_eq!(removed["removed"], true);
    let again = accepted(service.delete(&format!("/permanent-fix/{KEY}")).await);
    assert_eq!(again["removed"], false);
    assert_eq!(of_anomaly(&service, "").await.ok()["permanent_fix"], Value::Null);
}

#[tokio::test]
async fn known_counts_give_the_number_of_repairs_without_their_actions() {
    let mut redis = RedisServer::start();
    let (other, service) = stranger(&redis).await;
    for _ in 0..5 {
        other.post("/repairs", &restart(false)).await.ok();
    }
    let seen = of_anomaly(&service, "/frequency").await.ok();
    assert_eq!(seen["auto_repair_count"], 5);
    assert_eq!(seen.get("as_of"), None, "the store has answered");
    redis.kill();
    let posted = accepted(service.post("/anomalies", &cpu()).await);
    assert_eq!(posted["auto_repair_count"], 5);
    assert_eq!(posted["permanent_fix_applied"], false);
    assert_eq!(posted["regressed"], false);
    assert_eq!(posted["first_seen"], seen["first_seen"]);
    for path in ["/repairs", "/repairs/restart_pod"] {
        of_anomaly(&service, path).await.problem(503);
    }
    assert_eq!(of_anomaly(&service, "").await.ok()["repairs"], Value::Null);
}

#[tokio::test]
async fn a_repair_history_that_lacks_attempts_gives_no_advice() {
    let mut redis = RedisServer::start();
    let (other, service) = stranger(&redis).await;
    service.post("/repairs", &restart(true)).await.ok();
    for _ in 0..5 {
        other.post("/repairs", &restart(false)).await.ok();
    }
    service.post("/anomalies", &cpu()).await.ok();
    redis.kill();
    accepted(service.post("/anomalies", &cpu()).await);
    of_anomaly(&service, "/repairs/restart_pod").await.problem(503);
}

#[tokio::test]
async fn reads_are_complete_and_degraded_while_writes_wait_although_redis_answers() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.port()).await;
    let options = [("REDIS__URL", &*proxy.url()), ("DEGRADED__REPLAY_PER_SECOND", "2")];
    let service = Service::with(&options).await;
    service.post("/anomalies", &cpu()).await.ok();
    service.post("/repairs", &restart(false)).await.ok();
    proxy.set(Weather::BlackHole);
    for number in 0..20 {
        accepted(service.post("/anomalies", &json!({"alert_name": format!("A{number}")})).await);
    }
    accepted(service.post("/repairs", &restart(false)).await);
    accepted(service.post("/anomalies", &cpu()).await);
    accepted(service.post("/repairs", &restart(true)).await);
    let new = json!({"alert_name": "New"});
    let new_key = accepted(service.post("/anomalies", &new).await)["anomaly_key"].clone();
    proxy.set(Weather::Fair);
    proxy.cut();
    // The first waiting writes are applied soon, these only some seconds later.
    let read = crate::support::eventually("Redis answers", || async {
        let read = of_anomaly(&service, "/audit").await;
        (read.status == 200).then_some(read.body)
    })
    .await;
    assert_eq!(read["degraded"], true, "{read}");
    assert_eq!(read["entries"].as_array().map(Vec::len), Some(1), "what took effect");
    let list = of_anomaly(&service, "/repairs").await.ok();
    assert_eq!(list["degraded"], true);
    assert_eq!(list["attempts"].as_array().map(Vec::len), Some(3));
    assert_eq!(list["auto_repair_count"], 3);
    let known = of_anomaly(&service, "").await.ok();
    assert_eq!(known["degraded"], true);
    assert_eq!(known["repairs"][0]["total"], 3);
    assert_eq!(known["frequency"]["count_24h"], 2);
    assert_eq!(known["signature"]["alert_name"], "HighCPU");
    let new_key = new_key.as_str().unwrap();
    let unheard_of = service.get(&format!("/anomalies/{new_key}/audit")).await.ok();
    assert_eq!(unheard_of["entries"], json!([]));
    assert_eq!(unheard_of["degraded"], true);
    service.get(&format!("/anomalies/{new_key}/history")).await.problem(503);
    let history = of_anomaly(&service, "/history").await.ok();
    assert_eq!(history["degraded"], true);
    assert_eq!(history["total"], 1, "a lower bound");
    let new = service.get(&format!("/anomalies/{new_key}")).await.ok();
    assert_eq!(new["signature"]["alert_name"], "New", "only the waiting write has it");
    assert_eq!(new["frequency"]["auto_repair_count"], 0, "the store has said so");
    healthy_again(&service).await;
    let known = of_anomaly(&service, "").await.ok();
    assert_eq!(known["degraded"], false);
    assert_eq!(known.get("as_of"), None);
    assert_eq!(known["repairs"][0]["total"], 3);
}

#[tokio::test]
async fn a_repair_that_was_applied_without_a_reply_is_listed_once() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.port()).await;
    let options = [("REDIS__URL", &*proxy.url()), ("DEGRADED__REPLAY_PER_SECOND", "1")];
    let service = Service::with(&options).await;
    service.post("/anomalies", &cpu()).await.ok();
    service.post("/repairs", &restart(true)).await.ok();
    proxy.set(Weather::NoReplies);
    // Redis applies it, and the service can't know.
    accepted(service.post("/repairs", &restart(false)).await);
    proxy.set(Weather::BlackHole);
    accepted(service.post("/repairs", &restart(true)).await);
    let estimate = of_anomaly(&service, "/repairs").await.ok();
    assert_eq!(estimate["attempts"].as_array().map(Vec::len), Some(3));
    proxy.set(Weather::Fair);
    proxy.cut();
    loop {
        let list = of_anomaly(&service, "/repairs").await.ok();
        assert_eq!(list["attempts"].as_array().map(Vec::len), Some(3), "{list}");
        assert_eq!(list["auto_repair_count"], 3);
        if list["degraded"] == false {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn writes_applied_by_a_replay_are_known_in_the_next_outage() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.port()).await;
    let service = Service::with(&[("REDIS__URL", &*proxy.url())]).await;
    service.post("/anomalies", &cpu()).await.ok();
    let read = of_anomaly(&service, "/repairs/restart_pod").await.ok();
    assert_eq!(read["total"], 0);
    proxy.set(Weather::BlackHole);
    accepted(service.post("/anomalies", &cpu()).await);
    for _ in 0..5 {
        accepted(service.post("/repairs", &restart(false)).await);
    }
    let fix = json!({"anomaly_key": KEY, "fix_description": "raised the limit"});
    accepted(service.put("/permanent-fix", &fix).await);
    proxy.set(Weather::Fair);
    proxy.cut();
    healthy_again(&service).await;
    // Nothing was read since then.
    proxy.set(Weather::BlackHole);
    accepted(service.post("/anomalies", &json!({"alert_name": "Other"})).await);
    let advice = of_anomaly(&service, "/repairs/restart_pod").await.ok();
    assert_eq!(advice["should_skip"], true, "{advice}");
    assert_eq!(advice["total"], 5);
    let read = of_anomaly(&service, "").await.ok();
    assert_eq!(read["degraded"], true);
    assert_eq!(read["repairs"][0]["total"], 5);
    assert_eq!(read["permanent_fix"]["fix_description"], "raised the limit");
    assert_eq!(read["frequency"]["auto_repair_count"], 5);
    assert_eq!(read["frequency"]["permanent_fix_applied"], true);
    assert_eq!(read["frequency"]["count_24h"], 2);
    let removed = accepted(service.delete(&format!("/permanent-fix/{KEY}")).await);
    assert_eq!(removed["removed"], true);
}

#[tokio::test]
async fn no_answer_lacks_a_repair_or_a_mark_while_it_is_applied() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.port()).await;
    let options = [("REDIS__URL", &*proxy.url()), ("REDIS__COMMAND_TIMEOUT_MS", "200")];
    let service = Service::with(&options).await;
    service.post("/anomalies", &cpu()).await.ok();
    of_anomaly(&service, "/repairs").await.ok();
    for round in 1..=5_usize {
        proxy.set(Weather::BlackHole);
        accepted(service.post("/anomalies", &json!({"alert_name": "Other"})).await);
        let repair = json!({
            "anomaly_key": KEY, "action": format!("action {round}"), "success": false,
        });
        accepted(service.post("/repairs", &repair).await);
        let is_marked = round % 2 == 1;
        match is_marked {
            true => {
                let fix = json!({"anomaly_key": KEY, "fix_description": "raised the limit"});
                accepted(service.put("/permanent-fix", &fix).await);
            }
            false => drop(accepted(service.delete(&format!("/permanent-fix/{KEY}")).await)),
        }
        proxy.set(Weather::Fair);
        proxy.cut();
        let mut answered = 0;
        while answered < 5 {
            let list = of_anomaly(&service, "/repairs").await.ok();
            assert_eq!(list["auto_repair_count"], round, "{list}");
            assert_eq!(list["attempts"].as_array().map(Vec::len), Some(round), "{list}");
            for path in ["", "/frequency"] {
                let read = of_anomaly(&service, path).await.ok();
                let frequency = read.get("frequency").unwrap_or(&read);
                assert_eq!(frequency["auto_repair_count"], round, "{read}");
                assert_eq!(frequency["permanent_fix_applied"], is_marked, "{read}");
                answered += usize::from(read["degraded"] == false);
            }
        }
        healthy_again(&service).await;
    }
}
