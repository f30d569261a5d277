//! A real Alertmanager that delivers to a service.

use std::{fs, process::Command};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    Service, eventually, http_client,
    servers::process::{Process, listens_on, on_free_port},
};

/// A running Alertmanager, killed with the test.
pub(crate) struct Alertmanager {
    base: String,
    _process: Process,
    _dir: TempDir,
}

impl Alertmanager {
    /// Starts an Alertmanager that delivers to `service`. `route` and `http_config` are added to
    /// its configuration.
    pub(crate) fn start(service: &Service, mut route: Value, http_config: &Value) -> Self {
        let dir = TempDir::new().unwrap();
        let webhook = json!({
            "url": format!("http://{}/webhooks/alertmanager", service.address()),
            "http_config": http_config,
            "send_resolved": true,
        });
        route["receiver"] = "counter".into();
        let config = json!({
            "route": route,
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

    pub(crate) fn url(&self) -> &str {
        &self.base
    }

    /// Sends alerts to it, as Prometheus does.
    pub(crate) async fn send_alerts(&self, alerts: &Value) {
        let client = http_client().build().unwrap();
        eventually("Alertmanager takes an alert", || async {
            let url = format!("{}/api/v2/alerts", self.base);
            let answer = client.post(url).json(alerts).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }
}
