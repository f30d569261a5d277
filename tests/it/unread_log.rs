//! A reader of the log that stands still, as a collector that hangs, delays neither calls nor the
//! end of the process.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    DEADLINE, http_client,
    servers::service::{SERVICE, listening_address, service_command},
};

/// A service whose log is a pipe, of which nothing is read after its start.
struct Unread {
    child: Child,
    log: BufReader<ChildStderr>,
    url: String,
    client: Client,
    dir: TempDir,
}

fn command(dir: &TempDir, environment: &[(&str, &str)]) -> Command {
    let mut command = service_command(Command::new(SERVICE), &[]);
    command.current_dir(dir.path()).envs(environment.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn ended(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "it does not end");
        thread::sleep(Duration::from_millis(10));
    }
}

impl Unread {
    fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let mut child = command(&dir, &[]).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "it does not start");
            if let Some(address) = listening_address(&line) {
                break address;
            }
        };
        let client = http_client().build().unwrap();
        Self { child, log, url: format!("http://{address}"), client, dir }
    }

    async fn get(&self, path: &str) -> String {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.text().await.unwrap()
    }

    async fn dropped_lines(&self) -> f64 {
        let metrics = self.get("/metrics").await;
        let name = "anomaly_counter_log_lines_dropped_total ";
        metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
    }

    /// Makes the service log much more than a pipe and the buffer take. Each anomaly that reaches
    /// a level is a line.
    async fn fill_log(&self) {
        for round in 0..20 {
            let occurrence =
                |number: usize| json!({"alert_name": format!("Alert {round} {}", number / 3)});
            let occurrences: Vec<Value> = (0..999).map(occurrence).collect();
            let request = self.client.post(format!("{}/anomalies", self.url)).json(&occurrences);
            assert_eq!(request.send().await.unwrap().status(), 200);
        }
        assert!(self.dropped_lines().await > 0.0);
    }

    fn terminate(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_delays_neither_calls_nor_the_end() {
    let mut service = Unread::start();
    service.fill_log().await;
    for path in ["/healthz", "/readyz", "/anomalies?limit=1"] {
        service.get(path).await;
    }
    service.terminate();
    assert!(ended(&mut service.child).success());
    let store = service.dir.path().join("data");
    assert!(!store.join("anomalies.journal").exists(), "the store was closed");
}

#[tokio::test]
async fn dropped_lines_are_reported_when_the_log_is_read_again_and_no_line_is_torn() {
    let mut service = Unread::start();
    service.fill_log().await;
    let dropped = service.dropped_lines().await;
    let mut log = Vec::new();
    let report = loop {
        let mut line = String::new();
        assert!(service.log.read_line(&mut line).unwrap() > 0, "the service has ended");
        let line: Value = serde_json::from_str(&line).unwrap();
        if line["dropped"].is_u64() {
            break line;
        }
        log.push(line);
    };
    assert!(log.len() > 2_000, "{}", log.len());
    assert_eq!(report["level"], "WARN");
    assert_eq!(report["dropped"].as_f64(), Some(dropped));
    let message = "log lines were dropped because standard error was not read";
    assert_eq!(report["message"], format!("{dropped} {message}"));

    service.terminate();
    let mut rest = String::new();
    service.log.read_to_string(&mut rest).unwrap();
    assert!(rest.lines().last().unwrap().contains("stopped"), "{rest}");
    assert!(ended(&mut service.child).success());
}

#[test]
fn the_reason_of_a_failed_start_follows_the_log_and_ends_it() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("data"), "a file").unwrap();
    let ended = command(&dir, &[("ANOMALY_COUNTER__LOG__LEVEL", "debug")]).output().unwrap();
    assert!(!ended.status.success());
    let log = String::from_utf8(ended.stderr).unwrap();
    assert!(log.lines().last().unwrap().starts_with("anomaly-counter: data_dir "), "{log}");
}
