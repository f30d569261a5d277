//! The anomalies that are recorded and read, and the requests for them.

use std::fmt::Write as _;

use anomaly_counter::{
    counter::SystemClock,
    domain::{AnomalyKey, Signature, Timestamp},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::Map;

/// An anomaly, named after its service.
#[derive(Clone, Debug)]
pub(crate) struct Anomaly {
    alert_name: String,
    service: String,
}

impl Anomaly {
    pub(crate) fn new(service: impl Into<String>) -> Self {
        Self::named("Bench", service)
    }

    pub(crate) fn named(alert_name: impl Into<String>, service: impl Into<String>) -> Self {
        Self { alert_name: alert_name.into(), service: service.into() }
    }

    /// Returns `count` different anomalies.
    pub(crate) fn many(count: usize) -> Vec<Self> {
        (0..count).map(|number| Self::new(format!("svc-{number}"))).collect()
    }

    /// Returns an occurrence: four identifying fields and two others, as an alert has them.
    pub(crate) fn body(&self) -> String {
        let Self { alert_name, service } = self;
        format!(
            r#"{{"alert_name":"{alert_name}","service":"{service}","namespace":"prod","error_type":"OOMKilled","pod":"{service}-7d9f8b6c5d-x2x8z","node":"node-3"}}"#
        )
    }

    /// Returns an occurrence with its time.
    pub(crate) fn body_at(&self, at: Timestamp) -> String {
        let mut body = self.body();
        body.pop();
        // Writing to a String can't fail.
        let _ = write!(body, r#","occurred_at":"{at}"}}"#);
        body
    }

    /// Returns an occurrence with placeholders for an id and a time, which `wrk.lua` replaces in
    /// each request.
    pub(crate) fn body_with_id(&self) -> String {
        let mut body = self.body();
        body.pop();
        body + r#","event_id":"@ID","occurred_at":"@TIME"}"#
    }

    pub(crate) fn key(&self) -> AnomalyKey {
        let fields = [
            ("alert_name", self.alert_name.as_str()),
            ("service", self.service.as_str()),
            ("namespace", "prod"),
            ("error_type", "OOMKilled"),
        ];
        let fields: Map<_, _> =
            fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        Signature::from_fields(&fields).expect("four strings are a signature").key()
    }

    pub(crate) fn frequency_path(&self) -> String {
        format!("/anomalies/{}/frequency", self.key())
    }
}

/// Returns the time that was this many hours ago.
pub(crate) fn hours_ago(hours: i64) -> Timestamp {
    SystemClock.now().minus_seconds(hours * 3_600)
}

/// Joins occurrences into an array, as a body.
pub(crate) fn array(bodies: impl IntoIterator<Item = String>) -> String {
    let bodies: Vec<String> = bodies.into_iter().collect();
    format!("[{}]", bodies.join(","))
}

/// Returns `count` arrays of `length` occurrences of random anomalies; the same ones in each run.
pub(crate) fn random_arrays(anomalies: &[Anomaly], count: usize, length: usize) -> Vec<String> {
    let mut random = StdRng::seed_from_u64(7);
    let mut any = || anomalies[random.random_range(0..anomalies.len())].body();
    (0..count).map(|_| array((0..length).map(|_| any()).collect::<Vec<_>>())).collect()
}
