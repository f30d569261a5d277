//! A real Alertmanager sends a token, in both of its ways, and deliveries in Grafana's format are
//! accepted with one. (Prometheus does so in `metrics.rs`.)

use std::{fs, process::Command};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    alertmanager::grafana_delivery,
    support::{
        Answer, Service, eventually, http_client, key_of,
        servers::process::{Process, listens_on, on_free_port},
    },
};

/// A running Alertmanager, killed with the test.
struct Alertmanager {
    base: String,
    _process: Process,
    _dir: TempDir,
}

impl Alertmanager {
    /// Delivers to `service`, with this `http_config`.
    fn start(service: &Service, http_config: &Value) -> Self {
        let dir = TempDir::new().unwrap();
        let webhook = json!({
            "url": format!("http://{}/webhooks/alertmanager", service.address()),
            "http_config": http_config,
        });
        let config = json!({
            "route": {"receiver": "counter", "group_wait": "100ms", "group_interval": "1s"},
            "receivers": [{"name": "counter", "webhook_configs": [webhook]}],
        });
        // JSON is YAML.
        fs::write(dir.path().join("alertmanager.yml"), config.to_string()).unwrap();
        let started = on_free_port(|port| {
            let mut command = Command::new("prometheus-alertmanager");
            command.args(["--config.file=alertmanager.yml", "--storage.path=data"]);
            command.args(["--cluster.listen-address="]);
            command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
            let mut process = Process::spawn(&mut command, dir.path())?;
            process.wait_until(|_| listens_on(port))?;
            Ok((process, port))
        });
        let (process, port) = started.unwrap();
        Self { base: format!("http://127.0.0.1:{port}"), _process: process, _dir: dir }
    }

    /// Makes an alert fire.
    async fn fire(&self, name: &str) {
        let client = http_client().build().unwrap();
        let alerts = json!([{"labels": {"alertname": name}}]);
        eventually("Alertmanager takes an alert", || async {
            let url = format!("{}/api/v2/alerts", self.base);
            let answer = client.post(url).json(&alerts).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn alertmanager_shows_a_token_as_bearer_and_as_basic() {
    let service = crate::access::guarded().await;
    for (name, http_config) in [
        ("Bearer", json!({"authorization": {"credentials": "ingest"}})),
        ("Basic", json!({"basic_auth": {"username": "alertmanager", "password": "ingest"}})),
    ] {
        let alertmanager = Alertmanager::start(&service, &http_config);
        alertmanager.fire(name).await;
        eventually("the alert is counted", || async {
            let path = format!("/anomalies/{}/frequency", key_of(name));
            let asked = service.request(reqwest::Method::GET, &path).bearer_auth("read");
            let answer = Answer::of(asked).await;
            (answer.body["count_1h"] == 1).then_some(())
        })
        .await;
    }
}

/// Grafana's webhook contact points have an authorization header, or a user and a password.
#[tokio::test]
async fn a_grafana_delivery_comes_in_with_a_token_as_bearer_and_as_basic() {
    let service = crate::access::guarded().await;
    let delivery = || {
        let request = service.request(reqwest::Method::POST, "/webhooks/alertmanager");
        request.header("user-agent", "Grafana").json(&grafana_delivery())
    };
    Answer::of(delivery()).await.problem(401);
    Answer::of(delivery().bearer_auth("read")).await.problem(403);
    for shown in [
        delivery().header("authorization", "Bearer ingest"),
        delivery().basic_auth("grafana", Some("ingest")),
    ] {
        assert_eq!(Answer::of(shown).await.ok()["counted"], 1);
    }
}
