//! Rules: the level that an anomaly reaches, and the reason, in every answer about it.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    FakeClock, RedisServer, Service, eventually, healthy_again, metric, wall_clock,
};

const HOUR: i64 = 3_600;

/// The rules of most tests, as a file.
const RULES: &str = r#"
[[rule]]
name = "dev"
match = ['namespace=~"dev-.*"']
levels = "none"

[[rule]]
name = "batch"
match = ['namespace="batch"', 'alertname=~"KubeJob.*"']
[rule.levels]
REPEAT = ["2 in 24h"]
ESCALATE = ["3 in 6h", "5 in 24h"]
PERMANENT_FIX = ["7 in 7d and 2 in 1h"]
"#;

const CONFIG: &str = "rules.file = \"rules.toml\"\n";

fn job() -> Value {
    json!({"alertname": "KubeJobFailed", "namespace": "batch", "job": "kube-state-metrics"})
}

fn at(mut occurrence: Value, seconds_ago: i64) -> Value {
    occurrence["occurred_at"] = wall_clock().minus_seconds(seconds_ago).to_string().into();
    occurrence
}

async fn with_rules(config: &str) -> Service {
    Service::with_files(&format!("{CONFIG}{config}"), &[("rules.toml", RULES)]).await
}

/// Starts a service on each store.
async fn services(redis: &RedisServer) -> [Service; 2] {
    let config = format!("redis.url = \"{}\"\n", redis.url());
    [with_rules("").await, with_rules(&config).await]
}

/// Returns the parts of an answer about the level.
#[track_caller]
fn judged(answer: &Value) -> (Value, Value, String, bool) {
    let because = answer["because"].as_str().unwrap();
    assert!((1..=200).contains(&because.len()), "{because}");
    let rule = answer["rule"].as_str().unwrap();
    assert!(because.ends_with(&format!("(rule {rule})")), "{because}");
    let (previous, level) = (&answer["previous_level"], &answer["escalation_level"]);
    let new_step = answer["new_step"].as_bool().unwrap();
    assert!(!new_step || previous != level, "{answer}");
    (previous.clone(), level.clone(), because.to_owned(), new_step)
}

async fn frequency(service: &Service, key: &Value) -> Value {
    service.get(&format!("/anomalies/{}/frequency", key.as_str().unwrap())).await.ok()
}

/// Returns the lines of a level in the log.
fn lines(service: &Service, level: &str, words: &str) -> Vec<Value> {
    let log = service.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let is_meant = |line: &Value| {
        line["level"] == level && line["message"].as_str().unwrap_or_default().contains(words)
    };
    lines.filter(is_meant).collect()
}

#[tokio::test]
async fn without_rules_the_thresholds_are_the_rule_and_the_reason() {
    let redis = RedisServer::start();
    for service in [Service::embedded().await, Service::on_redis(&redis).await] {
        let mut steps = Vec::new();
        for count in 1..=11 {
            let answer = service.post("/anomalies", &json!({"alert_name": "A"})).await.ok();
            let (_, level, because, new_step) = judged(&answer);
            let expected = match count {
                1 | 2 => format!("{count} in 24h < 3 (rule default)"),
                3 | 4 => format!("{count} in 24h >= 3 (rule default)"),
                5..=9 => format!("{count} in 24h >= 5 (rule default)"),
                _ => format!("{count} in 24h >= 10 (rule default)"),
            };
            assert_eq!(because, expected);
            if new_step {
                steps.push((count, level));
            }
        }
        let expected = [(3, "REPEAT"), (5, "ESCALATE"), (10, "PERMANENT_FIX")];
        assert_eq!(steps, expected.map(|(count, level)| (count, level.into())));
        let rules = service.get("/rules").await.ok();
        let levels = json!({
            "REPEAT": ["3 in 24h"], "ESCALATE": ["5 in 24h"], "PERMANENT_FIX": ["10 in 24h"],
        });
        let default = json!({"name": "default", "match": [], "levels": levels, "hits": 11});
        assert_eq!(rules["rules"], json!([default]));
        assert_eq!(rules["rearm"], "24h");
        assert!(rules["loaded_at"].as_str().unwrap().ends_with('Z'));
        assert_eq!(rules["checksum"], service.get("/readyz").await.ok()["rules_checksum"]);
    }
}

#[tokio::test]
async fn the_first_rule_that_matches_judges_in_every_answer() {
    let redis = RedisServer::start();
    for service in services(&redis).await {
        let mut all = Vec::new();
        // The first two lie outside of 6 hours.
        for age in [8 * HOUR, 7 * HOUR, 2 * HOUR, 60, 0, 5, 4] {
            all.push(judged(&service.post("/anomalies", &at(job(), age)).await.ok()));
        }
        let because: Vec<&str> = all.iter().map(|(_, _, because, _)| because.as_str()).collect();
        let expected = [
            "1 in 24h < 2 (rule batch)",
            "2 in 24h >= 2 (rule batch)",
            "3 in 24h >= 2 (rule batch)",
            "4 in 24h >= 2 (rule batch)",
            "3 in 6h >= 3 (rule batch)",
            "4 in 6h >= 3 (rule batch)",
            "7 in 7d >= 7 and 4 in 1h >= 2 (rule batch)",
        ];
        assert_eq!(because, expected);
        let levels: Vec<_> = all.iter().map(|(previous, level, ..)| (previous, level)).collect();
        let none = Value::Null;
        let (repeat, escalate) = (Value::from("REPEAT"), Value::from("ESCALATE"));
        let permanent_fix = Value::from("PERMANENT_FIX");
        let expected = [
            (&none, &none),
            (&none, &repeat),
            (&repeat, &repeat),
            (&repeat, &repeat),
            (&repeat, &escalate),
            (&escalate, &escalate),
            (&escalate, &permanent_fix),
        ];
        assert_eq!(levels, expected);

        let key = service.post("/anomalies", &job()).await.ok()["anomaly_key"].clone();
        let read = frequency(&service, &key).await;
        let (previous, level, because, new_step) = judged(&read);
        assert_eq!((previous, level), (permanent_fix.clone(), permanent_fix));
        assert_eq!(because, "8 in 7d >= 7 and 5 in 1h >= 2 (rule batch)");
        assert!(!new_step);
        let whole = service.get(&format!("/anomalies/{}", key.as_str().unwrap())).await.ok();
        assert_eq!(whole["frequency"], read);

        let dev = json!({"alertname": "KubeJobFailed", "namespace": "dev-ada"});
        let other = json!({"alertname": "KubePodCrashLooping", "namespace": "batch"});
        let posted = json!([dev, dev, dev, other, job(), other, other]);
        let array = service.post("/anomalies", &posted).await.ok();
        let because: Vec<_> = array.as_array().unwrap().iter().map(judged).collect();
        assert_eq!(because[2], (none.clone(), none.clone(), "no levels (rule dev)".into(), false));
        assert_eq!(because[4].2, "9 in 7d >= 7 and 6 in 1h >= 2 (rule batch)");
        assert_eq!(because[6].2, "3 in 24h >= 3 (rule default)");
        assert!(because[6].3);

        let rules = service.get("/rules").await.ok();
        let hits: Vec<_> =
            rules["rules"].as_array().unwrap().iter().map(|rule| &rule["hits"]).collect();
        assert_eq!(hits, [3, 9, 3]);
        assert_eq!(rules["rules"][0]["levels"], "none");
        assert_eq!(rules["rules"][1]["match"][1], "alert_name=~\"KubeJob.*\"");
        assert_eq!(rules["rules"][1]["levels"]["ESCALATE"], json!(["3 in 6h", "5 in 24h"]));
    }
}

#[tokio::test]
async fn alerts_are_judged_by_their_labels_and_a_retry_is_no_step() {
    let redis = RedisServer::start();
    for service in services(&redis).await {
        let ago = |minutes: i64| wall_clock().minus_seconds(60 * minutes).to_string();
        let first = json!({"status": "firing", "fingerprint": "f1", "startsAt": ago(3)});
        let ended = json!({"status": "resolved", "fingerprint": "f1", "endsAt": ago(2)});
        let second = json!({"status": "firing", "fingerprint": "f2", "startsAt": ago(1)});
        let mut judgements = Vec::new();
        for mut alert in [first, ended, second] {
            alert["labels"] = job();
            let delivery = json!({"version": "4", "alerts": [alert]});
            let answer = service.post("/webhooks/alertmanager", &delivery).await.ok();
            judgements.push(judged(&answer["alerts"][0]));
        }
        let [(_, _, first, _), (_, _, ended, _), (_, _, second, is_new_step)] = &judgements[..]
        else {
            panic!("{judgements:?}")
        };
        assert!(first.starts_with("1 in 24h < 2"), "{first}");
        assert!(ended.starts_with("1 in 24h < 2"), "{ended}");
        assert!(second.starts_with("2 in 24h >= 2"), "{second}");
        assert!(is_new_step);
        let mut occurrence = json!({"alert_name": "A", "event_id": "third"});
        for id in ["first", "second", "third"] {
            occurrence["event_id"] = id.into();
            service.post("/anomalies", &occurrence).await.ok();
        }
        let retry = service.post("/anomalies", &occurrence).await.ok();
        assert_eq!(retry["counted"], false);
        let (previous, level, _, new_step) = judged(&retry);
        assert_eq!((previous, level, new_step), ("REPEAT".into(), "REPEAT".into(), false));
    }
}

#[tokio::test]
async fn after_a_restart_a_rule_is_found_by_the_stored_fields() {
    let redis = RedisServer::start();
    for service in services(&redis).await {
        let key = service.post("/anomalies", &job()).await.ok()["anomaly_key"].clone();
        let service = service.restart().await;
        let because = judged(&frequency(&service, &key).await).2;
        assert_eq!(because, "1 in 24h < 2 (rule batch)");
    }
}

#[tokio::test]
async fn an_anomaly_without_stored_fields_is_judged_by_the_default_and_says_so() {
    let redis = RedisServer::start();
    let service = with_rules(&format!("redis.url = \"{}\"\n", redis.url())).await;
    let other = redis.client().await;
    let now = format!("{}", wall_clock().as_micros() as f64 / 1e6);
    other.run(&["ZADD", "anomaly:timeline:b119b2edaa9fb08c", &now, &now]).await;
    let read = frequency(&service, &"b119b2edaa9fb08c".into()).await;
    assert_eq!(read["rule"], "default");
    let because = "1 in 24h < 3 (rule default: its signature is not known)";
    assert_eq!(read["because"], because);
    let plain = Service::on_redis(&redis).await;
    let read = frequency(&plain, &"b119b2edaa9fb08c".into()).await;
    assert_eq!(read["because"], "1 in 24h < 3 (rule default)", "there is no other rule");
}

/// Posts an occurrence every `interval` seconds, and returns which of them were steps, and which of
/// these were new.
async fn drip(
    service: &Service,
    clock: &FakeClock,
    occurrence: &Value,
    (start, interval, count): (i64, i64, i64),
) -> (Vec<i64>, Vec<i64>) {
    let (mut steps, mut new_steps) = (Vec::new(), Vec::new());
    for n in 0..count {
        clock.set(start + n * interval);
        // To operations in progress it seems that much time has passed, and the connection seems to
        // have been idle.
        eventually("it is ready", || async {
            let answer = service.request(Method::GET, "/readyz").send().await.ok()?;
            answer.text().await.ok()?.contains("\"status\":\"ready\"").then_some(())
        })
        .await;
        let answer = service.post("/anomalies", occurrence).await.ok();
        assert_eq!(answer["counted"], true);
        let (previous, level, _, new_step) = judged(&answer);
        if level != previous && level != Value::Null {
            steps.push(n + 1);
        }
        if new_step {
            new_steps.push(n + 1);
        }
    }
    (steps, new_steps)
}

#[tokio::test]
async fn steady_occurrences_are_a_new_step_once_and_again_after_a_quiet_day() {
    let redis = RedisServer::start();
    for options in [vec![], vec![("REDIS__URL", redis.url())]] {
        let options: Vec<(&str, &str)> = options.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let (service, clock) = Service::aged(&options).await;
        let occurrence = json!({"alert_name": "Drip"});
        let hours = |hours: f64| (hours * HOUR as f64) as i64;
        let every_five_hours = (hours(1.0), hours(4.99), 9);
        let (steps, new_steps) = drip(&service, &clock, &occurrence, every_five_hours).await;
        assert_eq!(steps, [3, 5, 6, 7, 8, 9], "it steps from REPEAT to ESCALATE each time");
        assert_eq!(new_steps, [3, 5]);
        let named = lines(&service, "WARN", "has reached");
        let reached: Vec<_> = named.iter().map(|line| &line["escalation_level"]).collect();
        assert_eq!(reached, ["REPEAT", "ESCALATE"]);
        assert_eq!(named[1]["because"], "5 in 24h >= 5 (rule default)");
        assert_eq!(named[1]["alert_name"], "Drip");
        let series = "anomaly_counter_level_steps_total{level=\"ESCALATE\"}";
        assert_eq!(metric(&service, series).await, 1.0);

        let after_two_days = (hours(1.0 + 8.0 * 4.99 + 50.0), 60, 5);
        let (steps, new_steps) = drip(&service, &clock, &occurrence, after_two_days).await;
        assert_eq!((steps, new_steps), (vec![3, 5], vec![3, 5]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_one_of_several_instances_reports_each_step() {
    let redis = RedisServer::start();
    let instances = [Service::on_redis(&redis).await, Service::on_redis(&redis).await];
    for round in 0..10 {
        let occurrence = json!({"alert_name": format!("Storm{round}")});
        let post = async |instance: &Service| {
            let mut reached = Vec::new();
            for _ in 0..6 {
                let answer = instance.post("/anomalies", &occurrence).await.ok();
                let (_, level, _, new_step) = judged(&answer);
                reached.extend(new_step.then_some(level));
            }
            reached
        };
        let [a, b] = &instances;
        let (a, b, c, d) = tokio::join!(post(a), post(b), post(a), post(b));
        let mut reached: Vec<String> =
            [a, b, c, d].concat().iter().map(ToString::to_string).collect();
        reached.sort_unstable();
        assert_eq!(reached, ["\"ESCALATE\"", "\"PERMANENT_FIX\"", "\"REPEAT\""]);
    }
}

#[tokio::test]
async fn without_a_time_to_rearm_every_step_is_new() {
    let (service, clock) = Service::aged(&[("RULES__REARM", "0h")]).await;
    let (start, interval) = (HOUR, HOUR * 499 / 100);
    let occurrence = json!({"alert_name": "Drip"});
    let (steps, new_steps) = drip(&service, &clock, &occurrence, (start, interval, 7)).await;
    assert_eq!(steps, [3, 5, 6, 7]);
    assert_eq!(new_steps, steps);
}

#[tokio::test]
async fn in_an_outage_rules_judge_waiting_writes_and_every_step_is_new() {
    let mut redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let service = with_rules(&format!("redis.url = \"{}\"\n", redis.url())).await;
    let key = service.post("/anomalies", &at(job(), 2 * HOUR)).await.ok()["anomaly_key"].clone();
    redis.kill();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let answer = service.post("/anomalies", &job()).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        seen.push(judged(&answer.body));
    }
    let (repeat, escalate) = (Value::from("REPEAT"), Value::from("ESCALATE"));
    assert_eq!(seen[0], (Value::Null, repeat.clone(), "2 in 24h >= 2 (rule batch)".into(), true));
    let third = "3 in 6h >= 3 (rule batch)".to_owned();
    assert_eq!(seen[1], (repeat, escalate.clone(), third, true), "a window of its own");
    assert_eq!(seen[2].2, "4 in 6h >= 3 (rule batch)");
    let read = frequency(&service, &key).await;
    assert_eq!(judged(&read), (escalate.clone(), escalate, seen[2].2.clone(), false));
    redis.restart();
    healthy_again(&service).await;
    let read = frequency(&service, &key).await;
    assert_eq!(judged(&read).2, "4 in 6h >= 3 (rule batch)");
    let reached = lines(&service, "WARN", "has reached").len();
    assert_eq!(reached, 2, "the replay reports no step again: {}", service.log());
}

/// Waits until other rules are in force.
async fn reloaded(service: &Service, before: &Value) -> Value {
    eventually("other rules are in force", || async {
        let now = service.get("/readyz").await.ok()["rules_checksum"].clone();
        (now != *before).then_some(now)
    })
    .await
}

#[tokio::test]
async fn a_file_is_read_again_and_one_that_can_not_be_used_changes_nothing() {
    let service = with_rules("").await;
    let ready =
        async |service: &Service| service.get("/readyz").await.ok()["rules_checksum"].clone();
    let first = ready(&service).await;
    for _ in 0..2 {
        service.post("/anomalies", &job()).await.ok();
    }
    let failures = "anomaly_counter_rules_reload_failures_total";
    let faulty = RULES.replace("5 in 24h", "5 in 24");
    let said = "rules.toml: rule 2 \"batch\": ESCALATE \"5 in 24\": write \"5 in 24h\"";
    for (text, says) in [
        (faulty.as_str(), said),
        ("[[rule]]\nname = \"x\"\n\n[[rule", "rules.toml: the text is not TOML"),
        ("rules = []", "rules.toml: `rules` is not a known key"),
        ("rule = 7", "rules.toml: `rule` is a number"),
    ] {
        let before = metric(&service, failures).await;
        service.replace_file("rules.toml", text);
        eventually(says, || async { (metric(&service, failures).await > before).then_some(()) })
            .await;
        let errors = eventually(says, || async {
            let errors = lines(&service, "ERROR", says);
            (!errors.is_empty()).then_some(errors)
        })
        .await;
        assert_eq!(errors.len(), 1, "{}", service.log());
        assert_eq!(ready(&service).await, first);
    }
    std::fs::remove_file(service.dir().join("rules.toml")).unwrap();
    service.hang_up();
    eventually("the file is gone", || async {
        (lines(&service, "ERROR", "can't be read").len() == 1).then_some(())
    })
    .await;
    let answer = service.post("/anomalies", &job()).await.ok();
    assert_eq!(judged(&answer).2, "3 in 6h >= 3 (rule batch)", "the rules before are in force");

    service.replace_file("rules.toml", &RULES.replace("3 in 6h", "4 in 6h"));
    let second = reloaded(&service, &first).await;
    let answer = service.post("/anomalies", &job()).await.ok();
    assert_eq!(judged(&answer).2, "4 in 6h >= 4 (rule batch)");
    let rules = service.get("/rules").await.ok();
    assert_eq!(rules["checksum"], second);
    assert_eq!(rules["rules"][1]["hits"], 4, "it goes on counting");
    let checksum = u32::from_str_radix(second.as_str().unwrap(), 16).unwrap();
    assert_eq!(metric(&service, "anomaly_counter_rules_checksum").await, f64::from(checksum));
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_replaced_under_load_without_an_error_or_a_false_step() {
    let redis = RedisServer::start();
    // The other rules have no level but the lowest.
    let is_low = |line: &&str| !line.starts_with("ESCALATE") && !line.starts_with("PERMANENT_FIX");
    let lowest: Vec<&str> = RULES.lines().filter(is_low).collect();
    let versions = [RULES.to_owned(), lowest.join("\n")];
    for service in services(&redis).await {
        // No step follows from here on: ten occurrences within the hour and within 24 hours.
        service.post("/anomalies", &json!(vec![job(); 10])).await.ok();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let load = async |name: &str| {
            let mut count = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let mut occurrence = job();
                occurrence["pod"] = name.into();
                let answer = service.post("/anomalies", &occurrence).await.ok();
                let (previous, level, because, new_step) = judged(&answer);
                assert_eq!(previous, level, "a false step: {answer}");
                assert!(!new_step, "{answer}");
                let is_of_first = because.contains(" in 7d >= 7 and ");
                let expected = if is_of_first { "PERMANENT_FIX" } else { "REPEAT" };
                assert_eq!(level, expected, "{answer}");
                count += 1;
            }
            count
        };
        let reloads = async {
            let mut before = service.get("/readyz").await.ok()["rules_checksum"].clone();
            for round in 1..=20 {
                service.replace_file("rules.toml", &versions[round % 2]);
                before = reloaded(&service, &before).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        };
        let (a, b, c, ()) = tokio::join!(load("a"), load("b"), load("c"), reloads);
        assert!(a.min(b).min(c) >= 5, "{a} {b} {c}");
        let rules = service.get("/rules").await.ok();
        assert_eq!(rules["rules"][1]["hits"], 10 + a + b + c);
        assert!(lines(&service, "ERROR", "").is_empty(), "{}", service.log());
    }
}

#[tokio::test]
async fn rules_may_be_written_into_the_configuration() {
    let config = r#"
[[rules.rule]]
name = "all"
[rules.rule.levels]
ESCALATE = ["1 in 10m"]
"#;
    let service = Service::with_files(config, &[]).await;
    let answer = service.post("/anomalies", &json!({"alert_name": "A"})).await.ok();
    let (previous, level, because, new_step) = judged(&answer);
    assert_eq!((previous, level, new_step), (Value::Null, "ESCALATE".into(), true));
    assert_eq!(because, "1 in 10m >= 1 (rule all)");
    service.hang_up();
    let again = service.post("/anomalies", &json!({"alert_name": "A"})).await.ok();
    assert_eq!(judged(&again).2, "2 in 10m >= 1 (rule all)");
}
