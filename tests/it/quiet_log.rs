//! No caller fills the log: the first lines of a minute that it causes are written, and a summary
//! has the number of the others. It hides no other caller.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    access::guarded,
    support::{Answer, Service, metric, wall_clock},
};

const WEBHOOK: &str = "/webhooks/alertmanager";

fn lines<'a>(log: &'a str, words: &'a str) -> impl Iterator<Item = Value> + 'a {
    let lines = log.lines().filter(move |line| line.contains(words));
    lines.map(|line| serde_json::from_str(line).unwrap())
}

/// Ends the service, and returns its whole log.
async fn log_at_end(mut service: Service) -> String {
    service.terminate();
    assert!(service.ended_well().await);
    service.log()
}

#[tokio::test]
async fn a_caller_with_wrong_signatures_does_not_fill_the_log() {
    let config = "auth.grafana_secret_file = \"secret\"";
    let service = Service::with_files(config, &[("secret", "shared\n")]).await;
    for _ in 0..100 {
        let request = service.request(Method::POST, WEBHOOK).json(&json!({}));
        let request = request.header("x-grafana-alerting-signature", "00");
        Answer::of(request).await.problem(401);
    }
    let log = log_at_end(service).await;
    let refused: Vec<_> = lines(&log, "a call is refused: unknown token").collect();
    let (summary, written) = refused.split_last().unwrap();
    assert_eq!(written.len(), 5, "{log}");
    assert_eq!(summary["left_out"], 95, "{log}");
    assert_eq!(summary["source"], "127.0.0.1");
    assert_eq!(lines(&log, "a delivery is refused").count(), 0);
}

#[tokio::test]
async fn a_noisy_caller_hides_no_other_reason_and_no_other_token() {
    let service = guarded().await;
    let refused = async |token: &str| {
        let request = service.request(Method::PUT, "/permanent-fix").bearer_auth(token);
        Answer::of(request.json(&json!({}))).await.status
    };
    for _ in 0..50 {
        assert_eq!(refused("wrong").await, 401);
        assert_eq!(refused("ingest").await, 403);
    }
    assert_eq!(refused("read").await, 403);
    assert_eq!(refused("expired").await, 401);
    let log = service.log();
    let of_token = |name: &str| {
        let refused = lines(&log, "a call is refused");
        refused.filter(|line| line["token_name"] == *name).count()
    };
    assert_eq!(["", "ingest", "read", "expired"].map(of_token), [5, 5, 1, 1], "{log}");
}

#[tokio::test]
async fn a_delivery_of_thousands_of_faulty_alerts_is_one_line_and_a_short_answer() {
    let service = Service::embedded().await;
    let good = json!({
        "status": "firing", "labels": {"alertname": "HighCPU"}, "fingerprint": "f",
        "startsAt": wall_clock().to_string(),
    });
    let mut alerts = vec![json!(0); 9_999];
    alerts.push(good);
    let before = service.log().len();
    let answer = service.post(WEBHOOK, &json!({"version": "4", "alerts": alerts})).await.ok();
    assert_eq!(answer["counted"], 1);
    assert_eq!(answer["failed"], 9_999);
    let results = answer["alerts"].as_array().unwrap();
    assert_eq!(results.len(), 10_000);
    assert_eq!(results.iter().filter(|alert| alert["problem"].is_object()).count(), 100);
    assert!(answer.to_string().len() < 1_000_000);
    let log = service.log();
    assert!(log.len() - before < 2_000, "{}", &log[before..]);
    assert_eq!(lines(&log, "alerts of a delivery failed").next().unwrap()["failed"], 9_999);
}

#[tokio::test]
async fn a_delivery_with_too_many_alerts_is_refused_with_a_remedy() {
    let service = Service::embedded().await;
    let sent = json!({"version": "4", "alerts": vec![json!(0); 500_000]});
    let detail = service.post(WEBHOOK, &sent).await.problem(413);
    assert!(detail.contains("500000") && detail.contains("max_alerts"), "{detail}");
    let log = service.log();
    let line = lines(&log, "a delivery is refused").next().unwrap();
    assert_eq!(line["sender"], "127.0.0.1");
    assert_eq!(line["bytes"], sent.to_string().len());
    let refused = "anomaly_counter_webhook_refused_total{reason=\"too_large\"}";
    assert_eq!(metric(&service, refused).await, 1.0);
}

#[tokio::test]
async fn a_delivery_that_is_too_large_is_a_warning_with_its_size_and_its_sender() {
    let service = Service::with(&[("ALERTMANAGER__MAX_BODY_BYTES", "1000")]).await;
    let sent = json!({"version": "4", "alerts": [], "externalURL": "x".repeat(1_000)});
    for _ in 0..20 {
        let detail = service.post(WEBHOOK, &sent).await.problem(413);
        assert!(detail.contains("1000 bytes") && detail.contains("max_alerts"), "{detail}");
    }
    let refused = "anomaly_counter_webhook_refused_total{reason=\"too_large\"}";
    assert_eq!(metric(&service, refused).await, 20.0);
    let log = log_at_end(service).await;
    let refused: Vec<_> = lines(&log, "a delivery is refused").collect();
    assert_eq!(refused[0]["sender"], "127.0.0.1");
    assert_eq!(refused[0]["bytes"], sent.to_string().len());
    assert_eq!(refused.len(), 6, "{log}");
    assert_eq!(refused[5]["left_out"], 15, "{log}");
}

#[tokio::test]
async fn an_id_of_a_request_that_is_too_long_or_not_printable_is_replaced() {
    let service = Service::embedded().await;
    let id = async |sent: &str| {
        let request = service.request(Method::GET, "/healthz").header("x-request-id", sent);
        Answer::of(request).await.headers["x-request-id"].to_str().unwrap().to_owned()
    };
    let longest = "r".repeat(128);
    assert_eq!(id("my request/7").await, "my request/7");
    assert_eq!(id(&longest).await, longest);
    for unfit in [&"r".repeat(129), "caf\u{e9}", "", "a\tb"] {
        let new = id(unfit).await;
        assert_eq!(new.len(), 36, "{new}");
    }
}

/// Posts occurrences that are this many seconds old, one a call.
async fn post_of_ages(service: &Service, path: &str, ages: &[i64]) {
    for (number, age) in ages.iter().enumerate() {
        let at = wall_clock().minus_seconds(*age).to_string();
        let body = match path {
            WEBHOOK => json!({"version": "4", "alerts": [{
                "status": "firing", "fingerprint": number.to_string(), "startsAt": at,
                // Each is an incident of its own.
                "labels": {"alertname": "HighCPU", "service": format!("{number}-{age}")},
            }]}),
            _ => json!({"alert_name": "HighCPU", "occurred_at": at}),
        };
        service.post(path, &body).await.ok();
    }
}

#[tokio::test]
async fn a_sender_whose_clock_is_behind_is_one_warning_with_its_address() {
    for path in [WEBHOOK, "/anomalies"] {
        let service = Service::embedded().await;
        post_of_ages(&service, path, &[125, 130, 400, 150, 121, 340, 122, 180, 170]).await;
        let behind = "anomaly_counter_senders_behind_total";
        assert_eq!(metric(&service, behind).await, 0.0);
        post_of_ages(&service, path, &[133; 20]).await;
        assert_eq!(metric(&service, behind).await, 1.0);
        let log = log_at_end(service).await;
        let warnings: Vec<_> = lines(&log, "the times of a sender are").collect();
        assert_eq!(warnings.len(), 1, "{log}");
        assert_eq!(warnings[0]["level"], "WARN");
        assert_eq!(warnings[0]["sender"], "127.0.0.1");
        let seconds = warnings[0]["seconds"].as_i64().unwrap();
        assert!((121..130).contains(&seconds), "{seconds}");
    }
}

#[tokio::test]
async fn long_firing_alerts_and_times_of_arrival_are_not_taken_for_a_clock_that_is_behind() {
    let service = Service::embedded().await;
    let ages: Vec<i64> = (1..40).map(|number| number * 3_671 % 86_400).collect();
    post_of_ages(&service, WEBHOOK, &ages).await;
    post_of_ages(&service, "/anomalies", &[90, 90, 90, 90, 90, 20, 90, 90, 90, 90, 90]).await;
    for _ in 0..20 {
        service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await.ok();
    }
    assert_eq!(metric(&service, "anomaly_counter_senders_behind_total").await, 0.0);
}
