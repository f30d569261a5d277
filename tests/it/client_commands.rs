//! The commands that ask a running service about anomalies: their results, their output on a
//! terminal and in a pipe, and their JSON, which is the service's own.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Ended, RedisServer, Service, anomaly_counter, eventually, on_a_terminal};

/// Runs a command that asks a service, without the configuration of the machine's user.
pub(crate) fn ask(service: &Service, arguments: &[&str]) -> Ended {
    let url = format!("http://{}", service.address());
    ask_at(&[("ANOMALY_COUNTER_URL", &url)], arguments)
}

pub(crate) fn ask_at(environment: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let dir = TempDir::new().unwrap();
    let mut command = anomaly_counter(arguments);
    command.current_dir(dir.path()).env("XDG_CONFIG_HOME", dir.path()).env("TZ", "UTC");
    Ended::of(command.envs(environment.iter().copied()))
}

/// Runs a command on a terminal.
fn ask_on_a_terminal(service: &Service, columns: usize, arguments: &str) -> String {
    let dir = TempDir::new().unwrap();
    let url = format!("http://{}", service.address());
    let home = dir.path().to_str().unwrap();
    let environment =
        [("ANOMALY_COUNTER_URL", url.as_str()), ("XDG_CONFIG_HOME", home), ("TZ", "UTC")];
    on_a_terminal(dir.path(), columns, arguments, &environment)
}

/// Returns a text without the escape sequences of colours.
fn without_colours(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |all, part| all + part.split_once('m').unwrap().1)
}

/// Starts a service on each store, with three anomalies that are in its lists.
async fn services(redis: &RedisServer) -> [Service; 2] {
    let services = [Service::embedded().await, Service::on_redis(redis).await];
    for service in &services {
        seed(service).await;
        eventually("the list is complete", || async {
            let list = service.get("/anomalies").await.ok();
            (list["complete"] == true && list["total"] == 3).then_some(())
        })
        .await;
    }
    services
}

const KEY: &str = "6a0d01fd615acb3c";

async fn seed(service: &Service) {
    let high_cpu = json!({"alert_name": "HighCPU", "service": "api", "pod": "api-1"});
    let posted = service.post("/anomalies", &json!(vec![high_cpu; 10])).await.ok();
    assert_eq!(posted[0]["anomaly_key"], KEY);
    let lag = json!({"alert_name": "KafkaLag", "service": "api", "namespace": "data"});
    service.post("/anomalies", &json!(vec![lag; 3])).await.ok();
    service.post("/anomalies", &json!({"alert_name": "DiskFull", "reason": "NoSpace"})).await.ok();
    for success in [true, false, false] {
        let repair = json!({"anomaly_key": KEY, "action": "restart_pod", "success": success});
        service.post("/repairs", &repair).await.ok();
    }
}

async fn raw(service: &Service, path: &str) -> String {
    service.request(reqwest::Method::GET, path).send().await.unwrap().text().await.unwrap()
}

/// Returns JSON without the times that differ from call to call.
fn undated(text: &str) -> Value {
    let mut value: Value = serde_json::from_str(text).unwrap();
    for member in ["as_of", "from", "to", "buckets"] {
        value.as_object_mut().unwrap().remove(member);
    }
    value
}

#[tokio::test]
async fn json_is_the_answer_of_the_service_for_each_command() {
    let redis = RedisServer::start();
    for service in services(&redis).await {
        let asked = |arguments: &[&str]| {
            let arguments = [arguments, &["-o", "json"]].concat();
            ask(&service, &arguments).succeeded().stdout
        };
        let key = format!("/anomalies/{KEY}");
        for (arguments, path) in [
            (&["show", KEY][..], key.clone()),
            (&["show", "highcpu"], key.clone()),
            (&["repairs", KEY], format!("{key}/repairs")),
            (&["audit", "alertname=HighCPU", "job=api"], format!("{key}/audit")),
        ] {
            assert_eq!(asked(arguments), raw(&service, &path).await, "{arguments:?}");
        }
        let looked_up = asked(&["show", "alertname=HighCPU", "job=api", "pod=api-1"]);
        let path = "/anomalies/lookup?alertname=HighCPU&job=api&pod=api-1";
        assert_eq!(looked_up, raw(&service, path).await);
        let pasted = asked(&["show", "alertname=HighCPU job=api pod=api-1"]);
        assert_eq!(pasted, looked_up);

        for (arguments, path) in [
            (&["top"][..], "/anomalies?limit=20".to_owned()),
            (
                &["top", "-n", "1", "--sort", "key", "--service", "a*", "--series", "24h"],
                "/anomalies?limit=1&sort=key&service=a*&series=24h".to_owned(),
            ),
            (&["top", "api", "--level", "repeat,none"], {
                "/anomalies?limit=20&q=api&level=REPEAT,none".to_owned()
            }),
            (
                &["history", KEY, "--window", "7d", "--step", "6h"],
                format!("{key}/history?window=7d&step=6h"),
            ),
        ] {
            let (own, services) = (asked(arguments), raw(&service, &path).await);
            assert_eq!(undated(&own), undated(&services), "{arguments:?}");
        }
    }
}

#[tokio::test]
async fn fix_and_unfix_say_what_was_done_and_their_json_is_the_answer() {
    let redis = RedisServer::start();
    for service in services(&redis).await {
        let fix = ["fix", "HighCPU", "-m", "raised the limit", "--by", "ana"];
        let marked = ask(&service, &fix).succeeded().stdout;
        assert!(
            marked.starts_with("HighCPU · api  6a0d01fd615acb3c\nmarked as fixed by ana, until")
        );
        let mark = service.get(&format!("/anomalies/{KEY}")).await.ok();
        assert_eq!(mark["permanent_fix"]["fix_description"], "raised the limit");

        let unfix = ["unfix", KEY, "-m", "it came back", "--by", "bo"];
        let removed = ask(&service, &unfix).succeeded().stdout;
        assert_eq!(removed, "6a0d01fd615acb3c\nmark removed\n");
        let again = ask(&service, &unfix).succeeded().stdout;
        assert!(again.contains("there was no mark"), "{again}");
        let audit = service.get(&format!("/anomalies/{KEY}/audit")).await.ok();
        assert_eq!(audit["entries"][0]["reason"], "it came back");
        assert_eq!(audit["entries"][0]["by"], "bo");

        let json = ask(&service, &[&fix[..], &["-o", "json"]].concat()).succeeded().stdout;
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["fixed_by"], "ana");
        assert_eq!(json["permanent_fix_applied"], true);
        let json = ask(&service, &["unfix", KEY, "-o", "json"]).succeeded().stdout;
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["removed"], true);
        ask(&service, &["fix", KEY, "-m", " "]).ended_with(2);
        ask(&service, &["fix", KEY]).ended_with(2);
    }
}

#[tokio::test]
async fn several_matches_are_listed_and_without_a_match_similar_anomalies_are_named() {
    let redis = RedisServer::start();
    for service in services(&redis).await {
        let several = ask(&service, &["show", "api"]).ended_with(1);
        assert!(several.stdout.contains("HighCPU") && several.stdout.contains("KafkaLag"));
        assert!(several.stderr.contains("2 anomalies have \"api\""), "{}", several.stderr);
        let json = ask(&service, &["fix", "api", "-m", "x", "-o", "json"]).ended_with(1);
        let json: Value = serde_json::from_str(&json.stdout).unwrap();
        assert_eq!(json["total"], 2);

        let none = ask(&service, &["show", "nothing", "such"]).ended_with(1);
        assert!(none.stderr.contains("no anomaly has \"nothing such\""), "{}", none.stderr);
        let by_prefix = ask(&service, &["show", "6A0D01"]).succeeded().stdout;
        assert!(by_prefix.starts_with("HighCPU · api\n"), "{by_prefix}");

        let typo = ask(&service, &["history", "6a0d000000000000"]).ended_with(1);
        assert!(typo.stderr.ends_with("  6a0d01fd615acb3c  HighCPU · api\n"), "{}", typo.stderr);
        let near = ask(&service, &["show", "alertname=highcpu"]).ended_with(1);
        assert!(near.stderr.contains("  6a0d01fd615acb3c  HighCPU · api\n"), "{}", near.stderr);
        let json = ask(&service, &["show", "6a0d000000000000", "-o", "json"]).ended_with(1);
        assert_eq!(json.stdout, raw(&service, "/anomalies/6a0d000000000000").await);
        ask(&service, &["show", "HighCPU", "job=api"]).ended_with(2);
    }
}

#[tokio::test]
async fn a_pipe_has_whole_lines_without_colours() {
    let redis = RedisServer::start();
    for service in services(&redis).await {
        let top = ask(&service, &["top"]).succeeded();
        let lines: Vec<&str> = top.stdout.lines().collect();
        assert_eq!(lines.len(), 4, "{}", top.stdout);
        assert!(lines[0].starts_with("LEVEL          24H  1H  7D  30D"), "{}", lines[0]);
        let columns: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(columns[..5], ["PERMANENT_FIX", "10", "10", "10", "10"]);
        assert!(lines[1].ends_with(KEY), "{}", lines[1]);
        assert!(lines[3].contains("none") && lines[3].contains("NoSpace"), "{}", lines[3]);
        assert!(!top.stdout.contains('\u{1b}'));
        let wide = ask(&service, &["top", "-o", "wide"]).succeeded().stdout;
        assert!(wide.contains("10 in 24h >= 10 (rule default)"), "{wide}");

        let show = ask(&service, &["show", KEY]).succeeded().stdout;
        assert!(show.contains("restart_pod: 1 of 3 worked (33 %)"), "{show}");
        assert!(show.contains("pod: api-1") && !show.contains('\u{1b}'), "{show}");
        let history = ask(&service, &["history", KEY]).succeeded().stdout;
        let last = history.lines().last().unwrap();
        assert!(last.contains("PERMANENT_FIX") && last.contains("2 times repair failed"), "{last}");
        let repairs = ask(&service, &["repairs", KEY]).succeeded().stdout;
        assert!(repairs.contains("restart_pod       1      3  33 %"), "{repairs}");
        assert_eq!(ask(&service, &["audit", KEY]).succeeded().stdout.lines().count(), 4);
    }
}

#[tokio::test]
async fn a_terminal_has_colours_bars_and_lines_that_fit() {
    let service = Service::embedded().await;
    seed(&service).await;
    let hostile = "evil\u{1b}[31m\u{9b}2J\r\n\u{202e}\u{200b}漢字漢字漢字漢字漢字漢字漢字漢字";
    service.post("/anomalies", &json!({"alert_name": hostile, "service": hostile})).await.ok();
    let marked = json!({"anomaly_key": KEY, "fix_description": "a\nb", "fixed_by": "ana"});
    service.put("/permanent-fix", &marked).await.ok();
    for arguments in [
        "top",
        "top -o wide",
        "show 6a0d",
        "history 6a0d",
        "repairs 6a0d",
        "audit 6a0d",
        "show evil",
    ] {
        for columns in [40, 80, 120, 200] {
            let printed = ask_on_a_terminal(&service, columns, arguments);
            assert!(printed.contains("\u{1b}[1m"), "{arguments}: {printed}");
            let plain = without_colours(&printed);
            for line in plain.lines() {
                let width: usize =
                    line.chars().filter_map(unicode_width::UnicodeWidthChar::width).sum();
                assert!(width <= columns, "{arguments} {columns}: {line}");
            }
            let forbidden = ['\u{1b}', '\u{9b}', '\u{202e}', '\u{200b}'];
            assert!(!plain.contains(forbidden), "{arguments}: {plain:?}");
        }
    }
    let top = without_colours(&ask_on_a_terminal(&service, 160, "top"));
    assert!(top.contains("LAST 24 H") && top.contains('█'), "{top}");
    assert!(top.contains("4 anomalies · as of 2"), "{top}");
    let history = without_colours(&ask_on_a_terminal(&service, 120, "history 6a0d"));
    assert!(
        history.contains("level") && history.contains('⚑') && history.contains("P "),
        "{history}"
    );
    let json = ask_on_a_terminal(&service, 80, "show evil -o json");
    assert!(!json.contains(['\u{9b}', '\u{202e}', '\u{200b}']), "{json:?}");
    assert!(json.contains("\n  \"signature\"") && json.contains("\\u202e"), "{json}");
    let plain = ask_on_a_terminal(&service, 120, "top | cat");
    assert!(!plain.contains('\u{1b}'), "{plain}");
}

#[tokio::test]
async fn without_anomalies_the_commands_say_how_to_record_a_first_one() {
    let service = Service::embedded().await;
    let empty = ask_on_a_terminal(&service, 100, "top");
    assert!(empty.contains("curl --json"), "{empty}");
    assert!(empty.contains(service.address()), "{empty}");
    let filtered = ask_on_a_terminal(&service, 100, "top --level ESCALATE");
    assert!(filtered.contains("no anomaly matches"), "{filtered}");
    assert_eq!(ask(&service, &["top"]).succeeded().stdout.lines().count(), 1);
}

#[test]
fn shells_complete_the_commands() {
    for (shell, says) in [
        ("bash", "_anomaly__counter()"),
        ("zsh", "#compdef anomaly-counter"),
        ("fish", "-c anomaly-counter"),
    ] {
        let script = ask_at(&[], &["completions", shell]).succeeded().stdout;
        assert!(script.contains(says) && script.contains("min-level"), "{shell}");
        assert!(script.contains("PERMANENT_FIX"), "{shell}");
    }
    ask_at(&[], &["completions", "cmd"]).ended_with(2);
}

#[test]
fn the_manual_page_has_every_command() {
    let help = ask_at(&[], &["--help"]).succeeded().stdout;
    let page = include_str!("../../deploy/debian/anomaly-counter.1").replace("\\-", "-");
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let (commands, _) = commands.split_once("\n\n").unwrap();
    for command in commands.lines().filter_map(|line| line.split_whitespace().next()) {
        let names =
            [format!(".B {command}\n"), format!(".B {command} "), format!(".BI {command} ")];
        let is_there = names.iter().any(|name| page.contains(name));
        assert!(is_there || command == "help", "{command}");
    }
}
