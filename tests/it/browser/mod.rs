//! The page in a real Chromium, on real data: its content and its actions.

mod accessibility;
mod anomaly;
mod hostile;
mod keyboard;
mod list;
mod live;
mod outage;
mod screenshots;
mod session;
mod shop;

use serde_json::{Value, json};

use crate::support::{Browser, RedisServer, Service};

/// Returns the address of a view of the page.
fn view(service: &Service, query: &str) -> String {
    format!("http://{}/{query}", service.address())
}

/// Opens a view, and waits until it is there.
async fn open(browser: &mut Browser, service: &Service, query: &str) {
    browser.open(&view(service, query)).await;
    browser.wait_for("document.querySelector('#main > :not(noscript)')").await;
}

/// Makes pauses of ten seconds and more, which are those between two reads of the page, 20 times
/// shorter in the views that are opened from now on. The script's `waits` has the original lengths.
async fn hurry(browser: &mut Browser) {
    let script = "window.waits = []; const real = window.setTimeout; \
                  window.setTimeout = (call, wait, ...more) => { \
                    if (wait >= 10000) { window.waits.push(wait); wait /= 20; } \
                    return real(call, wait, ...more); };";
    browser.call("Page.addScriptToEvaluateOnNewDocument", json!({"source": script})).await;
}

/// Returns the number of elements that match.
async fn count(browser: &mut Browser, selector: &str) -> u64 {
    let expression = format!("document.querySelectorAll({}).length", json!(selector));
    browser.evaluate(&expression).await.as_u64().unwrap()
}

/// Returns the texts of all elements that match.
async fn texts(browser: &mut Browser, selector: &str) -> Vec<String> {
    let all = format!("[...document.querySelectorAll({})]", json!(selector));
    let found = browser
        .evaluate(&format!("{all}.map((found) => found.innerText ?? found.textContent)"))
        .await;
    serde_json::from_value(found).unwrap()
}

/// Records occurrences, a thousand in a call.
async fn record(service: &Service, occurrences: &[Value]) {
    for some in occurrences.chunks(1_000) {
        service.post("/anomalies", &json!(some)).await.ok();
    }
}

const ALERTS: [&str; 10] = [
    "HighCPU",
    "KafkaLag",
    "DiskFull",
    "PodCrashLooping",
    "TargetDown",
    "CertExpiry",
    "JobFailed",
    "HighLatency",
    "QueueBacklog",
    "NodeNotReady",
];
const NAMESPACES: [&str; 7] = ["shop", "data", "core", "web", "infra", "batch", "search"];

/// Records this many anomalies: of the first ten, one is at `PERMANENT_FIX`, three are at
/// `ESCALATE` and six at `REPEAT`; the others have occurred once.
async fn seed(service: &Service, anomalies: usize) {
    let mut occurrences = Vec::new();
    for index in 0..anomalies {
        let times = match index {
            0 => 12,
            1..4 => 6,
            4..10 => 3,
            _ => 1,
        };
        let occurrence = json!({
            "alert_name": ALERTS[index % ALERTS.len()],
            "service": format!("service-{}", index / ALERTS.len()),
            "namespace": NAMESPACES[index % NAMESPACES.len()],
        });
        occurrences.extend(vec![occurrence; times]);
    }
    record(service, &occurrences).await;
}

/// Starts a service on each of the two stores, and the Redis of the second.
async fn on_both_stores() -> (Service, Service, RedisServer) {
    let redis = RedisServer::start();
    (Service::embedded().await, Service::on_redis(&redis).await, redis)
}
