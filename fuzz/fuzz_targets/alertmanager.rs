//! Reads any body as a delivery of Alertmanager: an occurrence that is read from an alert is within
//! the service's limits and does not depend on the other alerts, and a malformed alert fails alone.
#![no_main]

use anomaly_counter::{
    domain::{AlertState, CountBy, EventId, Occurrence, Signature, Timestamp},
    http::fuzzing::{ReadAlerts, read_delivery},
};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};

fn now() -> Timestamp {
    Timestamp::parse_rfc3339("2026-11-22T14:21:22.587413Z").expect("a time")
}

fn readable() -> Value {
    json!({"status": "firing", "labels": {"alertname": "A"}, "startsAt": "2026-11-22T14:00:00Z"})
}

fn read_again(alerts: Vec<Value>) -> ReadAlerts {
    let body = json!({ "alerts": alerts }).to_string();
    read_delivery(body.as_bytes(), CountBy::Incident, now()).expect("a delivery")
}

fn check(occurrence: &Occurrence) {
    assert_eq!(EventId::parse(occurrence.id.as_str()).as_ref(), Ok(&occurrence.id));
    assert!(occurrence.at <= now());
    let episode = occurrence.episode.as_ref().expect("it is an alert");
    assert_eq!(episode.delivered_at, now());
    assert!(episode.start() <= episode.end().unwrap_or(now()));
    let signature = Signature::from_fields(&stored(occurrence)).expect("a signature");
    assert_eq!(signature.key(), occurrence.key);
}

fn stored(occurrence: &Occurrence) -> Map<String, Value> {
    serde_json::from_str(&occurrence.signature_json.to_stored()).expect("an object")
}

/// Brings stored fields into one spelling: the same alert in another spelling is stored in that
/// one, with the same values.
fn in_one_spelling(mut read: ReadAlerts) -> ReadAlerts {
    for occurrence in read.iter_mut().flatten() {
        let fields = Value::from(stored(occurrence));
        occurrence.signature_json = fields.to_string().into();
    }
    read
}

fuzz_target!(|body: &[u8]| {
    let Ok(read) = read_delivery(body, CountBy::Incident, now()) else { return };
    for occurrence in read.iter().flatten() {
        check(occurrence);
    }

    // If deliveries are counted, a firing alert has another id and time; nothing else differs.
    let by_delivery = read_delivery(body, CountBy::Delivery, now()).expect("the same delivery");
    assert_eq!(by_delivery.len(), read.len());
    for (incident, delivery) in read.iter().zip(&by_delivery) {
        match (incident, delivery) {
            (Ok(incident), Ok(delivery)) => {
                check(delivery);
                let is_same = delivery.at == incident.at && delivery.id == incident.id;
                let fires = |alert: &Occurrence| {
                    alert.episode.as_ref().is_some_and(|it| it.state == AlertState::Firing)
                };
                assert!(is_same || fires(delivery) && delivery.at == now());
                assert_eq!(delivery.episode, incident.episode);
                assert_eq!(delivery.signature_json, incident.signature_json);
            }
            (Err(_), Err(_)) => {}
            _ => panic!("{incident:?} {delivery:?}"),
        }
    }

    // A delivery that holds what a tree of values can't hold is not compared any further.
    let Ok(delivery) = serde_json::from_slice::<Value>(body) else { return };
    let no_alerts = Vec::new();
    let alerts = delivery["alerts"].as_array().unwrap_or(&no_alerts);
    let between = [vec![readable()], alerts.clone(), vec![readable()]].concat();
    let beside = in_one_spelling(read_again(between));
    let read = in_one_spelling(read);
    assert!(beside[0].is_ok() && beside.first() == beside.last());
    assert_eq!(beside[1..=read.len()], read);
    for (alert, alone) in alerts.iter().zip(&read) {
        let again = in_one_spelling(read_again(vec![alert.clone()]));
        assert_eq!(again, std::slice::from_ref(alone));
    }
});
