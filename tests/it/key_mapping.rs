//! The mapping of labels and fields to anomalies, on real processes.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Ended, RedisServer, Service, anomaly_counter, metric, wall_clock};

const WEBHOOK: &str = "/webhooks/alertmanager";

fn alert(fingerprint: &str, labels: &Value) -> Value {
    let began = wall_clock().minus_seconds(60).to_string();
    json!({"status": "firing", "labels": labels, "startsAt": began, "fingerprint": fingerprint})
}

/// Posts an alert for each of `labels`, and returns the results.
async fn deliver(service: &Service, labels: &[Value]) -> Vec<Value> {
    let alerts: Vec<Value> =
        labels.iter().map(|labels| alert(&labels.to_string(), labels)).collect();
    let answer = service.post(WEBHOOK, &json!({"version": "4", "alerts": alerts})).await.ok();
    answer["alerts"].as_array().unwrap().clone()
}

/// Returns everything that is known about the anomaly of an answer.
async fn known(service: &Service, answer: &Value) -> Value {
    let key = answer["anomaly_key"].as_str().unwrap_or_else(|| panic!("{answer}"));
    service.get(&format!("/anomalies/{key}")).await.ok()
}

/// Returns the service and the namespace of the anomaly of an answer.
async fn place(service: &Service, answer: &Value) -> [String; 2] {
    let signature = known(service, answer).await["signature"].clone();
    ["service", "namespace"].map(|field| signature[field].as_str().unwrap().to_owned())
}

/// Returns the labels of an alert as kube-prometheus-stack has them without options.
fn stock(namespace: &str, pod: &str, container: &str) -> Value {
    json!({
        "alertname": "KubePodCrashLooping", "container": container, "endpoint": "http",
        "instance": "10.0.3.7:8080", "job": "kube-state-metrics", "namespace": namespace,
        "pod": pod, "prometheus": "monitoring/kps-prometheus", "reason": "CrashLoopBackOff",
        "service": "kube-prometheus-stack-kube-state-metrics", "severity": "warning",
        "uid": "0d1c2f9e-58e7-4c43-9a3c-3f5a0c1f8d11",
    })
}

async fn on_both_stores() -> (RedisServer, [Service; 2]) {
    let redis = RedisServer::start();
    let services = [Service::embedded().await, Service::on_redis(&redis).await];
    (redis, services)
}

#[tokio::test]
async fn stock_labels_of_three_workloads_are_three_anomalies_with_readable_services() {
    let (_redis, services) = on_both_stores().await;
    for service in services {
        let results = deliver(
            &service,
            &[
                stock("shop", "cart-6d9f7c5b84-x2k4p", "app"),
                stock("shop", "billing-7c5b8d9f64-bcdfg", "app"),
                stock("data", "postgres-0", "postgres"),
                stock("shop", "cart-6d9f7c5b84-z9w8v", "app"),
                stock("data", "postgres-1", "postgres"),
            ],
        )
        .await;
        let mut places = Vec::new();
        for result in &results {
            assert_eq!(result["mapped"], true, "{result}");
            places.push(place(&service, result).await);
        }
        let expected = [
            ["cart", "shop"],
            ["billing", "shop"],
            ["postgres", "data"],
            ["cart", "shop"],
            ["postgres", "data"],
        ];
        assert_eq!(places, expected);
        assert_eq!(results[3]["anomaly_key"], results[0]["anomaly_key"]);
        assert_eq!(results[3]["reason"], "same_incident", "another pod of it");
        assert_eq!(results[3]["count_24h"], 1);
        assert_eq!(results[1]["count_24h"], 1);
        // The same anomaly as one that a pipeline posts by its readable name.
        let posted = json!({
            "alert_name": "KubePodCrashLooping", "service": "cart", "namespace": "shop",
            "error_type": "CrashLoopBackOff",
        });
        let same = service.post("/anomalies", &posted).await.ok();
        assert_eq!(same["anomaly_key"], results[0]["anomaly_key"]);
        assert_eq!(same["count_24h"], 2);
    }
}

#[tokio::test]
async fn a_fix_of_one_workload_does_not_make_the_other_regress() {
    let service = Service::embedded().await;
    let cart = &deliver(&service, &[stock("shop", "cart-0", "cart")]).await[0];
    let fix = json!({
        "anomaly_key": cart["anomaly_key"], "fix_description": "raised memory", "fixed_by": "ops",
    });
    service.put("/permanent-fix", &fix).await.ok();
    let billing = &deliver(&service, &[stock("shop", "billing-0", "billing")]).await[0];
    assert_ne!(billing["anomaly_key"], cart["anomaly_key"]);
    assert_eq!(billing["regressed"], false);
}

#[tokio::test]
async fn posted_fields_are_kept_beside_the_mapped_ones() {
    let (_redis, services) = on_both_stores().await;
    for service in services {
        let labels = stock("shop", "cart-6d9f7c5b84-x2k4p", "app");
        let result = &deliver(&service, std::slice::from_ref(&labels)).await[0];
        let anomaly = known(&service, result).await;
        assert_eq!(anomaly["anomaly_key"], result["anomaly_key"]);
        assert_eq!(anomaly["signature"]["alert_name"], "KubePodCrashLooping");
        assert_eq!(anomaly["signature"]["error_type"], "CrashLoopBackOff");
        let metadata = &anomaly["metadata"];
        assert_eq!(metadata["as_posted"], json!({"service": labels["service"]}));
        assert_eq!(metadata["job"], "kube-state-metrics");
        assert_eq!(metadata["pod"], labels["pod"]);
    }
}

#[tokio::test]
async fn a_label_named_as_posted_is_kept_as_metadata() {
    let service = Service::embedded().await;
    let mut mapped = stock("shop", "cart-0", "cart");
    mapped["as_posted"] = "mine".into();
    let plain = json!({"alertname": "A", "job": "api", "as_posted": r#"{"job":"other"}"#});
    let results = deliver(&service, &[mapped.clone(), plain]).await;
    let anomaly = known(&service, &results[0]).await;
    assert_eq!(anomaly["signature"]["service"], "cart");
    let expected = json!({"service": mapped["service"], "as_posted": "mine"});
    assert_eq!(anomaly["metadata"]["as_posted"], expected);
    assert!(results[1].get("mapped").is_none(), "{}", results[1]);
    let anomaly = known(&service, &results[1]).await;
    assert_eq!(anomaly["signature"]["service"], "api");
    assert_eq!(anomaly["metadata"]["as_posted"], r#"{"job":"other"}"#);
    // Without options nothing is mapped here, and the posted object is kept as it is.
    let posted = json!({"alert_name": "B", "service": "", "job": "api", "as_posted": {"a": [1]}});
    let answer = service.post("/anomalies", &posted).await.ok();
    assert!(answer.get("mapped").is_none(), "{answer}");
    let anomaly = known(&service, &answer).await;
    assert_eq!(anomaly["signature"]["service"], "");
    assert_eq!(anomaly["metadata"], json!({"job": "api", "as_posted": {"a": [1]}}));
}

#[tokio::test]
async fn labels_of_deliveries_name_what_is_broken() {
    let service = Service::embedded().await;
    let rule = |rule: &str, name: &str| json!({"alertname": name, "rulename": rule});
    for (labels, expected, is_mapped) in [
        // Empty labels are absent, and so are those that a template left without a value.
        (json!({"alertname": "E", "service": "", "job": "api"}), ["api", ""], true),
        (json!({"alertname": "E", "service": null, "job": "api"}), ["api", ""], false),
        (json!({"alertname": "E", "service": "[no value]", "job": "api"}), ["api", ""], true),
        (json!({"alertname": "E", "service": "<no value>"}), ["", ""], true),
        (json!({"alertname": "E", "job": "api"}), ["api", ""], false),
        (json!({"alertname": "E", "service": "api", "job": ""}), ["api", ""], false),
        // A label that Prometheus has renamed names what is broken.
        (
            json!({"alertname": "K", "namespace": "keda", "service": "keda-operator",
                "job": "keda-operator", "exported_namespace": "shop"}),
            ["keda-operator", "shop"],
            true,
        ),
        (
            json!({"alertname": "K", "service": "exporter", "job": "exporter",
                "exported_job": "cart", "namespace": "ops", "exported_namespace": ""}),
            ["cart", "ops"],
            true,
        ),
        (
            json!({"alertname": "K", "job": "exporter", "exported_job": "a",
                "exported_service": 8080}),
            ["8080", ""],
            true,
        ),
        // Grafana's alerts about a rule, if nothing else names a service.
        (rule("cart latency", "DatasourceNoData"), ["cart latency", ""], true),
        (rule("cart latency", "DatasourceError"), ["cart latency", ""], true),
        (rule("cart latency", "HighCPU"), ["", ""], false),
        (
            json!({"alertname": "DatasourceNoData", "rulename": "r", "service": "api"}),
            ["api", ""],
            false,
        ),
        // The exporter of workloads, without a label of a workload.
        (
            json!({"alertname": "KubeNodeNotReady", "job": "kube-state-metrics", "node": "n"}),
            ["kube-state-metrics", ""],
            false,
        ),
        (
            json!({"alertname": "KubeJobFailed", "job": "kube-state-metrics",
                "job_name": "backup-28391040", "namespace": "batch"}),
            ["backup", "batch"],
            true,
        ),
        // No exporter: a pod's own labels stay.
        (
            json!({"alertname": "HighCPU", "job": "api", "pod": "cart-6d9f7c5b84-x2k4p"}),
            ["api", ""],
            false,
        ),
    ] {
        let result = &deliver(&service, std::slice::from_ref(&labels)).await[0];
        assert_eq!(place(&service, result).await, expected, "{labels}");
        assert_eq!(result.get("mapped").is_some(), is_mapped, "{labels}: {result}");
    }
    let empty = alert("e", &json!({"alertname": "", "service": "", "namespace": ""}));
    let answer = service.post(WEBHOOK, &json!({"alerts": [empty]})).await.ok();
    assert_eq!(answer["alerts"][0]["reason"], "failed");
}

#[tokio::test]
async fn an_empty_name_is_the_alias_and_reads_back_so() {
    let service = Service::embedded().await;
    let labels = [
        json!({"alert_name": "", "alertname": "E", "job": "api"}),
        json!({"alertname": "E", "service": "", "job": "api"}),
        json!({"alertname": "E", "job": "api"}),
    ];
    let results = deliver(&service, &labels).await;
    for result in &results {
        assert_eq!(result["anomaly_key"], results[2]["anomaly_key"]);
    }
    // The object of the first occurrence is kept.
    let anomaly = known(&service, &results[0]).await;
    assert_eq!(anomaly["signature"]["alert_name"], "E");
    assert_eq!(anomaly["metadata"], json!({"alertname": "E", "as_posted": {"alert_name": ""}}));
}

#[tokio::test]
async fn a_long_label_is_cut_wherever_it_is_mapped_to() {
    let service = Service::embedded().await;
    let long = "\u{e9}".repeat(2_000);
    let labels = json!({"alertname": "A", "service": "x".repeat(2_000), "exported_service": long});
    let result = &deliver(&service, &[labels]).await[0];
    assert_eq!(result["cut_labels"], json!(["service", "exported_service"]));
    let anomaly = known(&service, result).await;
    assert_eq!(anomaly["signature"]["service"], "\u{e9}".repeat(1_024));
    assert_eq!(anomaly["metadata"]["as_posted"]["service"], "x".repeat(1_024));
}

#[tokio::test]
async fn without_the_preset_the_webhook_names_the_exporter() {
    let service = Service::with(&[("ALERTMANAGER__KUBERNETES", "false")]).await;
    let result = &deliver(&service, &[stock("shop", "cart-0", "cart")]).await[0];
    let exporter = "kube-prometheus-stack-kube-state-metrics";
    assert_eq!(place(&service, result).await, [exporter, "shop"]);
    assert!(result.get("mapped").is_none(), "{result}");
    assert_eq!(result["anomaly_key"], key(&[&stock("shop", "cart-0", "cart").to_string()]));
}

const CONFIG: &str = r#"
[key]
kubernetes = true
mask = { error_type = ["uuid", "ip", "hex", "number"], service = ["pod_hash"] }

[[key.relabel]]
source_labels = ["cluster", "namespace"]
separator = "/"
regex = "(.+)/(.+)"
target_label = "namespace"
replacement = "$1/$2"

[[key.relabel]]
source_labels = ["namespace"]
target_label = "namespace"
action = "lowercase"
"#;

#[tokio::test]
async fn with_options_occurrences_are_mapped_alone_and_in_arrays() {
    let service = Service::with_files(CONFIG, &[]).await;
    let occurrence = |pod: &str, connection: u32| {
        json!({
            "alert_name": "DialFailed", "service": pod, "cluster": "EU1", "namespace": "Shop",
            "error_type": format!("dial 10.0.0.{connection}:5432: code {connection}"),
        })
    };
    let one = service.post("/anomalies", &occurrence("cart-6d9f7c5b84-x2k4p", 1)).await.ok();
    assert_eq!(one["mapped"], true);
    let plain = json!({"alert_name": "Other", "service": "cart"});
    let elements = json!([occurrence("cart-6d9f7c5b84-z9w8v", 2), 7, plain]);
    let many = service.post("/anomalies", &elements).await.ok();
    assert_eq!(many[0]["anomaly_key"], one["anomaly_key"]);
    assert_eq!(many[0]["count_24h"], 2);
    assert_eq!(many[0]["mapped"], true);
    assert_eq!(many[1]["status"], 422);
    assert!(many[2].get("mapped").is_none(), "{many}");
    let anomaly = known(&service, &one).await;
    let signature = json!({
        "alert_name": "DialFailed", "service": "cart-<pod_hash>", "namespace": "eu1/shop",
        "error_type": "dial <ip>: code <number>",
    });
    assert_eq!(anomaly["signature"], signature);
    let as_posted = json!({
        "service": "cart-6d9f7c5b84-x2k4p", "namespace": "Shop",
        "error_type": "dial 10.0.0.1:5432: code 1",
    });
    assert_eq!(anomaly["metadata"], json!({"cluster": "EU1", "as_posted": as_posted}));

    // A rule that fills an empty field identifies an anomaly too; without any posted field there is
    // none.
    let preset = json!({"job": "kube-state-metrics", "deployment": "cart", "event_id": "e"});
    let answer = service.post("/anomalies", &preset).await.ok();
    let anomaly = known(&service, &answer).await;
    assert_eq!(anomaly["signature"]["service"], "cart");
    let expected = json!({"deployment": "cart", "as_posted": {"job": "kube-state-metrics"}});
    assert_eq!(anomaly["metadata"], expected);
    service.post("/anomalies", &json!({"cluster": "eu1"})).await.problem(422);
    service.post("/anomalies", &json!({"service": 7})).await.problem(422);
    let long = json!({"alert_name": "A", "job": "x".repeat(1_025)});
    let refused = service.post("/anomalies", &long).await;
    refused.problem(422);
    assert_eq!(refused.body["field"], "job");

    // The rules apply to the webhook as well, after its own.
    let mut labels = stock("shop", "cart-0", "cart");
    labels["cluster"] = "EU1".into();
    let result = &deliver(&service, &[labels]).await[0];
    assert_eq!(place(&service, result).await, ["cart", "eu1/shop"]);
}

#[tokio::test]
async fn rules_that_would_leave_nothing_are_not_applied() {
    let config = "[[key.relabel]]\ntarget_label = \"alert_name\"\nreplacement = \"\"\n";
    let service = Service::with_files(config, &[]).await;
    let answer = service.post("/anomalies", &json!({"alert_name": "A"})).await.ok();
    assert!(answer.get("mapped").is_none(), "{answer}");
    assert_eq!(known(&service, &answer).await["signature"]["alert_name"], "A");
    let answer = service.post("/anomalies", &json!({"alert_name": "A", "job": "j"})).await.ok();
    assert_eq!(answer["mapped"], true);
    assert_eq!(known(&service, &answer).await["signature"]["alert_name"], "");
}

#[tokio::test]
async fn a_waiting_occurrence_is_applied_with_its_mapped_key() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    redis.kill();
    let labels = stock("shop", "cart-6d9f7c5b84-x2k4p", "app");
    let delivery = json!({"alerts": [alert("f", &labels)]});
    let answer = service.post(WEBHOOK, &delivery).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.body["alerts"][0]["mapped"], true);
    redis.restart();
    crate::support::healthy_again(&service).await;
    assert_eq!(place(&service, &answer.body["alerts"][0]).await, ["cart", "shop"]);
}

#[tokio::test]
async fn a_checksum_distinguishes_two_mappings() {
    let checksum = async |service: &Service| {
        let ready = service.get("/readyz").await.ok();
        let shown = ready["key_checksum"].as_str().unwrap().to_owned();
        let gauge = metric(service, "anomaly_counter_key_checksum").await;
        assert_eq!(u32::from_str_radix(&shown, 16).unwrap(), gauge as u32);
        shown
    };
    let default = checksum(&Service::embedded().await).await;
    assert_eq!(checksum(&Service::embedded().await).await, default);
    let mut checksums = vec![default];
    for config in [
        "alertmanager.kubernetes = false",
        "key.kubernetes = true",
        "key.mask.service = [\"hex\"]",
        "key.mask.error_type = [\"hex\"]",
        "[[key.relabel]]\ntarget_label = \"service\"\nreplacement = \"a\"",
        "[[key.relabel]]\ntarget_label = \"service\"\nreplacement = \"a\"\nregex = \"b\"",
    ] {
        checksums.push(checksum(&Service::with_files(config, &[]).await).await);
    }
    let distinct: std::collections::BTreeSet<_> = checksums.iter().collect();
    assert_eq!(distinct.len(), checksums.len(), "{checksums:?}");
}

fn run(dir: &TempDir, arguments: &[&str]) -> Ended {
    Ended::of(anomaly_counter(arguments).current_dir(dir.path()))
}

/// Returns the output of `key` in an empty folder.
fn key(arguments: &[&str]) -> String {
    let printed = run(&TempDir::new().unwrap(), &[&["key"], arguments].concat());
    printed.succeeded().stdout.trim_end().to_owned()
}

#[tokio::test]
async fn the_command_makes_the_keys_that_the_service_makes() {
    let labels = stock("shop", "cart-6d9f7c5b84-x2k4p", "app");
    let service = Service::embedded().await;
    let result = &deliver(&service, std::slice::from_ref(&labels)).await[0];
    assert_eq!(key(&["--webhook", &labels.to_string()]), result["anomaly_key"]);
    let whole = alert("f", &labels).to_string();
    assert_eq!(key(&["--webhook", &whole]), result["anomaly_key"]);
    assert_ne!(key(&[&labels.to_string()]), result["anomaly_key"]);

    let service = Service::with_files(CONFIG, &[]).await;
    let answer = service.post("/anomalies", &labels).await.ok();
    let printed =
        Ended::of(anomaly_counter(&["key", &labels.to_string()]).current_dir(service.dir()));
    assert_eq!(printed.succeeded().stdout.trim_end(), answer["anomaly_key"]);
}

#[test]
fn each_step_is_explained() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("c.toml"), CONFIG).unwrap();
    let mut labels = stock("shop", "cart-6d9f7c5b84-x2k4p", "app");
    labels["cluster"] = "EU1".into();
    labels["reason"] = "exit \u{1b}[2J 137".into();
    let labels = labels.to_string();
    let explain = ["--config", "c.toml", "key", "--explain"];
    let printed = run(&dir, &[&explain[..], &["--webhook", &labels]].concat()).succeeded().stdout;
    let lines: Vec<&str> = printed.lines().collect();
    let expected = [
        "posted",
        "  alert_name  \"KubePodCrashLooping\"",
        "  service     \"kube-prometheus-stack-kube-state-metrics\"",
        "  namespace   \"shop\"",
        "  error_type  \"exit \\u{1b}[2J 137\"",
        "steps",
        "  kubernetes (pod \"cart-6d9f7c5b84-x2k4p\"): service \
         \"kube-prometheus-stack-kube-state-metrics\" -> \"cart\"",
        "  relabel rule 1: namespace \"shop\" -> \"EU1/shop\"",
        "  relabel rule 2: namespace \"EU1/shop\" -> \"eu1/shop\"",
        "  mask number: error_type \"exit \\u{1b}[2J 137\" -> \"exit \\u{1b}[2J <number>\"",
    ];
    assert_eq!(lines[..10], expected);
    let plain = key(&[&labels]);
    assert_eq!(lines[10], format!("key as posted  {plain}"));
    let mapped = run(&dir, &["--config", "c.toml", "key", "--webhook", &labels]).succeeded().stdout;
    assert_eq!(lines[11], format!("key            {}", mapped.trim_end()));
    assert_ne!(plain, mapped.trim_end());

    let nothing = key(&["--explain", r#"{"alertname":"HighCPU","pod":"p"}"#]);
    assert!(nothing.contains("none changes anything"), "{nothing}");
    assert!(nothing.ends_with("key            af03baee239021c4"), "{nothing}");
    let empty = key(&["--explain", "--webhook", r#"{"exported_job":"a"}"#]);
    assert!(empty.contains("key as posted  none: all four fields are empty"), "{empty}");
    let help = run(&dir, &["key", "--help"]).succeeded().stdout;
    assert!(help.contains("section `key` of the configuration"), "{help}");
}

/// Returns the blocks of a kind in docs/counting.md that begin with `begin`, without it.
fn blocks(kind: &str, begin: &str) -> impl Iterator<Item = &'static str> {
    let document = include_str!("../../docs/counting.md");
    let blocks: Vec<&str> = document.split(&format!("```{kind}\n{begin}")).skip(1).collect();
    blocks.into_iter().map(|block| block.split("\n```").next().unwrap())
}

#[test]
fn the_examples_of_the_document_are_what_is_printed() {
    let dir = TempDir::new().unwrap();
    let config = blocks("toml", "[key]\n").next().unwrap();
    fs::write(dir.path().join("key.toml"), format!("[key]\n{config}\n")).unwrap();
    let mut examples = 0;
    for example in blocks("console", "$ anomaly-counter ").filter(|text| text.contains("--explain"))
    {
        let (command, shown) = example.split_once('\n').unwrap();
        let (options, json) = command.split_once(" '").unwrap();
        let mut arguments: Vec<&str> = options.split(' ').collect();
        arguments.push(json.trim_end_matches('\''));
        let printed = run(&dir, &arguments).succeeded().stdout;
        assert_eq!(printed.trim_end(), shown, "{command}");
        examples += 1;
    }
    assert_eq!(examples, 2);
}
