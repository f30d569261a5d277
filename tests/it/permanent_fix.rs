//! Marking a permanent fix, removing the mark, and recurrences after it, over HTTP.

use anomaly_counter::auth::TokenDigest;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, RedisServer, Service, key_of};

#[tokio::test]
async fn a_recurrence_after_a_mark_is_a_regression() {
    let redis = RedisServer::start();
    for service in [Service::embedded().await, Service::on_redis(&redis).await] {
        let crash = json!({"alert_name": "HighCPU"});
        let key = service.post("/anomalies", &crash).await.ok()["anomaly_key"].clone();
        let mark = json!({
            "anomaly_key": key, "fix_description": "raised the memory limit", "fixed_by": "ops",
        });
        let marked = service.put("/permanent-fix", &mark).await.ok();
        assert_eq!(marked["permanent_fix_applied"], true);

        let path = format!("/anomalies/{}", key.as_str().unwrap());
        let quiet = service.get(&format!("{path}/frequency")).await.ok();
        assert_eq!(quiet["permanent_fix_applied"], true);
        assert_eq!(quiet["regressed"], false);
        let again = service.post("/anomalies", &crash).await.ok();
        assert_eq!(again["regressed"], true);

        let fix = service.get(&path).await.ok()["permanent_fix"].clone();
        assert_eq!(fix["fix_description"], "raised the memory limit");
        assert_eq!(fix["fixed_by"], "ops");
        assert_eq!(fix["fixed_at"], marked["fixed_at"]);

        // After another mark, the recurrence is older than the mark.
        service.put("/permanent-fix", &mark).await.ok();
        assert_eq!(service.get(&format!("{path}/frequency")).await.ok()["regressed"], false);

        let undo = format!("/permanent-fix/{}", key.as_str().unwrap());
        assert_eq!(service.delete(&undo).await.ok()["removed"], true);
        assert_eq!(service.delete(&undo).await.ok()["removed"], false);
        let known = service.get(&path).await.ok();
        assert_eq!(known["permanent_fix"], Value::Null);
        assert_eq!(known["frequency"]["permanent_fix_applied"], false);
        assert_eq!(known["frequency"]["regressed"], false);
    }
}

#[tokio::test]
async fn an_unknown_field_is_refused() {
    let service = Service::embedded().await;
    let key =
        service.post("/anomalies", &json!({"alert_name": "A"})).await.ok()["anomaly_key"].clone();
    let unknown = json!({"anomaly_key": "0123456789abcdef", "fix_description": "x"});
    service.put("/permanent-fix", &unknown).await.problem(404);
    service.delete("/permanent-fix/0123456789abcdef").await.problem(404);
    service.delete("/permanent-fix/0123456789abcde").await.problem(400);
    let cases = [
        (json!({"anomaly_key": key}), "fix_description"),
        (json!({"anomaly_key": key, "fix_description": "  "}), "fix_description"),
        (json!({"anomaly_key": key, "fix_description": "nul\u{0}"}), "fix_description"),
        (json!({"anomaly_key": key, "fix_description": "x".repeat(4_001)}), "fix_description"),
        (json!({"anomaly_key": key, "fix_description": "x", "fixed_by": 7}), "fixed_by"),
        (json!({"anomaly_key": key, "fix_description": "x", "fixed": "y"}), "fixed"),
    ];
    for (body, field) in cases {
        let answer = service.put("/permanent-fix", &body).await;
        answer.problem(422);
        assert_eq!(answer.body["field"], field, "{body}");
    }
    let path = format!("/anomalies/{}", key.as_str().unwrap());
    assert_eq!(service.get(&path).await.ok()["permanent_fix"], Value::Null);
}

/// Starts a service with one token, which has all scopes.
async fn with_token(more: &str) -> Service {
    let scopes = "[\"ingest\", \"read\", \"operate\"]";
    let digest = TokenDigest::of("t0ken");
    let token =
        format!("[[tokens]]\nname = \"console\"\nsha256 = \"{digest}\"\nscopes = {scopes}\n");
    let config = format!("auth.file = \"tokens.toml\"\n{more}");
    Service::with_files(&config, &[("tokens.toml", &token)]).await
}

async fn call(service: &Service, method: Method, path: &str, body: Option<Value>) -> Value {
    let request = service.request(method, path).bearer_auth("t0ken");
    let request = match body {
        Some(body) => request.json(&body),
        None => request,
    };
    Answer::of(request).await.ok()
}

#[tokio::test]
async fn the_audit_has_the_name_that_was_given_and_the_name_of_the_token() {
    let redis = RedisServer::start();
    let on_redis = format!("redis.url = \"{}\"", redis.url());
    for service in [with_token("").await, with_token(&on_redis).await] {
        let key = key_of("HighCPU").to_string();
        let crash = json!({"alert_name": "HighCPU"});
        call(&service, Method::POST, "/anomalies", Some(crash)).await;
        let mark = |fixed_by: Option<&str>| {
            let mut mark = json!({"anomaly_key": key, "fix_description": "more memory"});
            if let Some(name) = fixed_by {
                mark["fixed_by"] = name.into();
            }
            call(&service, Method::PUT, "/permanent-fix", Some(mark))
        };
        let path = format!("/permanent-fix/{key}");
        let unmark = |body: Option<Value>| call(&service, Method::DELETE, &path, body);

        assert_eq!(mark(Some("ana")).await["fixed_by"], "ana");
        let removal = json!({"removed_by": "ben", "reason": "it came back"});
        assert_eq!(unmark(Some(removal)).await["removed"], true);
        assert_eq!(mark(None).await["fixed_by"], "console", "the token's name");
        assert_eq!(unmark(None).await["removed"], true);

        let path = format!("/anomalies/{key}/audit");
        let audit = call(&service, Method::GET, &path, None).await;
        let entries = audit["entries"].as_array().unwrap();
        let events: Vec<&Value> = entries.iter().map(|entry| &entry["event"]).collect();
        let (marked, unmarked) = ("marked_fixed", "unmarked_fixed");
        assert_eq!(events, [unmarked, marked, unmarked, marked]);
        let by: Vec<&Value> = entries.iter().map(|entry| &entry["by"]).collect();
        assert_eq!(by, ["console", "console", "ben", "ana"]);
        assert!(entries.iter().all(|entry| entry["token"] == "console"), "{audit}");
        assert_eq!(entries[2]["reason"], "it came back");
        assert_eq!(entries[0]["reason"], Value::Null);
    }
}

#[tokio::test]
async fn the_name_and_the_reason_of_a_removal_survive_an_outage() {
    let mut redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let service = Service::on_redis(&redis).await;
    let key = service.post("/anomalies", &json!({"alert_name": "A"})).await.ok()["anomaly_key"]
        .as_str()
        .unwrap()
        .to_owned();
    let mark = json!({"anomaly_key": key, "fix_description": "x", "fixed_by": "ana"});
    service.put("/permanent-fix", &mark).await.ok();
    redis.kill();
    let removal = json!({"removed_by": "ben", "reason": "it came back"});
    let request = service.request(Method::DELETE, &format!("/permanent-fix/{key}")).json(&removal);
    assert_eq!(Answer::of(request).await.status, 202);
    let service = service.restart().await;
    redis.restart();
    crate::support::healthy_again(&service).await;
    let audit = service.get(&format!("/anomalies/{key}/audit")).await.ok();
    assert_eq!(audit["entries"][0]["event"], "unmarked_fixed", "{audit}");
    assert_eq!(audit["entries"][0]["by"], "ben");
    assert_eq!(audit["entries"][0]["token"], Value::Null);
    assert_eq!(audit["entries"][0]["reason"], "it came back");
}

#[tokio::test]
async fn the_body_of_a_removal_may_be_left_out_and_takes_no_unknown_fields() {
    let service = Service::embedded().await;
    let key = key_of("A").to_string();
    service.post("/anomalies", &json!({"alert_name": "A"})).await.ok();
    let path = format!("/permanent-fix/{key}");
    let delete = |body: &Value| Answer::of(service.request(Method::DELETE, &path).json(body));
    for (body, field) in [
        (json!({"removed": "ben"}), "removed"),
        (json!({"fixed_by": "ben"}), "fixed_by"),
        (json!({"removed_by": " "}), "removed_by"),
        (json!({"reason": 7}), "reason"),
        (json!({"reason": "x".repeat(4_001)}), "reason"),
    ] {
        let answer = delete(&body).await;
        answer.problem(422);
        assert_eq!(answer.body["field"], field, "{body}");
    }
    delete(&json!(["ben"])).await.problem(422);
    let text = service.request(Method::DELETE, &path).body("reason=x");
    Answer::of(text).await.problem(415);
    delete(&json!({})).await.ok();
    delete(&json!(null)).await.ok();
    delete(&json!({"removed_by": null, "reason": null})).await.ok();
    service.delete(&path).await.ok();
    // Some clients send a content type with every request, also without a body.
    let empty = service.request(Method::DELETE, &path).header("content-type", "application/json");
    Answer::of(empty).await.ok();
}
