//! The README's calls give the README's answers, its other commands and those of docs/find.md have
//! answers, and the configurations of Alertmanager and Prometheus are valid.

use std::process::Command;

use anomaly_counter::domain::Timestamp;
use serde_json::{Deserializer, Value, json};

use crate::support::{Alertmanager, Service, wall_clock};

pub(crate) const README: &str = include_str!("../../README.md");
const FIND: &str = include_str!("../../docs/find.md");
const ALERTMANAGER: &str = include_str!("../../docs/alertmanager.md");

/// Returns the fenced blocks of a kind in a document.
pub(crate) fn fenced<'a>(document: &'a str, kind: &str) -> Vec<&'a str> {
    let blocks = document.split(&format!("```{kind}\n")).skip(1).collect::<Vec<_>>();
    blocks.into_iter().map(|block| block.split("```").next().unwrap()).collect()
}

/// Returns the calls in a document's console blocks, each with the answers under it.
fn calls(document: &str) -> Vec<(&str, &str)> {
    let blocks = fenced(document, "console").into_iter();
    let calls = blocks.flat_map(|block| block.strip_prefix("$ ").unwrap().split("\n$ "));
    calls.map(|call| call.split_once('\n').unwrap()).collect()
}

fn json_values(text: &str) -> Vec<Value> {
    Deserializer::from_str(text).into_iter().map(Result::unwrap).map(without_times).collect()
}

/// Replaces all times, which differ from run to run.
fn without_times(value: Value) -> Value {
    match value {
        Value::String(text) if Timestamp::parse_rfc3339(&text).is_ok() => "a time".into(),
        Value::Array(items) => items.into_iter().map(without_times).collect(),
        Value::Object(members) => {
            members.into_iter().map(|(name, value)| (name, without_times(value))).collect()
        }
        other => other,
    }
}

/// Runs commands, with the service in place of the document's. Returns their output.
fn run(service: &Service, commands: &str) -> String {
    let script = format!(
        "set -eo pipefail; curl() {{ command curl -S --fail-with-body \"$@\"; }}\n\
         anomaly-counter() {{ {} \"$@\"; }}\n{}",
        env!("CARGO_BIN_EXE_anomaly-counter"),
        commands.replace("127.0.0.1:8080", service.address())
    );
    let url = format!("http://{}", service.address());
    let mut bash = Command::new("bash");
    let output = bash.args(["-c", &script]).env("ANOMALY_COUNTER_URL", url).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{commands}\n{printed}\n{complaint}");
    printed
}

#[test]
fn the_readme_is_short() {
    let words = README.split_whitespace().count();
    assert!(words <= 1_500, "{words} words: what few readers need is in docs/");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_of_the_readme_have_its_answers() {
    let service = Service::embedded().await;
    let calls = calls(README);
    assert_eq!(calls.len(), 5);
    for (call, answers) in calls {
        assert_eq!(json_values(&run(&service, call)), json_values(answers), "{call}");
    }
}

/// Returns the blocks of commands of a document: lines that are indented by four, outside of
/// fences.
pub(crate) fn commands(document: &str) -> Vec<String> {
    let (mut blocks, mut is_fenced) = (vec![String::new()], false);
    for line in document.lines() {
        is_fenced ^= line.starts_with("```");
        let command = line.strip_prefix("    ").filter(|_| !is_fenced);
        match (command, blocks.last_mut()) {
            (Some(command), Some(block)) => *block += &format!("{command}\n"),
            (None, Some(block)) if !block.is_empty() => blocks.push(String::new()),
            _ => {}
        }
    }
    blocks.retain(|block| !block.is_empty());
    blocks
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_to_find_an_anomaly_has_an_answer() {
    let service = Service::embedded().await;
    let commands = commands(FIND);
    run(&service, &commands[0]);
    let calls = calls(FIND);
    assert_eq!(calls.len(), 2);
    for (call, answers) in calls {
        assert_eq!(json_values(&run(&service, call)), json_values(answers), "{call}");
    }
    let alertmanager = Alertmanager::start(&service, json!({}), &json!({}));
    let labels = json!({"alertname": "HighCPU", "job": "api", "namespace": "shop"});
    alertmanager
        .send_alerts(&json!([{"labels": labels, "startsAt": wall_clock().to_string()}]))
        .await;
    assert!(commands.len() > 8);
    for commands in &commands[1..] {
        let printed = run(&service, &commands.replace("http://127.0.0.1:9093", alertmanager.url()));
        // The command line prints for people.
        let is_answer = match commands.starts_with("anomaly-counter ") {
            true => printed.contains("HighCPU"),
            false => !json_values(&printed).is_empty(),
        };
        assert!(is_answer, "{commands}");
    }
}

pub(crate) fn amtool(arguments: &[&str]) -> (String, bool) {
    checked_by("amtool", arguments)
}

pub(crate) fn promtool(arguments: &[&str]) -> (String, bool) {
    checked_by("promtool", arguments)
}

/// Returns what a program prints, and whether it has succeeded.
fn checked_by(program: &str, arguments: &[&str]) -> (String, bool) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| {
        panic!("{program}: {error}. tests/install-programs.sh installs it")
    });
    let printed = [output.stdout, output.stderr].concat();
    (String::from_utf8(printed).unwrap(), output.status.success())
}

#[test]
fn configurations_of_alertmanager_are_complete_and_leave_no_receiver_out() {
    for document in [README, ALERTMANAGER] {
        let blocks = fenced(document, "yaml").into_iter();
        let config: Vec<_> = blocks.filter(|block| block.contains("route:")).collect();
        assert_eq!(config.len(), 1);
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("alertmanager.yml");
        std::fs::write(&path, config[0]).unwrap();
        let path = path.to_str().unwrap();
        let (printed, is_accepted) = amtool(&["check-config", path]);
        assert!(is_accepted, "{printed}");
        assert_eq!(receivers(path, "alertname=HighCPU"), "anomaly-counter,team");
        assert_eq!(receivers(path, "about=anomaly-counter"), "team", "it does not count itself");
    }
}

/// Returns the receivers of an alert with this label.
fn receivers(path: &str, label: &str) -> String {
    let config_file = format!("--config.file={path}");
    let (printed, _) = amtool(&["config", "routes", "test", &config_file, label]);
    printed.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn the_links_in_alerts_are_templates_of_prometheus_and_alertmanager() {
    let blocks = fenced(FIND, "yaml");
    let [annotations, slack, text] = blocks[..] else { panic!("{blocks:?}") };
    let indented = |block: &str, by: usize| -> String {
        block.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect()
    };
    let dir = tempfile::TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let config = format!(
        "global: {{slack_api_url: 'http://slack.example/'}}\nroute: {{receiver: team}}\n\
         receivers:\n  - name: team\n{}{}",
        indented(slack, 4),
        indented(text, 8)
    );
    std::fs::write(path("alertmanager.yml"), &config).unwrap();
    let (printed, is_accepted) = amtool(&["check-config", &path("alertmanager.yml")]);
    assert!(is_accepted, "{printed}{config}");
    let rules = format!(
        "groups:\n  - name: g\n    rules:\n      - alert: HighCPU\n        expr: up == 0\n{}",
        indented(annotations, 8)
    );
    std::fs::write(path("rules.yml"), &rules).unwrap();
    let (printed, is_accepted) = promtool(&["check", "rules", &path("rules.yml")]);
    assert!(is_accepted, "{printed}{rules}");
}

#[test]
fn the_other_configurations_of_alertmanager_are_accepted_too() {
    for path in ["deploy/alertmanager.yml", "examples/alertmanager/alertmanager.yml"] {
        let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
        let (printed, is_accepted) = amtool(&["check-config", &path]);
        assert!(is_accepted, "{printed}");
        assert_eq!(receivers(&path, "alertname=HighCPU"), "anomaly-counter");
    }
    let deployed = format!("{}/deploy/alertmanager.yml", env!("CARGO_MANIFEST_DIR"));
    assert_eq!(receivers(&deployed, "about=anomaly-counter"), "nobody", "it does not count itself");
}
