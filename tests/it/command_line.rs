//! The commands beside serving, as operators and containers call them.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

use crate::support::{RedisServer, Service};

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let dir = tempfile::TempDir::new().unwrap();
    Command::new(env!("CARGO_BIN_EXE_anomaly-counter"))
        .current_dir(dir.path())
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn key_prints_the_key_of_an_argument_or_of_standard_input() {
    let signature = r#"{"alertname":"HighCPU","pod":"p"}"#;
    assert_eq!(out(&run(&["key", signature], &[])), "af03baee239021c4\n");

    let mut child = Command::new(env!("CARGO_BIN_EXE_anomaly-counter"))
        .args(["key", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(signature.as_bytes()).unwrap();
    assert_eq!(out(&child.wait_with_output().unwrap()), "af03baee239021c4\n");
}

#[test]
fn key_says_what_is_wrong_with_a_signature() {
    for (signature, says) in [
        ("HighCPU", "not JSON"),
        ("[]", "a JSON object"),
        ("{}", "signature is empty"),
        (r#"{"job":1}"#, "`job` must be a string"),
    ] {
        let output = run(&["key", signature], &[]);
        assert!(!output.status.success());
        assert!(err(&output).contains(says), "{}", err(&output));
    }
}

#[tokio::test]
async fn healthcheck_tells_whether_the_service_answers() {
    let mut service = Service::embedded().await;
    let listen = [("ANOMALY_COUNTER__LISTEN", service.address())];
    let healthy = run(&["healthcheck"], &listen);
    assert!(healthy.status.success(), "{}", err(&healthy));
    assert!(out(&healthy).contains("ready"));

    let port = service.address().rsplit(':').next().unwrap().to_owned();
    let everywhere = format!("0.0.0.0:{port}");
    let by_loopback = run(&["healthcheck"], &[("ANOMALY_COUNTER__LISTEN", &everywhere)]);
    assert!(by_loopback.status.success(), "{}", err(&by_loopback));

    service.kill();
    let dead = run(&["healthcheck"], &[("ANOMALY_COUNTER__LISTEN", &everywhere)]);
    assert!(!dead.status.success());
    assert!(err(&dead).contains("does not answer"), "{}", err(&dead));
}

#[tokio::test]
async fn readiness_tells_of_a_store_that_is_away() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    assert_eq!(service.get("/readyz").await.ok()["status"], "ready");
    redis.kill();
    let ready = service.get("/readyz").await.ok();
    assert_eq!((&ready["status"], &ready["store"]), (&"degraded".into(), &"redis".into()));
    assert!(ready["degraded_since"].is_string());
    assert_eq!(service.get("/healthz").await.ok()["status"], "ok");
}

#[test]
fn help_says_how_to_begin() {
    let help = out(&run(&["--help"], &[]));
    for part in ["127.0.0.1:8080", "check-config", "curl", "ANOMALY_COUNTER__REDIS__URL"] {
        assert!(help.contains(part), "{part}");
    }
}
