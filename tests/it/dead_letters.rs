//! Writes that Redis has refused for good: an operator lists, retries and drops them, with the
//! service running and stopped.

use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::{
    readme::commands,
    support::{
        Ended, ErrorProxy, RedisServer, Service, anomaly_counter, eventually, healthy_again,
        wall_clock,
    },
};

const KEY: &str = "af03baee239021c4";

/// Runs `anomaly-counter spool …` beside the service.
fn spool(service: &Service, arguments: &[&str]) -> Ended {
    Ended::of(&mut spool_command(service, arguments))
}

fn spool_command(service: &Service, arguments: &[&str]) -> Command {
    let mut command = anomaly_counter(&["spool"]);
    command
        .args(arguments)
        .env("ANOMALY_COUNTER__REDIS__URL", "redis://127.0.0.1:1")
        .env("ANOMALY_COUNTER__DATA_DIR", service.data_dir())
        .env("ANOMALY_COUNTER__LISTEN", service.address());
    command
}

/// Returns the numbers that `spool list` shows.
fn listed(service: &Service) -> Vec<String> {
    let printed = spool(service, &["list"]).succeeded().stdout;
    let numbered = printed.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    numbered.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn a_folder_without_a_spool_is_an_error_and_stays_as_it_is() {
    let dir = TempDir::new().unwrap();
    for arguments in [&["list"][..], &["retry", "--all"], &["drop", "1"]] {
        let run = |environment: &[(&str, &str)]| {
            let mut command = anomaly_counter(&["spool"]);
            command.args(arguments).current_dir(dir.path()).envs(environment.iter().copied());
            Ended::of(&mut command).failed().stderr
        };
        let embedded = run(&[]);
        assert!(embedded.contains("`redis.url` is not set here"), "{embedded}");
        let elsewhere = run(&[("ANOMALY_COUNTER__REDIS__URL", "redis://127.0.0.1:1")]);
        assert!(elsewhere.contains("data/spool.redb does not exist"), "{elsewhere}");
    }
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_retried_and_dropped_with_the_service_running_and_stopped() {
    let mut redis = RedisServer::start();
    let mut service = Service::on_redis(&redis).await;
    assert!(listed(&service).is_empty());
    redis.kill();
    let unknown = json!({"anomaly_key": "0123456789abcdef", "action": "a", "success": true});
    for _ in 0..3 {
        assert_eq!(service.post("/repairs", &unknown).await.status, 202);
    }
    assert_eq!(service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await.status, 202);
    redis.restart();
    let other = redis.client().await;
    let timeline = format!("anomaly:timeline:{KEY}");
    other.run(&["SET", &timeline, "of a foreign type"]).await;
    let numbers = eventually("all that is refused is a dead letter", || async {
        Some(listed(&service)).filter(|numbers| numbers.len() == 4)
    })
    .await;
    let list = spool(&service, &["list"]).succeeded().stdout;
    assert!(list.contains("repair  0123456789abcdef"), "{list}");
    assert!(list.contains("not known"), "{list}");
    assert!(list.contains(&format!("occurrence  {KEY}")), "{list}");
    assert!(list.contains("WRONGTYPE"), "{list}");

    // While the service runs, the service does it.
    spool(&service, &["drop", &numbers[0]]).succeeded();
    let again = spool(&service, &["drop", &numbers[0]]).failed().printed();
    assert!(again.contains("spool list"), "{again}");
    other.run(&["DEL", &timeline]).await;
    spool(&service, &["retry", &numbers[3]]).succeeded();
    let path = format!("/anomalies/{KEY}/frequency");
    eventually("what is retried is counted", || async {
        let answer = service.get(&path).await;
        (answer.body["count_1h"] == 1 && answer.body["degraded"] == false).then_some(())
    })
    .await;

    // While the service is stopped, the command does it.
    service.kill();
    assert_eq!(listed(&service), numbers[1..3]);
    spool(&service, &["drop", &numbers[1]]).succeeded();
    let retried = spool(&service, &["retry", &numbers[2]]).succeeded().printed();
    assert!(retried.contains("when the service starts"), "{retried}");
    assert!(listed(&service).is_empty());
    let service = service.restart().await;
    // The retry is refused again.
    eventually("it is a dead letter again", || async {
        Some(()).filter(|()| listed(&service).len() == 1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_document_list_retry_and_drop_dead_letters() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    redis.kill();
    let unknown = json!({"anomaly_key": "0123456789abcdef", "action": "a", "success": true});
    for _ in 0..2 {
        assert_eq!(service.post("/repairs", &unknown).await.status, 202);
    }
    redis.restart();
    // A retried write is refused again, and gets another number.
    let two = || {
        eventually("both are dead letters", || async {
            Some(listed(&service)).filter(|numbers| numbers.len() == 2)
        })
    };
    let blocks = commands(include_str!("../../docs/operations.md"));
    let block = blocks.iter().find(|block| block.contains("spool list")).unwrap();
    assert_eq!(block.lines().count(), 4);
    for command in block.lines() {
        let number = two().await.remove(0);
        let arguments: Vec<_> =
            command.split(' ').skip(2).map(|word| word.replace("17", &number)).collect();
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let printed = spool(&service, &arguments).succeeded().stdout;
        let says = if arguments == ["retry", "--all"] { "2 " } else { &number };
        assert!(printed.contains(says), "{command}: {printed}");
        if arguments[0] == "drop" {
            assert_eq!(listed(&service).len(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_counts_a_dead_letter_that_may_have_counted_before() {
    let redis = RedisServer::start();
    let proxy = ErrorProxy::to(redis.port()).await;
    let options = [("REDIS__URL", &proxy.url()[..]), ("TIMELINE__EXACT_EVENTS", "100")];
    let service = Service::with(&options).await;
    let many: Vec<_> = (0..400).map(|_| json!({"alert_name": "HighCPU"})).collect();
    service.post("/anomalies", &json!(many)).await.ok();
    // One of the ids of rolled-up events was dropped.
    let ids = format!("anomaly:folded_ids:{KEY}");
    assert_eq!(redis.client().await.number(&["HDEL", &ids, "dropped"]).await, 1);
    // The write may have been recorded, although a proxy answers with an error.
    proxy.refuse_all("ERR nobody knows these words");
    let at = wall_clock().minus_seconds(60).to_string();
    let late = json!({"alert_name": "HighCPU", "occurred_at": at, "event_id": "late"});
    assert_eq!(service.post("/anomalies", &late).await.status, 202);
    proxy.refuse_nothing();
    let number = eventually("it is a dead letter", || async { listed(&service).pop() }).await;
    let list = spool(&service, &["list"]).succeeded().stdout;
    assert!(list.contains("a retry counts it in any case"), "{list}");
    spool(&service, &["retry", &number]).succeeded();
    let path = format!("/anomalies/{KEY}/frequency");
    eventually("it is counted", || async {
        let answer = service.get(&path).await;
        (answer.body["count_30d"] == 401 && answer.body["degraded"] == false).then_some(())
    })
    .await;
    assert!(listed(&service).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_with_control_characters_escaped() {
    let redis = RedisServer::start();
    let proxy = ErrorProxy::to(redis.port()).await;
    let service = Service::with(&[("REDIS__URL", &proxy.url()[..])]).await;
    proxy.refuse("ERR \u{1b}[2J\u{9b}31m of a script", "Poison");
    for number in 0..2 {
        let poison = json!({"alert_name": format!("Poison{number}")});
        assert_eq!(service.post("/anomalies", &poison).await.status, 202);
    }
    healthy_again(&service).await;
    let list = spool(&service, &["list"]).succeeded().stdout;
    assert!(list.contains(r"\u{1b}[2J\u{9b}31m of a script"), "{list}");
    assert!(!list.contains(['\u{1b}', '\u{9b}']), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_token_that_the_service_requires_the_command_says_how_to_give_one() {
    let redis = RedisServer::start();
    let digest = anomaly_counter::auth::TokenDigest::of("t0ken");
    let tokens =
        format!("[[tokens]]\nname = \"ana\"\nsha256 = \"{digest}\"\nscopes = [\"read\"]\n");
    let config = format!("auth.file = \"tokens.toml\"\nredis.url = \"{}\"", redis.url());
    let service = Service::with_files(&config, &[("tokens.toml", &tokens)]).await;
    let put = "put one with the scope `read` into ANOMALY_COUNTER_TOKEN";
    let refused = spool(&service, &["list"]).failed().stderr;
    let expected = format!("the running service requires a token: {put}\n");
    assert!(refused.ends_with(&expected), "{refused}");
    let with = |token: &str, arguments: &[&str]| {
        Ended::of(spool_command(&service, arguments).env("ANOMALY_COUNTER_TOKEN", token))
    };
    let refused = with("other", &["list"]).failed().stderr;
    assert!(refused.contains("does not accept the token in ANOMALY_COUNTER_TOKEN"), "{refused}");
    let refused = with("t0ken", &["retry", "--all"]).failed().stderr;
    assert!(refused.contains("put one with the scope `operate`"), "{refused}");
    assert_eq!(with("t0ken", &["list"]).succeeded().stdout, "there are no dead letters\n");
}
