//! Access control: the table of docs/security.md, tokens and their limits, browsers, and the audit.

use std::time::Instant;

use anomaly_counter::auth::TokenDigest;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::json;
use sha2::Sha256;
use tempfile::TempDir;

use crate::support::{
    Answer, DEADLINE, Ended, Service, anomaly_counter, eventually, key_of, wall_clock,
};

/// Returns the entry of a token that is equal to its name.
pub(crate) fn entry(name: &str, more: &str) -> String {
    format!("[[tokens]]\nname = \"{name}\"\nsha256 = \"{}\"\n{more}\n", TokenDigest::of(name))
}

fn entries() -> String {
    let of = |scope: &str| entry(scope, &format!("scopes = [\"{scope}\"]"));
    let expired =
        "scopes = [\"ingest\", \"read\", \"operate\"]\nexpires_at = \"2026-01-01T00:00:00Z\"";
    [of("ingest"), of("read"), of("operate"), entry("expired", expired)].concat()
}

pub(crate) async fn guarded() -> Service {
    Service::with_files("auth.file = \"tokens.toml\"", &[("tokens.toml", &entries())]).await
}

fn delivery() -> serde_json::Value {
    json!({"version": "4", "alerts": [{
        "status": "firing", "fingerprint": "a1", "startsAt": wall_clock().to_string(),
        "labels": {"alertname": "HighCPU"}, "annotations": {},
    }]})
}

/// Returns the request for a call in the table of docs/security.md.
fn request(service: &Service, call: &str) -> RequestBuilder {
    let (method, path) = call.split_once(' ').unwrap();
    let key = key_of("HighCPU").to_string();
    let path =
        path.replace("{key}", &key).replace("{action}", "restart").replace("{sequence}", "1");
    let path = path.replace("{name}", "forbidden");
    let request = service.request(method.parse::<Method>().unwrap(), &path);
    match call {
        "POST /anomalies" => request.json(&json!({"alert_name": "HighCPU"})),
        "POST /repairs" => {
            request.json(&json!({"anomaly_key": key, "action": "restart", "success": true}))
        }
        "PUT /permanent-fix" => {
            request.json(&json!({"anomaly_key": key, "fix_description": "more memory"}))
        }
        "POST /webhooks/alertmanager" => request.json(&delivery()),
        "POST /session" => request.json(&json!({"token": "read"})),
        _ => request,
    }
}

/// Returns the rows of a document's tables with this many columns, the first of which is a call.
fn rows(document: &'static str, columns: usize) -> Vec<Vec<&'static str>> {
    document
        .lines()
        .filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'))
        .map(|row| row.split('|').map(|cell| cell.trim_matches(['`', ' '])).collect::<Vec<_>>())
        .filter(|row| row.len() == columns && row[0].contains(" /"))
        .collect()
}

/// Returns the calls that docs/api.md describes.
pub(crate) fn described_calls() -> Vec<&'static str> {
    rows(include_str!("../../docs/api.md"), 3).into_iter().map(|row| row[0]).collect()
}

#[tokio::test]
async fn every_call_answers_every_kind_of_caller_as_the_table_says() {
    let service = guarded().await;
    let table = rows(include_str!("../../docs/security.md"), 7);
    assert_eq!(table.iter().map(|row| row[0]).collect::<Vec<_>>(), described_calls());
    // Creates the anomaly that the calls are about.
    Answer::of(request(&service, "POST /anomalies").bearer_auth("ingest")).await.ok();
    for row in table {
        let tokens =
            [None, Some("wrong"), Some("expired"), Some("ingest"), Some("read"), Some("operate")];
        for (token, expected) in tokens.into_iter().zip(&row[1..]) {
            let call = || request(&service, row[0]);
            let bearer = token.map_or_else(call, |token| call().bearer_auth(token));
            let basic = token.map_or_else(call, |token| call().basic_auth("any", Some(token)));
            for request in [bearer, basic] {
                let status = request.send().await.unwrap().status();
                let access = match status {
                    StatusCode::UNAUTHORIZED => "401",
                    StatusCode::FORBIDDEN => "403",
                    _ => "yes",
                };
                assert_eq!(access, *expected, "{} with {token:?}: {status}", row[0]);
                assert!(!status.is_server_error(), "{} with {token:?}: {status}", row[0]);
            }
        }
    }
}

#[tokio::test]
async fn a_refused_caller_learns_what_to_do_and_the_log_has_no_token() {
    let service = guarded().await;
    let missing = service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await;
    let challenge =
        |answer: &Answer| answer.headers["www-authenticate"].to_str().unwrap().to_owned();
    assert_eq!(challenge(&missing), "Bearer realm=\"anomaly-counter\"");
    assert!(missing.problem(401).contains("Authorization: Bearer"));

    let wrong = Answer::of(request(&service, "POST /anomalies").bearer_auth("s3cr3t")).await;
    assert!(challenge(&wrong).ends_with("error=\"invalid_token\""));
    wrong.problem(401);
    let forbidden = Answer::of(request(&service, "PUT /permanent-fix").bearer_auth("read")).await;
    assert!(challenge(&forbidden).ends_with("error=\"insufficient_scope\", scope=\"operate\""));
    assert!(forbidden.problem(403).contains("operate"));

    assert!(service.log().contains("a call is refused"));
    assert!(!service.log().contains("s3cr3t"));
}

#[tokio::test]
async fn tokens_are_read_again_on_sighup_and_a_broken_file_changes_nothing() {
    let service = guarded().await;
    let status = |token: &'static str| {
        let request = request(&service, "POST /anomalies").bearer_auth(token);
        async move { request.send().await.unwrap().status() }
    };
    assert_eq!(status("fresh").await, 401);
    service.replace_file("tokens.toml", &entry("fresh", "scopes = [\"ingest\"]"));
    eventually("the new token is in force", || async {
        (status("fresh").await == 200).then_some(())
    })
    .await;
    assert_eq!(status("ingest").await, 401);

    service.replace_file("tokens.toml", "[[tokens]]\nname = \"half\"");
    eventually("the log has the fault", || async {
        service.log().contains("the tokens were not reloaded").then_some(())
    })
    .await;
    assert_eq!(status("fresh").await, 200);
}

#[tokio::test]
async fn a_token_beyond_its_limits_has_to_wait() {
    let limited = |name: &str, scope: &str, limit: &str| {
        entry(name, &format!("scopes = [\"{scope}\"]\n{limit} = 1"))
    };
    let tokens = [
        limited("pipeline", "ingest", "requests_per_second"),
        limited("storm", "ingest", "events_per_second"),
        limited("dashboard", "read", "requests_per_second"),
    ];
    let files = [("tokens.toml", &*tokens.concat())];
    let service = Service::with_files("auth.file = \"tokens.toml\"", &files).await;

    let post = || Answer::of(request(&service, "POST /anomalies").bearer_auth("pipeline"));
    let (taken, refused) = first_refusal(post).await;
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(refused.problem(503).contains("limit"));

    let array: Vec<_> = (0..1_000).map(|_| json!({"alert_name": "HighCPU"})).collect();
    let storm = || {
        let request = service.request(Method::POST, "/anomalies").json(&array);
        Answer::of(request.bearer_auth("storm"))
    };
    assert_eq!(storm().await.status, 200);
    let refused = storm().await;
    let seconds: u32 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((990..=1_000).contains(&seconds), "{seconds}");
    refused.problem(503);

    let call = "GET /anomalies/{key}/frequency";
    let read = || Answer::of(request(&service, call).bearer_auth("dashboard"));
    let (answers, refused) = first_refusal(read).await;
    assert_eq!(answers[0].body["count_1h"], taken.len() + 1_000);
    refused.problem(429);
}

/// Makes calls until one is refused. On an idle machine that is the second one within a second.
async fn first_refusal<F: Future<Output = Answer>>(
    mut call: impl FnMut() -> F,
) -> (Vec<Answer>, Answer) {
    let mut taken = Vec::new();
    let deadline = Instant::now() + DEADLINE;
    loop {
        let answer = call().await;
        if answer.status != 200 {
            assert!(!taken.is_empty(), "the first call is refused: {}", answer.body);
            return (taken, answer);
        }
        taken.push(answer);
        assert!(Instant::now() < deadline, "no call is refused");
    }
}

#[tokio::test]
async fn a_delivery_that_grafana_has_signed_needs_no_token() {
    let config = "auth.file = \"tokens.toml\"\nauth.grafana_secret_file = \"secret\"\n\
                  auth.grafana_timestamp_header = \"X-Time\"";
    let files = [("tokens.toml", &*entries()), ("secret", "shared\n")];
    let service = Service::with_files(config, &files).await;
    let body = delivery().to_string();
    let signed = |time: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(b"shared").unwrap();
        mac.update(format!("{time}:{body}").as_bytes());
        let digits = mac.finalize().into_bytes();
        digits.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let now = (wall_clock().as_micros() / 1_000_000).to_string();
    let old = (wall_clock().as_micros() / 1_000_000 - 400).to_string();
    let deliver = |signature: String, time: &str| {
        let request = service.request(Method::POST, "/webhooks/alertmanager");
        let request = request.header("content-type", "application/json").body(body.clone());
        let request = request.header("x-grafana-alerting-signature", signature);
        Answer::of(request.header("x-time", time))
    };
    assert_eq!(deliver(signed(&now), &now).await.ok()["counted"], 1);
    deliver(signed(&old), &old).await.problem(401);
    deliver(signed("0"), &now).await.problem(401);
    deliver(String::new(), &now).await.problem(401);

    // A signature is accepted on this route only.
    let elsewhere = request(&service, "POST /anomalies");
    Answer::of(elsewhere.header("x-grafana-alerting-signature", signed(&now))).await.problem(401);
}

#[tokio::test]
async fn a_page_of_another_site_reaches_nothing() {
    let service = Service::embedded().await;
    let from = |origin: &'static str| request(&service, "POST /anomalies").header("origin", origin);
    Answer::of(from("https://evil.example")).await.problem(403);
    Answer::of(from("null")).await.problem(403);
    // A browser lets any page post a form, which can't have the content type of JSON.
    let form = service.request(Method::POST, "/anomalies").header("content-type", "text/plain");
    Answer::of(form.body("{\"alert_name\":\"HighCPU\"}")).await.problem(415);
    // A host name that resolves to this machine does not help either.
    let rebound = request(&service, "GET /readyz").header("host", "evil.example:8080");
    Answer::of(rebound).await.problem(421);
    let asked = service.request(Method::OPTIONS, "/anomalies");
    let asked = asked.header("origin", "https://evil.example");
    let answer = asked.header("access-control-request-method", "POST").send().await.unwrap();
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
    service.get(&format!("/anomalies/{}", key_of("HighCPU"))).await.problem(404);
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_may_call() {
    let origin = "https://ops.example.org";
    let service = Service::with(&[("BROWSER__ALLOWED_ORIGINS", origin)]).await;
    let asked = service.request(Method::OPTIONS, "/anomalies").header("origin", origin);
    let answer = asked.header("access-control-request-method", "POST").send().await.unwrap();
    assert_eq!(answer.headers()["access-control-allow-origin"], origin);
    let posted = Answer::of(request(&service, "POST /anomalies").header("origin", origin)).await;
    assert_eq!(posted.headers["access-control-allow-origin"], origin);
    posted.ok();
}

#[tokio::test]
async fn the_audit_says_whose_token_it_was_and_in_which_request() {
    let service = guarded().await;
    let ask = |call: &str, token: &'static str, id: &'static str| {
        Answer::of(request(&service, call).bearer_auth(token).header("x-request-id", id))
    };
    ask("POST /anomalies", "ingest", "a").await.ok();
    ask("POST /repairs", "ingest", "b").await.ok();
    ask("PUT /permanent-fix", "operate", "c").await.ok();
    ask("DELETE /permanent-fix/{key}", "operate", "d").await.ok();
    let audit = ask("GET /anomalies/{key}/audit", "read", "e").await.ok();
    let entries: Vec<_> = audit["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| ["event", "by", "request_id"].map(|name| entry[name].as_str().unwrap()))
        .collect();
    assert_eq!(
        entries,
        [
            ["unmarked_fixed", "operate", "d"],
            ["marked_fixed", "operate", "c"],
            ["repair_attempted", "ingest", "b"],
        ]
    );
    assert_eq!(audit["entries"][1]["fix_description"], "more memory");
}

#[tokio::test]
async fn without_a_token_the_audit_has_the_name_that_was_given() {
    let service = Service::embedded().await;
    Answer::of(request(&service, "POST /anomalies")).await.ok();
    let key = key_of("HighCPU").to_string();
    let mark = json!({"anomaly_key": key, "fix_description": "more memory", "fixed_by": "ana"});
    service.put("/permanent-fix", &mark).await.ok();
    let audit = Answer::of(request(&service, "GET /anomalies/{key}/audit")).await.ok();
    assert_eq!(audit["entries"][0]["by"], "ana");
}

#[test]
fn listening_on_other_addresses_without_tokens_is_refused_with_two_remedies() {
    let dir = TempDir::new().unwrap();
    let mut command = anomaly_counter(&[]);
    command.current_dir(dir.path()).env("ANOMALY_COUNTER__LISTEN", "0.0.0.0:0");
    let stderr = Ended::of(&mut command).failed().stderr;
    assert!(stderr.contains("anomaly-counter token new"), "{stderr}");
    assert!(stderr.contains("auth.disabled = true"), "{stderr}");
}

#[tokio::test]
async fn with_auth_disabled_the_service_listens_anywhere_and_warns() {
    let disabled = [("LISTEN", "0.0.0.0:0"), ("AUTH__DISABLED", "true")];
    let service = Service::with(&disabled).await;
    assert!(service.log().contains("auth.disabled is true"));
    service.get("/readyz").await.ok();
}

#[tokio::test]
async fn the_command_token_new_makes_a_token_that_works() {
    let mut command = anomaly_counter(&["token", "new", "--name", "ci"]);
    command.args(["--scope", "read", "--scope", "ingest", "--expires-in-days", "1"]);
    let Ended { stdout: token, stderr, .. } = Ended::of(&mut command).succeeded();
    let entry = &stderr[stderr.find("[[tokens]]\nname").unwrap()..];
    let service =
        Service::with_files("auth.file = \"tokens.toml\"", &[("tokens.toml", entry)]).await;
    for call in ["POST /anomalies", "GET /anomalies/{key}"] {
        Answer::of(request(&service, call).bearer_auth(token.trim())).await.ok();
    }
    Answer::of(request(&service, "PUT /permanent-fix").bearer_auth(token.trim()))
        .await
        .problem(403);
}
