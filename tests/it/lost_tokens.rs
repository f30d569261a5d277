//! Lost tokens open the service to nobody: a file that was emptied, cut, deleted or made
//! unreadable, or entries that have expired or were removed from the configuration.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use anomaly_counter::auth::TokenDigest;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Ended, Service, anomaly_counter, eventually};

const CONFIG: &str = "auth.file = \"tokens.toml\"";
const REFUSES_ALL: &str = "every call is refused";

/// Returns an entry for the token `secret`.
fn entry(more: &str) -> String {
    let digest = TokenDigest::of("secret");
    format!("name = \"ci\"\nsha256 = \"{digest}\"\nscopes = [\"read\"]\n{more}\n")
}

fn file_with_a_token() -> String {
    format!("[[tokens]]\n{}", entry(""))
}

async fn with_file(text: &str) -> Service {
    Service::with_files(CONFIG, &[("tokens.toml", text)]).await
}

async fn status(service: &Service, token: Option<&str>) -> StatusCode {
    let request = service.request(Method::GET, "/metrics");
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    request.send().await.unwrap().status()
}

/// Returns the messages of a level in the log.
fn messages(service: &Service, level: &str) -> Vec<String> {
    let log = service.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_level = lines.filter(|line| line["level"] == level);
    of_level.map(|line| line["message"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn is_said(service: &Service, level: &str, part: &str) {
    eventually(part, || async {
        messages(service, level).iter().any(|message| message.contains(part)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_emptied_file_admits_nobody_now_and_after_a_restart_until_it_has_entries_again() {
    let service = with_file(&file_with_a_token()).await;
    assert_eq!(status(&service, Some("secret")).await, 200);
    for text in ["", "# no entries\n", "tokens = []\n"] {
        service.replace_file("tokens.toml", &file_with_a_token());
        eventually("the token is in force", || async {
            (status(&service, Some("secret")).await == 200).then_some(())
        })
        .await;
        service.replace_file("tokens.toml", text);
        eventually("the token is not in force", || async {
            (status(&service, Some("secret")).await == 401).then_some(())
        })
        .await;
        assert_eq!(status(&service, None).await, 401, "{text:?}");
    }
    is_said(&service, "ERROR", REFUSES_ALL).await;

    // Reading the same file again adds no line.
    let lines = || messages(&service, "ERROR").len();
    let before = lines();
    service.hang_up();
    eventually("it is read again", || async { (lines() > before).then_some(()) }).await;
    assert_eq!(status(&service, None).await, 401);

    let service = service.restart().await;
    assert_eq!(status(&service, None).await, 401);
    is_said(&service, "ERROR", REFUSES_ALL).await;
    service.get("/readyz").await.ok();
    service.replace_file("tokens.toml", &file_with_a_token());
    eventually("the token is in force again", || async {
        (status(&service, Some("secret")).await == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_missing_or_truncated_file_changes_nothing_and_stops_the_next_start() {
    let service = with_file(&file_with_a_token()).await;
    let file = service.dir().join("tokens.toml");
    let whole = file_with_a_token();
    let changes: [(&str, &dyn Fn()); 4] = [
        ("half there", &|| fs::write(&file, &whole[..whole.len() / 2]).unwrap()),
        ("no text", &|| fs::write(&file, b"\xff\xfe").unwrap()),
        ("gone", &|| fs::remove_file(&file).unwrap()),
        ("a folder", &|| fs::create_dir(&file).unwrap()),
    ];
    for (count, (what, change)) in (1..).zip(changes) {
        change();
        service.hang_up();
        eventually("the log has the fault", || async {
            let errors = messages(&service, "ERROR");
            let kept = errors.iter().filter(|error| error.contains("tokens were not reloaded"));
            (kept.count() == count).then_some(())
        })
        .await;
        assert_eq!(status(&service, None).await, 401, "{what}");
        assert_eq!(status(&service, Some("secret")).await, 200, "{what}");
        let stderr = start_in(service.dir()).failed().stderr;
        assert!(stderr.contains("tokens.toml"), "{what}: {stderr}");
    }
}

/// Starts the service in a folder, which must end by itself.
fn start_in(dir: &Path) -> Ended {
    let mut command = std::process::Command::new("timeout");
    command.args(["20", env!("CARGO_BIN_EXE_anomaly-counter")]);
    Ended::of(command.current_dir(dir).env("ANOMALY_COUNTER__LISTEN", "127.0.0.1:0"))
}

#[tokio::test]
async fn without_the_configured_entries_nobody_is_admitted_until_auth_is_disabled() {
    let inline = format!("[[auth.tokens]]\n{}", entry(""));
    let service = Service::with_files(&inline, &[]).await;
    assert_eq!(status(&service, Some("secret")).await, 200);
    let config = service.dir().join("config/test.toml");
    fs::write(&config, "").unwrap();
    let service = service.restart().await;
    assert_eq!(status(&service, None).await, 401);
    is_said(&service, "ERROR", "auth.disabled = true").await;

    fs::write(&config, "auth.disabled = true\n").unwrap();
    let service = service.restart().await;
    assert_eq!(status(&service, None).await, 200);
}

#[tokio::test]
async fn with_redis_too_the_first_start_in_an_empty_folder_remembers_that_there_were_tokens() {
    let on_redis = |tokens: &str| format!("redis.url = \"redis://127.0.0.1:1\"\n{tokens}");
    let inline = format!("[[auth.tokens]]\n{}", entry(""));
    let service = Service::with_files(&on_redis(&inline), &[]).await;
    assert_eq!(status(&service, Some("secret")).await, 200);
    fs::write(service.dir().join("config/test.toml"), on_redis("")).unwrap();
    let service = service.restart().await;
    assert_eq!(status(&service, None).await, 401);
    is_said(&service, "ERROR", REFUSES_ALL).await;
}

#[tokio::test]
async fn entries_that_have_all_expired_let_nobody_in_and_are_an_error_line() {
    let expired = format!("[[tokens]]\n{}", entry("expires_at = \"2020-01-01T00:00:00Z\""));
    let service = with_file(&expired).await;
    assert_eq!(status(&service, None).await, 401);
    assert_eq!(status(&service, Some("secret")).await, 401);
    is_said(&service, "ERROR", "have expired").await;
}

#[tokio::test]
async fn a_file_that_never_had_an_entry_is_a_warning_and_requires_no_token() {
    let service = with_file("# entries come later\n").await;
    assert_eq!(status(&service, None).await, 200);
    is_said(&service, "WARN", "tokens.toml has no entry").await;
    service.hang_up();
    eventually("it is read again", || async {
        let warnings = messages(&service, "WARN");
        (warnings.iter().filter(|warning| warning.contains("has no entry")).count() == 2)
            .then_some(())
    })
    .await;
    assert_eq!(status(&service, None).await, 200);
    let service = service.restart().await;
    assert_eq!(status(&service, None).await, 200);
}

#[tokio::test]
async fn a_file_that_others_can_write_is_a_warning() {
    let service = with_file(&file_with_a_token()).await;
    let can_write = "can write tokens.toml";
    assert!(!service.log().contains(can_write), "{}", service.log());
    let file = service.dir().join("tokens.toml");
    fs::set_permissions(&file, Permissions::from_mode(0o646)).unwrap();
    service.hang_up();
    is_said(&service, "WARN", can_write).await;

    // Whoever can write to the folder can put another file there.
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(service.dir(), Permissions::from_mode(0o777)).unwrap();
    let service = service.restart().await;
    is_said(&service, "WARN", can_write).await;
    fs::set_permissions(service.dir(), Permissions::from_mode(0o1777)).unwrap();
    let service = service.restart().await;
    assert!(!service.log().contains(can_write), "{}", service.log());
}

#[test]
fn the_debian_package_asks_for_tokens_only_when_its_operator_says_so() {
    let dir = TempDir::new().unwrap();
    let config = include_str!("../../deploy/debian/config.toml");
    let data_dir = dir.path().join("data");
    let config = config.replace("/var/lib/anomaly-counter", data_dir.to_str().unwrap());
    fs::write(dir.path().join("config.toml"), &config).unwrap();
    let check = |config: &str| {
        fs::write(dir.path().join("config.toml"), config).unwrap();
        let mut command = anomaly_counter(&["--config", "config.toml", "check-config"]);
        Ended::of(command.current_dir(dir.path()))
    };
    let printed = check(&config).succeeded().printed();
    assert!(!printed.contains("auth.file"), "{printed}");

    let tokens = dir.path().join("tokens.toml");
    fs::write(&tokens, include_str!("../../deploy/debian/tokens.toml")).unwrap();
    let config = config.replace("/etc/anomaly-counter/tokens.toml", tokens.to_str().unwrap());
    let config = config.replace("# [auth]", "[auth]").replace("# file =", "file =");
    let printed = check(&config).succeeded().printed();
    assert!(printed.contains("auth.file"), "{printed}");
    assert!(printed.contains("has no entry"), "{printed}");
}
