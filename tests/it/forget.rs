//! `DELETE /anomalies/{key}`: an anomaly is forgotten, and does not come back by itself.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, RedisServer, Service, eventually, healthy_again, key_of, metric};

fn path() -> String {
    format!("/anomalies/{}", key_of("HighCPU"))
}

fn crash() -> Value {
    json!({"alert_name": "HighCPU", "event_id": "e1"})
}

/// Records an anomaly with everything that is stored about one.
async fn fill(service: &Service) {
    service.post("/anomalies", &crash()).await.ok();
    service.post("/anomalies", &json!(vec![json!({"alert_name": "HighCPU"}); 4])).await.ok();
    let key = key_of("HighCPU").to_string();
    let repair = json!({"anomaly_key": key, "action": "restart", "success": true});
    service.post("/repairs", &repair).await.ok();
    let mark = json!({"anomaly_key": key, "fix_description": "more memory"});
    service.put("/permanent-fix", &mark).await.ok();
}

async fn is_unknown(service: &Service) {
    for more in ["", "/frequency", "/audit", "/history", "/repairs"] {
        service.get(&format!("{}{more}", path())).await.problem(404);
    }
}

/// Records the first event again, and checks that the anomaly begins again from zero.
async fn begins_anew(service: &Service) {
    let counted = service.post("/anomalies", &crash()).await.ok();
    assert_eq!(counted["counted"], true, "{counted}");
    assert_eq!(counted["count_30d"], 1, "{counted}");
    assert_eq!(counted["auto_repair_count"], 0, "{counted}");
    assert_eq!(counted["permanent_fix_applied"], false, "{counted}");
    let audit = service.get(&format!("{}/audit", path())).await.ok();
    assert_eq!(audit["entries"], json!([]));
}

#[tokio::test]
async fn an_anomaly_that_is_forgotten_is_unknown_and_begins_anew() {
    let redis = RedisServer::start();
    for service in [Service::embedded().await, Service::on_redis(&redis).await] {
        service.delete(&path()).await.problem(404);
        service.delete("/anomalies/HighCPU").await.problem(400);
        fill(&service).await;
        let forgotten = service.delete(&path()).await.ok();
        assert_eq!(forgotten["forgotten"], true);
        assert_eq!(forgotten["anomaly_key"], key_of("HighCPU").to_string());
        is_unknown(&service).await;
        service.delete(&path()).await.problem(404);
        let service = service.restart().await;
        is_unknown(&service).await;
        begins_anew(&service).await;
        let service = service.restart().await;
        let frequency = service.get(&format!("{}/frequency", path())).await.ok();
        assert_eq!(frequency["count_30d"], 1);
    }
}

#[tokio::test]
async fn the_log_has_the_token_that_an_anomaly_was_forgotten_with() {
    let service = crate::access::guarded().await;
    let key = key_of("HighCPU").to_string();
    let posted = service.request(Method::POST, "/anomalies").bearer_auth("ingest");
    Answer::of(posted.json(&crash())).await.ok();
    for token in ["ingest", "read"] {
        let request = service.request(Method::DELETE, &path()).bearer_auth(token);
        Answer::of(request).await.problem(403);
    }
    let request = service.request(Method::DELETE, &path()).bearer_auth("operate");
    Answer::of(request.header("x-request-id", "r-17")).await.ok();
    let log = service.log();
    let line = log.lines().find(|line| line.contains("is forgotten")).expect("a line");
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["key"], key, "{line}");
    assert_eq!(line["by"], "operate", "{line}");
    assert_eq!(line["token"], "operate", "{line}");
    assert_eq!(line["request_id"], "r-17", "{line}");
}

#[tokio::test]
async fn an_outage_refuses_to_forget_and_nothing_comes_back_afterwards() {
    let mut redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let service = Service::on_redis(&redis).await;
    fill(&service).await;
    redis.kill();
    assert_eq!(service.post("/anomalies", &crash()).await.status, 202);
    let refused = service.delete(&path()).await;
    assert!(refused.problem(503).contains("nothing was deleted"), "{}", refused.body);
    redis.restart();
    healthy_again(&service).await;
    service.delete(&path()).await.ok();
    is_unknown(&service).await;
    let service = service.restart().await;
    healthy_again(&service).await;
    is_unknown(&service).await;
    begins_anew(&service).await;
}

#[tokio::test]
async fn a_forgotten_anomaly_is_unknown_in_an_outage_too() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    fill(&service).await;
    service.get(&path()).await.ok();
    service.delete(&path()).await.ok();
    redis.kill();
    for more in ["", "/frequency", "/repairs", "/repairs/restart"] {
        service.get(&format!("{}{more}", path())).await.problem(503);
    }
    let posted = service.post("/anomalies", &crash()).await;
    assert_eq!(posted.status, 202);
    assert_eq!(posted.body["count_30d"], 1, "{}", posted.body);
    for unknown in ["auto_repair_count", "permanent_fix_applied", "as_of"] {
        assert_eq!(posted.body.get(unknown), Some(&Value::Null), "{}", posted.body);
    }
}

#[tokio::test]
async fn a_forgotten_anomaly_is_not_sent_again_and_not_reported_as_lost() {
    let redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    fill(&service).await;
    service.post("/anomalies", &json!({"alert_name": "Other"})).await.ok();
    service.delete(&path()).await.ok();
    begins_anew(&service).await;
    service.delete(&path()).await.ok();
    assert_eq!(metric(&service, "anomaly_counter_store_lost_writes_total").await, 0.0);

    redis.client().await.run(&["FLUSHALL"]).await;
    // The next answer about another anomaly shows that Redis has forgotten everything.
    let other = format!("/anomalies/{}/frequency", key_of("Other"));
    eventually("the other anomaly is sent again", || async {
        (service.get(&other).await.status == 200).then_some(())
    })
    .await;
    healthy_again(&service).await;
    is_unknown(&service).await;
}
