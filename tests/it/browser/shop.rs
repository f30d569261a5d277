//! Two weeks in the life of a shop, for pictures: occurrences, repairs, and fixes. All of it is
//! recorded by the public calls, each at its time.

use std::collections::BTreeMap;

use anomaly_counter::domain::{Signature, Timestamp};
use serde_json::{Value, json};

use crate::support::{FakeClock, Service, wall_clock};

const HOUR: i64 = 60;
const DAY: i64 = 24 * HOUR;

/// The anomaly that the pictures show.
const STAR: [&str; 4] = ["HighMemory", "api", "shop", "OOMKilled"];

/// Fields, and for each of the last 14 days, oldest first, the number of occurrences.
const ANOMALIES: [([&str; 4], [u8; 14]); 26] = [
    (STAR, [2, 3, 5, 4, 7, 8, 9, 11, 9, 1, 0, 0, 6, 12]),
    (["KafkaLag", "ingest", "data", ""], [0, 1, 0, 2, 3, 4, 9, 12, 14, 13, 15, 14, 16, 17]),
    (["PaymentErrors", "payments", "shop", "Timeout"], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 11]),
    (["DiskFull", "db-1", "core", "NoSpace"], [0, 0, 0, 0, 1, 1, 2, 2, 3, 4, 4, 5, 6, 7]),
    (["PodCrashLooping", "worker", "shop", "Error"], [3, 0, 4, 0, 0, 5, 0, 2, 0, 0, 6, 0, 3, 6]),
    (["HighLatency", "checkout", "shop", "Timeout"], [1, 2, 1, 0, 2, 3, 1, 0, 1, 2, 4, 2, 3, 5]),
    (["QueueBacklog", "mailer", "shop", "Throttled"], [0, 0, 2, 0, 0, 0, 1, 0, 0, 3, 0, 0, 2, 4]),
    (["TargetDown", "node-exporter", "infra", ""], [0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 2, 0, 0, 4]),
    (["ReplicaLag", "db-2", "core", ""], [0, 1, 0, 1, 0, 0, 1, 2, 1, 1, 2, 2, 1, 3]),
    (["HighErrorRate", "search", "web", "HTTP 503"], [0, 0, 0, 0, 4, 7, 0, 0, 0, 0, 0, 0, 1, 3]),
    (["JobFailed", "nightly-report", "batch", "DeadlineExceeded"], [1; 14]),
    (["CertExpiry", "edge", "web", ""], [2, 3, 3, 3, 3, 3, 3, 2, 0, 0, 0, 0, 0, 0]),
    (
        ["NodeNotReady", "worker-pool-b", "infra", "KubeletStopped"],
        [0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 2],
    ),
    (["ErrorBudgetBurn", "login", "web", ""], [0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 2]),
    (["ConsumerStuck", "invoices", "data", ""], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2]),
    (
        ["HighMemory", "recommender", "data", "OOMKilled"],
        [0, 0, 1, 1, 1, 0, 0, 1, 1, 0, 0, 1, 0, 2],
    ),
    (["SlowQueries", "db-1", "core", ""], [1, 0, 0, 1, 2, 0, 1, 0, 0, 1, 1, 0, 2, 1]),
    (
        ["ImagePullFailed", "preview", "dev", "ErrImagePull"],
        [0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1],
    ),
    (["HighLatency", "search", "web", "Timeout"], [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1]),
    (["ClockSkew", "worker-7", "infra", ""], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
    (["QuotaNearlyFull", "object-store", "core", ""], [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 1]),
    (["CacheMissStorm", "catalogue", "shop", ""], [0, 4, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 2, 0]),
    (["BackupLate", "db-1", "core", ""], [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0]),
    (
        ["StockSyncFailed", "erp-bridge", "shop", "HTTP 502"],
        [0, 2, 2, 3, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
    ),
    (["DnsFailures", "coredns", "infra", ""], [0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0]),
    (
        ["PodCrashLooping", "thumbnailer", "shop", "Error"],
        [8, 9, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ),
];

/// Returns repairs and marks by their age in minutes. The service's clock is set to the time of
/// each.
fn repairs_and_marks() -> BTreeMap<i64, Vec<(&'static str, Value)>> {
    let repair = |fields, action: &str, success: bool| {
        ("repair", json!({"anomaly_key": key(fields), "action": action, "success": success}))
    };
    let fix = |fields, by: &str, text: &str| {
        ("mark", json!({"anomaly_key": key(fields), "fixed_by": by, "fix_description": text}))
    };
    let (star, lag) = (STAR, ANOMALIES[1].0);
    let mut repairs_and_marks = BTreeMap::new();
    for (age, deed) in [
        (10 * DAY + 5 * HOUR, repair(star, "restart_pod", true)),
        (
            9 * DAY + 2 * HOUR,
            fix(ANOMALIES[25].0, "noor", "thumbnails of huge pictures are refused"),
        ),
        (8 * DAY + 11 * HOUR, repair(star, "restart_pod", false)),
        (7 * DAY, fix(ANOMALIES[11].0, "ana", "certificates are renewed by cert-manager")),
        (6 * DAY + 20 * HOUR, repair(star, "restart_pod", false)),
        (6 * DAY + 3 * HOUR, repair(star, "restart_pod", false)),
        (5 * DAY + 16 * HOUR, repair(star, "restart_pod", false)),
        (
            4 * DAY + 22 * HOUR,
            fix(star, "ana", "raised the memory limit to 2 GiB, and bounded the cache of carts"),
        ),
        (3 * DAY + 8 * HOUR, repair(lag, "add_consumer", true)),
        (2 * DAY + 5 * HOUR, repair(lag, "add_consumer", true)),
        (28 * HOUR, repair(star, "restart_pod", false)),
        (20 * HOUR, repair(ANOMALIES[4].0, "restart_pod", true)),
        (13 * HOUR, repair(lag, "add_consumer", false)),
        (9 * HOUR, repair(star, "restart_pod", false)),
        (4 * HOUR, repair(ANOMALIES[2].0, "failover", false)),
        (2 * HOUR, repair(star, "clear_cache", true)),
    ] {
        repairs_and_marks.entry(age).or_insert_with(Vec::new).push(deed);
    }
    repairs_and_marks
}

fn signature([alert, service, namespace, error]: [&str; 4]) -> Value {
    json!({
        "alert_name": alert, "service": service, "namespace": namespace, "error_type": error,
    })
}

/// Returns the key of an anomaly.
fn key(fields: [&str; 4]) -> String {
    let fields = signature(fields).as_object().unwrap().clone();
    Signature::from_fields(&fields).unwrap().key().to_string()
}

/// Returns the key of the anomaly that the pictures show.
pub(super) fn star() -> String {
    key(STAR)
}

fn minutes_before(now: Timestamp, minutes: i64) -> String {
    now.minus_seconds(minutes * 60).to_string()
}

/// Returns the ages of all occurrences in minutes, with their anomalies, oldest first.
fn occurrences() -> Vec<(i64, [&'static str; 4])> {
    let mut all = Vec::new();
    // A linear congruential generator (Numerical Recipes), so that each picture is the same.
    let mut random = 7_u32;
    for (fields, days) in ANOMALIES {
        for (day, times) in (0_i64..).zip(days) {
            for _ in 0..times {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let minute = i64::from(random >> 16) % DAY;
                all.push(((13 - day) * DAY + minute.max(6), fields));
            }
        }
    }
    all.sort_by_key(|(age, _)| -age);
    // The fixed anomaly has no occurrences between the mark and its return.
    let (fixed, back) = (4 * DAY + 22 * HOUR, 38 * HOUR);
    all.retain(|(age, fields)| *fields != STAR || *age > fixed || *age < back);
    all
}

/// Starts a service that has lived through the two weeks.
pub(super) async fn open_for_two_weeks(options: &[(&str, &str)]) -> Service {
    let now = wall_clock();
    let clock = FakeClock::of_the_wall();
    clock.set(-15 * DAY * 60);
    let mut service = Service::under(&clock, options).await;
    let mut occurrences = occurrences().into_iter().peekable();
    for (age, repairs_and_marks) in repairs_and_marks().into_iter().rev().chain([(0, Vec::new())]) {
        // A clock that is set under a running service is not trusted.
        service.kill();
        clock.set(-age * 60);
        service = service.successor().await;
        let mut earlier = Vec::new();
        while let Some((at, fields)) = occurrences.next_if(|(at, _)| *at > age) {
            let mut posted = signature(fields);
            posted["occurred_at"] = minutes_before(now, at).into();
            posted["severity"] = "critical".into();
            posted["runbook_url"] = "https://runbooks.example.com/memory".into();
            posted["description"] =
                "Memory has been above 95 % of the limit for 10 minutes.".into();
            earlier.push(posted);
        }
        super::record(&service, &earlier).await;
        for (kind, deed) in repairs_and_marks {
            let answer = match kind {
                "repair" => service.post("/repairs", &deed).await,
                _ => service.put("/permanent-fix", &deed).await,
            };
            answer.ok();
        }
    }
    let firing = [(STAR, 41, 3), (ANOMALIES[1].0, 164, 1), (ANOMALIES[2].0, 18, 2)];
    for (fields, age, alerts) in firing {
        let [alert, job, namespace, reason] = fields;
        let alert = |pod: i64| {
            json!({
                "status": "firing", "fingerprint": format!("{alert}{pod}"),
                "startsAt": minutes_before(now, age - pod),
                "labels": {
                    "alertname": alert, "service": job, "namespace": namespace, "reason": reason,
                },
            })
        };
        let alerts: Vec<Value> = (0..alerts).map(alert).collect();
        let delivery = json!({"version": "4", "alerts": alerts});
        service.post("/webhooks/alertmanager", &delivery).await.ok();
    }
    service
}
