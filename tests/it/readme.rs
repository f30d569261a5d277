//! The README's calls give the README's answers, and its configuration of Alertmanager is valid.

use std::process::Command;

use anomaly_counter::domain::Timestamp;
use serde_json::{Deserializer, Value};

use crate::support::Service;

/// The calls in the README's console blocks, each with the answers under it.
fn calls() -> Vec<(&'static str, &'static str)> {
    let readme = include_str!("../../README.md");
    readme
        .split("```console\n$ ")
        .skip(1)
        .map(|block| block.split("```").next().unwrap().split_once('\n').unwrap())
        .collect()
}

fn json_values(text: &str) -> Vec<Value> {
    Deserializer::from_str(text).into_iter().map(Result::unwrap).map(without_times).collect()
}

/// Replaces all times, which differ from run to run.
fn without_times(mut value: Value) -> Value {
    for member in value.as_object_mut().unwrap().values_mut() {
        if member.as_str().is_some_and(|text| Timestamp::parse_rfc3339(text).is_ok()) {
            *member = "a time".into();
        }
    }
    value
}

#[tokio::test(flavor = "multi_thread")]
async fn its_calls_give_its_answers() {
    let service = Service::embedded().await;
    let calls = calls();
    assert_eq!(calls.len(), 5);
    for (call, answers) in calls {
        let command = call.replace("127.0.0.1:8080", service.address());
        let output = Command::new("bash").args(["-c", &command]).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(json_values(&printed), json_values(answers), "{call}");
    }
}

/// Returns what amtool prints, and whether it has succeeded.
fn amtool(arguments: &[&str]) -> (String, bool) {
    let output = Command::new("amtool").args(arguments).output();
    let output = output.expect("amtool must be there: tests/install-programs.sh installs it");
    let printed = [output.stdout, output.stderr].concat();
    (String::from_utf8(printed).unwrap(), output.status.success())
}

#[test]
fn its_configuration_of_alertmanager_is_complete_and_leaves_no_receiver_out() {
    let blocks = include_str!("../../README.md").split("```yaml\n").skip(1);
    let block = blocks.map(|block| block.split("```").next().unwrap());
    let config = block.filter(|block| block.contains("/webhooks/alertmanager")).collect::<Vec<_>>();
    assert_eq!(config.len(), 1);
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("alertmanager.yml");
    std::fs::write(&path, config[0]).unwrap();
    let path = path.to_str().unwrap();
    let (printed, is_accepted) = amtool(&["check-config", path]);
    assert!(is_accepted, "{printed}");
    let config_file = format!("--config.file={path}");
    let (receivers, _) = amtool(&["config", "routes", "test", &config_file, "alertname=HighCPU"]);
    assert_eq!(receivers.lines().next(), Some("anomaly-counter,team"));
}

#[test]
fn the_other_configurations_of_alertmanager_are_accepted_too() {
    for path in ["deploy/alertmanager.yml", "examples/alertmanager/alertmanager.yml"] {
        let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
        let (printed, is_accepted) = amtool(&["check-config", &path]);
        assert!(is_accepted, "{printed}");
    }
}
