//! The README's calls give the README's answers.

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
