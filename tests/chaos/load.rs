//! Callers that write and read all the time, and retry each write with its id until it is
//! acknowledged, as pipelines do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{ledger::Ledger, stage::Stage, support::key_of};

const CALLERS: usize = 6;
const ANOMALIES: usize = 40;
/// Pause between two calls of a caller.
const PAUSE: Duration = Duration::from_millis(5);
/// Pause before a failed call is retried.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

pub(crate) struct Load {
    must_end: Arc<AtomicBool>,
    callers: JoinSet<()>,
}

impl Load {
    /// Records each anomaly once, then starts the callers.
    pub(crate) async fn begin(seed: u64, stage: Arc<Stage>, ledger: Arc<Ledger>) -> Self {
        let must_end = Arc::new(AtomicBool::new(false));
        let mut known = Vec::new();
        for number in 0..CALLERS {
            let mut caller = Caller {
                number,
                random: StdRng::seed_from_u64(seed ^ (number as u64 + 1) << 32),
                stage: Arc::clone(&stage),
                ledger: Arc::clone(&ledger),
                sent: 0,
            };
            for anomaly in (number..ANOMALIES).step_by(CALLERS) {
                caller.occur(&[anomaly]).await;
            }
            known.push(caller);
        }
        let mut callers = JoinSet::new();
        for mut caller in known {
            let must_end = Arc::clone(&must_end);
            callers.spawn(async move {
                while !must_end.load(Ordering::Relaxed) {
                    caller.call().await;
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        Self { must_end, callers }
    }

    /// Ends when every write under way is acknowledged.
    pub(crate) async fn end(self) {
        self.must_end.store(true, Ordering::Relaxed);
        self.callers.join_all().await;
    }
}

struct Caller {
    number: usize,
    random: StdRng,
    stage: Arc<Stage>,
    ledger: Arc<Ledger>,
    sent: u64,
}

impl Caller {
    async fn call(&mut self) {
        let anomaly = self.random.random_range(0..ANOMALIES);
        match self.random.random_range(0..100) {
            0..70 => self.occur(&[anomaly]).await,
            70..78 => {
                let count = self.random.random_range(2..20);
                let anomalies: Vec<usize> =
                    (0..count).map(|_| self.random.random_range(0..ANOMALIES)).collect();
                self.occur(&anomalies).await;
            }
            78..86 => self.repair(anomaly).await,
            86..92 => self.change_fix().await,
            _ => self.read(anomaly).await,
        }
    }

    fn any_instance(&mut self) -> usize {
        self.random.random_range(0..self.stage.instances())
    }

    fn next_id(&mut self) -> String {
        self.sent += 1;
        format!("{}-{}", self.number, self.sent)
    }

    async fn occur(&mut self, anomalies: &[usize]) {
        let events: Vec<(String, String)> =
            anomalies.iter().map(|anomaly| (name(*anomaly), self.next_id())).collect();
        let mut body: Vec<Value> =
            events.iter().map(|(name, id)| json!({"alert_name": name, "event_id": id})).collect();
        let body = if body.len() == 1 { body.remove(0) } else { json!(body) };
        loop {
            let instance = self.any_instance();
            let (answer, phases) =
                self.try_until_acknowledged(Method::POST, "/anomalies", &body, instance).await;
            // Each element of an array has its own answer.
            let elements = answer.as_array().cloned().unwrap_or_else(|| vec![answer]);
            let mut are_all_taken = true;
            for ((name, id), element) in events.iter().zip(&elements) {
                if element["count_1h"].as_u64().is_some_and(|count| count > 0) {
                    self.ledger.occurred(name, id);
                } else {
                    are_all_taken = false;
                    self.stage.report().refused_in_part(&phases);
                    assert_eq!(element["status"], 503, "a false zero: {element}");
                }
            }
            if are_all_taken {
                return;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn repair(&mut self, anomaly: usize) {
        let key = key_of(&name(anomaly)).to_string();
        let success = self.random.random_bool(0.5);
        let id = self.next_id();
        let body =
            json!({"anomaly_key": key, "action": "restart", "success": success, "event_id": id});
        let instance = self.any_instance();
        self.try_until_acknowledged(Method::POST, "/repairs", &body, instance).await;
        self.ledger.repaired(&key);
    }

    /// Changes the fix of an anomaly. Only one caller does, through one instance, because writes
    /// that two instances accept in an outage are ordered by their clocks.
    async fn change_fix(&mut self) {
        let anomaly = self.number + CALLERS * self.random.random_range(0..ANOMALIES / CALLERS);
        let key = key_of(&name(anomaly)).to_string();
        let instance = anomaly % self.stage.instances();
        let is_fixed = self.random.random_bool(0.5);
        if is_fixed {
            let body = json!({"anomaly_key": key, "fix_description": "raised the limit"});
            self.try_until_acknowledged(Method::PUT, "/permanent-fix", &body, instance).await;
        } else {
            let path = format!("/permanent-fix/{key}");
            self.try_until_acknowledged(Method::DELETE, &path, &Value::Null, instance).await;
        }
        self.ledger.fix_changed(&key, is_fixed);
    }

    async fn read(&mut self, anomaly: usize) {
        let instance = self.any_instance();
        let service = self.stage.service(instance);
        let path = format!("/anomalies/{}/frequency", key_of(&name(anomaly)));
        if let Ok(answer) = service.request(Method::GET, &path).send().await {
            let status = answer.status();
            let body: Value = answer.json().await.unwrap_or_default();
            let is_known = status == StatusCode::OK && body["count_24h"].as_u64() > Some(0);
            let is_honest = is_known || status == StatusCode::SERVICE_UNAVAILABLE || body.is_null();
            assert!(is_honest, "a false zero: {status} {body}");
        }
    }

    /// Retries a write until it is acknowledged, through the other instance unless it must be this
    /// one. Returns the answer, and the faults that were active when the last try was under way.
    async fn try_until_acknowledged(
        &mut self,
        method: Method,
        path: &str,
        body: &Value,
        first: usize,
    ) -> (Value, Vec<&'static str>) {
        let must_be_this = method != Method::POST;
        let mut instance = first;
        loop {
            let service = self.stage.service(instance);
            let begun = Instant::now();
            let mut request = service.request(method.clone(), path);
            if !body.is_null() {
                request = request.json(body);
            }
            let sent = request.send().await;
            if sent.is_err() {
                // The instance has ended; if nobody has killed it, that is a fault.
                self.stage.report().unanswered(begun);
            }
            if let Ok(answer) = sent {
                let status = answer.status();
                let phases = self.stage.report().answered(begun, !status.is_success());
                // An answer that breaks off, because its service was killed, does not count.
                if let Ok(body) = answer.json::<Value>().await
                    && status.is_success()
                {
                    return (body, phases);
                }
                let is_refused = status == StatusCode::SERVICE_UNAVAILABLE || status.is_success();
                assert!(is_refused, "{method} {path} is answered {status}");
            }
            if !must_be_this {
                instance = (instance + 1) % self.stage.instances();
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

fn name(anomaly: usize) -> String {
    format!("Alert{anomaly}")
}
