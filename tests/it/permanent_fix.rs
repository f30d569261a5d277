//! Marking a permanent fix, removing the mark, and recurrences after it, over HTTP.

use serde_json::{Value, json};

use crate::support::{RedisServer, Service};

#[tokio::test]
async fn recurrence_after_a_mark_is_louder() {
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

        // After another mark, the recurrence lies before the mark.
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
async fn an_operators_typo_is_not_swallowed() {
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
