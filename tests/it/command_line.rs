//! The commands of the binary, as operators and containers call them.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpListener,
    process::Stdio,
    thread,
};

use crate::support::{Ended, RedisServer, Service, anomaly_counter, on_a_terminal};

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let dir = tempfile::TempDir::new().unwrap();
    let environment = environment.iter().copied();
    Ended::of(anomaly_counter(arguments).current_dir(dir.path()).envs(environment))
}

#[test]
fn key_prints_the_key_of_an_argument_or_of_standard_input() {
    let signature = r#"{"alertname":"HighCPU","pod":"p"}"#;
    assert_eq!(run(&["key", signature], &[]).stdout, "af03baee239021c4\n");

    let mut child = anomaly_counter(&["key", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(signature.as_bytes()).unwrap();
    let stdout = child.wait_with_output().unwrap().stdout;
    assert_eq!(stdout, b"af03baee239021c4\n");
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    for arguments in [&["default-config"][..], &["check-config"], &["key", "{\"job\":\"api\"}"]] {
        let mut child = anomaly_counter(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(ended.stderr).unwrap();
        assert!(ended.status.success() && stderr.is_empty(), "{arguments:?}: {stderr}");
    }
}

#[test]
fn an_error_that_can_not_be_written_is_no_crash() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    for (arguments, code) in [(&["key", ""][..], 1), (&["show", "--url", "nothing", "x"], 2)] {
        let mut command = anomaly_counter(arguments);
        Ended::of(command.stderr(full.try_clone().unwrap())).ended_with(code);
    }
}

#[test]
fn a_configuration_may_come_from_a_pipe() {
    let (reader, mut writer) = io::pipe().unwrap();
    writer.write_all(b"listen = \"127.0.0.1:1\"\n").unwrap();
    drop(writer);
    let mut command = anomaly_counter(&["check-config", "--config", "/dev/stdin"]);
    let printed = Ended::of(command.stdin(reader)).succeeded().stdout;
    let listen = printed.lines().find(|line| line.starts_with("listen")).unwrap();
    assert!(listen.contains("127.0.0.1:1") && listen.contains("/dev/stdin"), "{listen}");
}

#[test]
fn key_says_what_is_wrong_with_a_signature() {
    for (signature, says) in [
        ("HighCPU", "not JSON"),
        ("[]", "a JSON object"),
        ("{}", "signature is empty"),
        (r#"{"job":1}"#, "`job` must be a string"),
    ] {
        let stderr = run(&["key", signature], &[]).failed().stderr;
        assert!(stderr.contains(says), "{stderr}");
    }
}

#[tokio::test]
async fn healthcheck_reports_whether_the_service_answers() {
    let mut service = Service::embedded().await;
    let listen = [("ANOMALY_COUNTER__LISTEN", service.address())];
    let healthy = run(&["healthcheck"], &listen).succeeded().stdout;
    assert!(healthy.contains("ready"), "{healthy}");

    let port = service.address().rsplit(':').next().unwrap().to_owned();
    let everywhere = format!("0.0.0.0:{port}");
    run(&["healthcheck"], &[("ANOMALY_COUNTER__LISTEN", &everywhere)]).succeeded();

    service.kill();
    let dead = run(&["healthcheck"], &[("ANOMALY_COUNTER__LISTEN", &everywhere)]).failed().stderr;
    assert!(dead.contains("does not respond"), "{dead}");
}

#[tokio::test]
async fn readiness_reports_an_unavailable_store() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    assert_eq!(service.get("/readyz").await.ok()["status"], "ready");
    redis.kill();
    let ready = service.get("/readyz").await.ok();
    assert_eq!(ready["status"], "degraded");
    assert_eq!(ready["store"], "redis");
    assert!(ready["degraded_since"].is_string());
    assert_eq!(service.get("/healthz").await.ok()["status"], "ok");
}

#[test]
fn help_says_how_to_begin() {
    let help = run(&["--help"], &[]).succeeded().stdout;
    let parts = ["127.0.0.1:8080", "check-config", "default-config", "curl"];
    for part in parts.into_iter().chain(["ANOMALY_COUNTER__REDIS__URL"]) {
        assert!(help.contains(part), "{part}");
    }
}

#[test]
fn help_says_which_variable_holds_the_token() {
    for command in [&["spool"][..], &["spool", "list"], &["spool", "retry"], &["healthcheck"]] {
        let help = run(&[command, &["--help"]].concat(), &[]).succeeded().stdout;
        assert!(help.contains("ANOMALY_COUNTER_TOKEN"), "{command:?}: {help}");
    }
}

#[test]
fn colours_are_for_terminals_without_no_color() {
    let dir = tempfile::TempDir::new().unwrap();
    let on_a_terminal = |arguments: &str, environment: &[(&str, &str)]| {
        on_a_terminal(dir.path(), 80, arguments, environment)
    };
    let disabled = ("ANOMALY_COUNTER__AUTH__DISABLED", "true");
    for (arguments, says) in
        [("check-config", "auth.disabled is true"), ("--help", "Usage"), ("nothing", "error")]
    {
        let coloured = on_a_terminal(arguments, &[disabled]);
        assert!(coloured.contains(says) && coloured.contains('\u{1b}'), "{coloured}");
        let plain = on_a_terminal(arguments, &[disabled, ("NO_COLOR", "1")]);
        assert!(plain.contains(says) && !plain.contains('\u{1b}'), "{plain}");
    }
}

#[test]
fn control_characters_in_answers_of_other_programs_are_escaped() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let _ = connection.read(&mut [0; 4096]);
            let body = "a\u{1b}[2J\nb";
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = connection.write_all((head + body).as_bytes());
        }
    });
    let listen = [("ANOMALY_COUNTER__LISTEN", address.as_str())];
    let printed = run(&["healthcheck"], &listen).succeeded().stdout;
    assert_eq!(printed, "a\\u{1b}[2J\\nb\n");
}

#[test]
fn an_address_that_can_not_be_used_is_refused_with_advice_that_fits() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    let cases = [
        (taken.as_str(), "Stop the process that listens there, or set another `listen`"),
        // For documentation, so no machine has it.
        ("192.0.2.1:8080", "This machine does not have the address: set another `listen`"),
    ];
    for (address, advice) in cases {
        let environment =
            [("ANOMALY_COUNTER__LISTEN", address), ("ANOMALY_COUNTER__AUTH__DISABLED", "true")];
        let refused = run(&[], &environment).ended_with(1).stderr;
        assert!(refused.contains(&format!("can't listen on {address}: ")), "{refused}");
        assert!(refused.contains(advice), "{refused}");
    }
}

#[test]
fn a_healthcheck_that_fails_says_the_first_cause() {
    // Nothing listens there, because nothing may without being root.
    let environment = [("ANOMALY_COUNTER__LISTEN", "127.0.0.1:1")];
    let failed = run(&["healthcheck"], &environment).ended_with(1).stderr;
    assert!(failed.contains("/readyz does not respond (Connection refused"), "{failed}");
}
