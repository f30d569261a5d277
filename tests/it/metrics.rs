//! Metrics: their names are those of docs/metrics.md, their values are right, and a real Prometheus
//! has every metric that the rules and the dashboard use.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Ended, RedisServer, Service, eventually, healthy_again, http_client, key_of,
    servers::process::{Process, listens_on, on_free_port},
    wall_clock,
};

/// The metrics of a service: the types of the families by name, and the whole text.
struct Metrics {
    types: BTreeMap<String, String>,
    text: String,
}

impl Metrics {
    async fn of(service: &Service) -> Self {
        let answer = service.request(reqwest::Method::GET, "/metrics").send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        let text = answer.text().await.unwrap();
        let types = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
            .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
            .collect();
        Self { types, text }
    }

    /// Returns the value of one series, named as in the text.
    fn figure(&self, series: &str) -> f64 {
        let figure =
            self.text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        figure.unwrap_or_else(|| panic!("no {series} in {}", self.text)).parse().unwrap()
    }
}

async fn post(service: &Service, body: &Value) {
    service.post("/anomalies", body).await.ok();
}

fn documented() -> BTreeMap<String, String> {
    include_str!("../../docs/metrics.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `anomaly_counter_"))
        .map(|row| {
            let mut cells = row.split('|').map(|cell| cell.trim_matches([' ', '`']));
            let name = format!("anomaly_counter_{}", cells.next().unwrap());
            (name, cells.next().unwrap().to_owned())
        })
        .collect()
}

#[tokio::test]
async fn the_names_are_those_of_the_document() {
    let service = Service::embedded().await;
    let event = json!({"alert_name": "HighCPU"});
    post(&service, &event).await;
    service.get(&format!("/anomalies/{}/frequency", key_of("HighCPU"))).await.ok();
    let metrics = Metrics::of(&service).await;
    let served: BTreeMap<_, _> =
        metrics.types.iter().filter(|(name, _)| name.starts_with("anomaly_counter_")).collect();
    let documented = documented();
    assert_eq!(served, documented.iter().collect());
    assert!(metrics.figure("process_resident_memory_bytes") > 1e6);
    assert!(!metrics.text.contains(&key_of("HighCPU").to_string()));
}

#[tokio::test]
async fn metrics_have_the_right_values() {
    let (service, _clock) = Service::aged(&[]).await;
    for id in 0..3 {
        post(&service, &json!({"alert_name": "HighCPU", "event_id": id.to_string()})).await;
    }
    post(&service, &json!({"alert_name": "HighCPU", "event_id": "0"})).await;
    post(&service, &json!({"alert_name": "Old", "occurred_at": "2020-01-01T00:00:00Z"})).await;
    service.get("/anomalies/ffffffffffffffff/frequency").await.problem(404);
    service.get("/nowhere/at/all").await.problem(404);
    let alerts = json!([
        {"status": "firing", "fingerprint": "a", "startsAt": wall_clock().to_string(),
         "labels": {"alertname": "DiskFull"}, "annotations": {}},
        {"status": "resolved", "fingerprint": "b", "startsAt": wall_clock().to_string(),
         "labels": {"alertname": "DiskFull"}, "annotations": {}},
        "no alert",
    ]);
    let delivery = json!({"version": "4", "truncatedAlerts": 5, "alerts": alerts});
    service.post("/webhooks/alertmanager", &delivery).await.ok();
    service.post("/webhooks/alertmanager", &delivery).await.ok();

    let metrics = Metrics::of(&service).await;
    for (series, expected) in [
        ("anomaly_counter_occurrences_total{outcome=\"counted\"}", 4.0),
        ("anomaly_counter_occurrences_total{outcome=\"duplicate\"}", 1.0),
        ("anomaly_counter_occurrences_total{outcome=\"too_old\"}", 1.0),
        ("anomaly_counter_occurrences_total{outcome=\"spooled\"}", 0.0),
        ("anomaly_counter_occurrences_by_level_total{level=\"none\"}", 3.0),
        ("anomaly_counter_occurrences_by_level_total{level=\"REPEAT\"}", 1.0),
        ("anomaly_counter_level_steps_total{level=\"REPEAT\"}", 1.0),
        ("anomaly_counter_level_steps_total{level=\"ESCALATE\"}", 0.0),
        ("anomaly_counter_regressions_total", 0.0),
        ("anomaly_counter_webhook_alerts_total{result=\"counted\"}", 1.0),
        ("anomaly_counter_webhook_alerts_total{result=\"not_counted\"}", 1.0),
        ("anomaly_counter_webhook_alerts_total{result=\"resolved\"}", 2.0),
        ("anomaly_counter_webhook_alerts_total{result=\"failed\"}", 2.0),
        ("anomaly_counter_webhook_truncated_alerts_total", 10.0),
        ("anomaly_counter_store_state{state=\"healthy\"}", 1.0),
        ("anomaly_counter_batch_items_sum{call=\"record\"}", 9.0),
        (
            "anomaly_counter_http_requests_total{route=\"/anomalies\",method=\"POST\",status=\"200\"}",
            5.0,
        ),
        (
            "anomaly_counter_http_requests_total{route=\"/anomalies/{key}/frequency\",method=\"GET\",\
             status=\"404\"}",
            1.0,
        ),
        ("anomaly_counter_http_requests_total{route=\"none\",method=\"GET\",status=\"404\"}", 1.0),
    ] {
        assert_eq!(metrics.figure(series), expected, "{series}");
    }
}

#[tokio::test]
async fn metrics_show_an_outage_and_waiting_writes() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    post(&service, &json!({"alert_name": "HighCPU"})).await;
    redis.kill();
    let event = json!({"alert_name": "HighCPU"});
    for _ in 0..2 {
        assert_eq!(service.post("/anomalies", &event).await.status, 202);
    }
    let metrics = Metrics::of(&service).await;
    for (series, expected) in [
        ("anomaly_counter_store_state{state=\"degraded\"}", 1.0),
        ("anomaly_counter_store_state{state=\"healthy\"}", 0.0),
        ("anomaly_counter_store_shards_unavailable", 1.0),
        ("anomaly_counter_store_outages_total", 1.0),
        ("anomaly_counter_spool_operations", 2.0),
        ("anomaly_counter_spooled_operations_total", 2.0),
        ("anomaly_counter_occurrences_total{outcome=\"spooled\"}", 2.0),
        ("anomaly_counter_spool_max_bytes", 268_435_456.0),
    ] {
        assert_eq!(metrics.figure(series), expected, "{series}");
    }
    assert!(metrics.figure("anomaly_counter_spool_bytes") > 0.0);
    redis.restart();
    healthy_again(&service).await;
    let metrics = Metrics::of(&service).await;
    assert_eq!(metrics.figure("anomaly_counter_replayed_operations_total"), 2.0);
    assert_eq!(metrics.figure("anomaly_counter_store_state{state=\"healthy\"}"), 1.0);
}

/// A real Prometheus, killed with the test.
struct Prometheus {
    base: String,
    _process: Process,
    _dir: TempDir,
}

impl Prometheus {
    /// Scrapes `service` with a token, and evaluates the deployed rules.
    fn start(service: &Service, token: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/rules.yaml");
        fs::write(dir.path().join("token"), token).unwrap();
        let config = json!({
            "global": {"scrape_interval": "200ms", "evaluation_interval": "200ms"},
            "rule_files": [rules],
            "scrape_configs": [{
                "job_name": "anomaly-counter",
                "authorization": {"credentials_file": dir.path().join("token")},
                "static_configs": [{"targets": [service.address()]}],
            }],
        });
        // JSON is YAML.
        fs::write(dir.path().join("prometheus.yml"), config.to_string()).unwrap();
        let started = on_free_port(|port| {
            let mut command = Command::new("prometheus");
            command.args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
            command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
            let mut process = Process::spawn(&mut command, dir.path())?;
            process.wait_until(|_| listens_on(port))?;
            Ok((process, port))
        });
        let (process, port) = started.unwrap();
        Self { base: format!("http://127.0.0.1:{port}"), _process: process, _dir: dir }
    }

    async fn ask(&self, path: &str) -> Option<Value> {
        let client = http_client().build().unwrap();
        let answer = client.get(format!("{}{path}", self.base)).send().await.ok()?;
        answer.json().await.ok()
    }

    /// Returns the names of all metrics that it has.
    async fn names(&self) -> Option<BTreeSet<String>> {
        let names = self.ask("/api/v1/label/__name__/values").await?;
        serde_json::from_value(names["data"].clone()).ok()
    }
}

/// Returns the metrics that a PromQL expression names.
fn named(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("anomaly_counter_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn a_real_prometheus_has_every_metric_that_the_rules_and_the_dashboard_use() {
    let tokens = format!(
        "[[tokens]]\nname = \"all\"\nsha256 = \"{}\"\nscopes = [\"read\", \"ingest\"]\n",
        anomaly_counter::auth::TokenDigest::of("t0ken")
    );
    let files = [("tokens.toml", &*tokens)];
    let service = Service::with_files("auth.file = \"tokens.toml\"", &files).await;
    let event = service.request(reqwest::Method::POST, "/anomalies");
    let event = event.bearer_auth("t0ken").json(&json!({"alert_name": "HighCPU"}));
    assert_eq!(event.send().await.unwrap().status(), 200);

    let rules = include_str!("../../deploy/prometheus/rules.yaml");
    let expressions: String = rules.lines().filter(|line| !line.contains("description:")).collect();
    let dashboard: Value =
        serde_json::from_str(include_str!("../../deploy/grafana/dashboard.json")).unwrap();
    let mut used = named(&expressions);
    assert!(used.len() > 15, "{used:?}");
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            used.extend(named(target["expr"].as_str().unwrap()));
        }
    }
    assert!(used.len() > 30, "{used:?}");

    let prometheus = Prometheus::start(&service, "t0ken");
    eventually("all metrics are there", || async {
        let names = prometheus.names().await?;
        let missing: Vec<_> = used.difference(&names).collect();
        missing.is_empty().then_some(())
    })
    .await;
    // Prometheus evaluates the rules, and can parse the dashboard's expressions.
    let alerts = rules.matches("- alert: ").count();
    let rules = prometheus.ask("/api/v1/rules").await.unwrap();
    let groups = rules["data"]["groups"].as_array().unwrap();
    let rules: Vec<_> =
        groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert_eq!(rules.len(), alerts);
    assert!(rules.iter().all(|rule| rule["health"] != "err"), "{rules:?}");
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let asked = expression.replace("$__rate_interval", "1m").replace("$instance", ".*");
            let query = url::form_urlencoded::Serializer::new(String::new())
                .append_pair("query", &asked)
                .finish();
            let answer = prometheus.ask(&format!("/api/v1/query?{query}")).await.unwrap();
            assert_eq!(answer["status"], "success", "{asked}: {answer}");
        }
    }
}

#[test]
fn the_rules_pass_their_own_tests() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus");
    for arguments in [["check", "rules", "rules.yaml"], ["test", "rules", "rules-test.yaml"]] {
        Ended::of(Command::new("promtool").args(arguments).current_dir(&dir)).succeeded();
    }
}
