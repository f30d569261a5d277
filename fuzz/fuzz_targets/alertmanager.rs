//! Any body as a delivery of Alertmanager: what is made of an alert fits the service's limits and does
//! not depend on the alerts beside it, and one that can't be read fails itself alone.
#![no_main]

use anomaly_counter::{
    domain::{EventId, MAX_AHEAD_SECONDS, Occurrence, Signature, Timestamp},
    http::{
        CountBy,
        fuzzing::{ReadAlerts, read_delivery},
    },
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
    read_delivery(body.as_bytes(), CountBy::Episode, now()).expect("a delivery")
}

fn check(occurrence: &Occurrence) {
    assert_eq!(EventId::parse(occurrence.id.as_str()).as_ref(), Ok(&occurrence.id));
    assert!(occurrence.at <= now().plus_seconds(MAX_AHEAD_SECONDS));
    let kept: Map<String, Value> =
        serde_json::from_str(&occurrence.signature_json).expect("an object");
    let signature = Signature::from_fields(&kept).expect("a signature");
    assert_eq!(signature.key(), occurrence.key);
}

fuzz_target!(|body: &[u8]| {
    let Ok(read) = read_delivery(body, CountBy::Episode, now()) else { return };
    for occurrence in read.iter().flatten().flatten() {
        check(occurrence);
    }

    // Counted by deliveries, an alert with another id is read; nothing else differs.
    let by_delivery = read_delivery(body, CountBy::Delivery, now()).expect("the same delivery");
    assert_eq!(by_delivery.len(), read.len());
    for (episode, delivery) in read.iter().zip(&by_delivery) {
        match (episode, delivery) {
            (Ok(Some(episode)), Ok(Some(delivery))) => {
                check(delivery);
                assert_eq!(delivery.at, now());
                assert_eq!(delivery.signature_json, episode.signature_json);
            }
            (Ok(None), Ok(None)) | (Err(_), _) => {}
            _ => panic!("{episode:?} {delivery:?}"),
        }
    }

    let delivery: Value = serde_json::from_slice(body).expect("it was read");
    let alerts = delivery["alerts"].as_array().expect("it was read");
    let between = [vec![readable()], alerts.clone(), vec![readable()]].concat();
    let beside = read_again(between);
    assert!(matches!(beside[0], Ok(Some(_))) && beside.first() == beside.last());
    assert_eq!(beside[1..=read.len()], read);
    for (alert, alone) in alerts.iter().zip(&read) {
        assert_eq!(read_again(vec![alert.clone()]), std::slice::from_ref(alone));
    }
});
