//! The script in `examples/remediation`, which repairs an anomaly as long as the service permits
//! it.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Service, eventually, http_client, key_of,
    servers::process::{Process, free_ports, listens_on},
    wall_clock,
};

/// An alert that the script repairs.
const ALERT: &str = "KubePodCrashLooping";

/// The running script. Its restarts are lines of a file.
struct Script {
    _process: Process,
    url: String,
    dir: TempDir,
}

impl Script {
    /// Restarts pods of `service` by a command that ends with this status.
    async fn start(service: &str, exit_status: u8) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/remediation/restart.py");
        let (dir, port) = (TempDir::new().unwrap(), free_ports(1)[0]);
        File::create(dir.path().join("restarts")).unwrap();
        let restart = format!("echo \"$@\" >>restarts; exit {exit_status}");
        let mut command = Command::new("python3");
        command.arg(path).args([service, &port.to_string(), "bash", "-c", &restart, "restart"]);
        let process = Process::spawn(&mut command, dir.path()).unwrap();
        eventually("the script listens", || async { listens_on(port).then_some(()) }).await;
        Self { _process: process, url: format!("http://127.0.0.1:{port}"), dir }
    }

    /// Delivers an alert as Alertmanager does, and returns the status.
    async fn deliver(&self, delivery: &Value) -> u16 {
        let client = http_client().build().unwrap();
        client.post(&self.url).json(delivery).send().await.unwrap().status().as_u16()
    }

    fn restarts(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join("restarts")).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

/// Returns a delivery of one alert that began this many seconds ago.
fn delivery(age_seconds: i64) -> Value {
    json!({"version": "4", "alerts": [{
        "status": "firing", "fingerprint": "f", "endsAt": "0001-01-01T00:00:00Z",
        "labels": {"alertname": ALERT, "namespace": "prod", "pod": "api-1"},
        "startsAt": wall_clock().minus_seconds(age_seconds).to_string(),
    }]})
}

/// Returns a delivery of its end, twenty seconds after it began.
fn end(age_seconds: i64) -> Value {
    let mut delivery = delivery(age_seconds);
    delivery["alerts"][0]["status"] = "resolved".into();
    delivery["alerts"][0]["endsAt"] =
        wall_clock().minus_seconds(age_seconds - 20).to_string().into();
    delivery
}

/// Returns the path of its anomaly.
fn anomaly_path() -> String {
    let mut fields = serde_json::Map::new();
    fields.insert("alert_name".to_owned(), ALERT.into());
    fields.insert("namespace".to_owned(), "prod".into());
    let signature = anomaly_counter::domain::Signature::from_fields(&fields).unwrap();
    format!("/anomalies/{}", signature.key())
}

#[tokio::test]
async fn the_script_restarts_until_the_level_says_that_it_does_not_help() {
    let service = Service::embedded().await;
    let script = Script::start(&format!("http://{}", service.address()), 0).await;
    for (number, restarts) in (1..).zip([1, 2, 3, 4, 4, 4, 4, 4, 4, 4]) {
        let age_seconds = 600 - number * 50;
        let episode = delivery(age_seconds);
        // Alertmanager sends it again, and then its end.
        for delivered in [&episode, &episode, &end(age_seconds)] {
            assert_eq!(script.deliver(delivered).await, 200);
            assert_eq!(script.restarts().len(), restarts);
        }
    }
    assert_eq!(script.restarts()[0], "--namespace=prod -- api-1");
    let known = service.get(&anomaly_path()).await.ok();
    assert_eq!(known["frequency"]["count_24h"], 10);
    assert_eq!(known["frequency"]["escalation_level"], "PERMANENT_FIX");
    assert_eq!(known["repairs"][0]["action"], "restart_pod");
    assert_eq!(known["repairs"][0]["total"], 4);
    assert_eq!(known["repairs"][0]["success"], 4);
}

#[tokio::test]
async fn the_script_gives_up_a_restart_that_does_not_help() {
    let service = Service::embedded().await;
    let script = Script::start(&format!("http://{}", service.address()), 1).await;
    for (age_seconds, restarts) in [(300, 1), (200, 2), (100, 2), (50, 2)] {
        for delivered in [delivery(age_seconds), end(age_seconds)] {
            assert_eq!(script.deliver(&delivered).await, 200);
            assert_eq!(script.restarts().len(), restarts);
        }
    }
    let known = service.get(&anomaly_path()).await.ok();
    assert_eq!(known["frequency"]["escalation_level"], "REPEAT");
    assert_eq!(known["repairs"][0]["total"], 2);
    assert_eq!(known["repairs"][0]["success"], 0);
}

#[tokio::test]
async fn the_script_restarts_each_pod_of_an_incident() {
    let service = Service::embedded().await;
    let script = Script::start(&format!("http://{}", service.address()), 0).await;
    let alerts: Vec<Value> = (1..=2)
        .map(|number| {
            let mut alert = delivery(60)["alerts"][0].clone();
            alert["fingerprint"] = format!("f{number}").into();
            alert["labels"]["pod"] = format!("api-{number}").into();
            alert
        })
        .collect();
    let rollout = json!({"version": "4", "alerts": alerts});
    for _ in 0..2 {
        assert_eq!(script.deliver(&rollout).await, 200);
        let pods = ["--namespace=prod -- api-1", "--namespace=prod -- api-2"];
        assert_eq!(script.restarts(), pods);
    }
    assert_eq!(service.get(&anomaly_path()).await.ok()["frequency"]["count_24h"], 1);
}

/// Delivers alerts of kube-state-metrics, each in a delivery of its own, with these labels besides.
async fn restarts_for(labels: &[Value]) -> (Service, Vec<String>) {
    let service = Service::embedded().await;
    let script = Script::start(&format!("http://{}", service.address()), 0).await;
    for (number, others) in (1..).zip(labels) {
        let mut delivery = delivery(60);
        let alert = &mut delivery["alerts"][0];
        alert["fingerprint"] = format!("f{number}").into();
        for (name, value) in others.as_object().unwrap() {
            alert["labels"][name] = value.clone();
        }
        assert_eq!(script.deliver(&delivery).await, 200);
    }
    let restarts = script.restarts();
    (service, restarts)
}

#[tokio::test]
async fn the_script_restarts_no_pod_of_other_alerts() {
    let (service, restarts) = restarts_for(&[json!({"alertname": "HighCPU"})]).await;
    assert_eq!(restarts, Vec::<String>::new());
    assert_eq!(service.get("/summary").await.ok()["anomalies"], 1, "it is counted");
}

#[tokio::test]
async fn the_script_restarts_the_pod_that_is_broken_and_not_its_exporter() {
    let exporter = json!({"namespace": "monitoring", "pod": "kube-state-metrics-0"});
    let (mut whole, mut without_pod) = (exporter.clone(), exporter);
    whole["exported_namespace"] = "shop".into();
    whole["exported_pod"] = "cart-1".into();
    without_pod["exported_namespace"] = "data".into();
    let (_service, restarts) = restarts_for(&[whole, without_pod]).await;
    assert_eq!(restarts, ["--namespace=shop -- cart-1"]);
}

#[tokio::test]
async fn the_script_restarts_nothing_that_came_back_after_its_fix() {
    let service = Service::embedded().await;
    let script = Script::start(&format!("http://{}", service.address()), 0).await;
    for sent in [delivery(300), end(300)] {
        assert_eq!(script.deliver(&sent).await, 200);
    }
    let key = anomaly_path().replace("/anomalies/", "");
    let fix = json!({"anomaly_key": key, "fix_description": "raised the limit"});
    service.put("/permanent-fix", &fix).await.ok();
    assert_eq!(script.deliver(&delivery(0)).await, 200);
    let known = service.get(&anomaly_path()).await.ok();
    assert_eq!(known["frequency"]["count_24h"], 2);
    assert_eq!(known["frequency"]["regressed"], true);
    assert_eq!(script.restarts().len(), 1);
}

#[tokio::test]
async fn the_script_restarts_nothing_without_an_answer() {
    let nobody = format!("http://127.0.0.1:{}", free_ports(1)[0]);
    let script = Script::start(&nobody, 0).await;
    assert_eq!(script.deliver(&delivery(60)).await, 503, "Alertmanager sends it again");
    let service = Service::embedded().await;
    let script = Script::start(&format!("http://{}", service.address()), 0).await;
    assert_eq!(script.deliver(&json!("no delivery")).await, 422, "which no repetition fixes");
    assert_eq!(script.restarts(), Vec::<String>::new());
    let unknown = service.get(&format!("/anomalies/{}", key_of(ALERT))).await;
    unknown.problem(404);
}
