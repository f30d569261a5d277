//! The embedded store after `kill -9`, with a million events, over months, with a second process,
//! and with older files.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anomaly_counter::{
    domain::Window,
    store::{EmbeddedOpenError, Store},
};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{Ended, Service, anomaly_counter, occurrence, open_embedded, start_of_tests};

/// The key of `{"alert_name":"HighCPU"}`.
const KEY: &str = "af03baee239021c4";

#[tokio::test(flavor = "multi_thread")]
async fn every_answered_event_is_there_once_after_kill_9_under_load() {
    const CLIENTS: usize = 16;
    let service = Arc::new(tokio::sync::RwLock::new(Service::embedded().await));
    let answered = Arc::new(Mutex::new(Vec::new()));
    let sent = Arc::new(Mutex::new(Vec::new()));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (service, answered, sent) = (service.clone(), answered.clone(), sent.clone());
            tokio::spawn(async move {
                let service = service.read().await;
                for i in 0.. {
                    let id = format!("{client}-{i}");
                    sent.lock().unwrap().push(id.clone());
                    let body = json!({"alert_name": "HighCPU", "event_id": id});
                    let request = service.request(reqwest::Method::POST, "/anomalies").json(&body);
                    let Ok(answer) = request.send().await else {
                        break;
                    };
                    if answer.status() != 200 {
                        break;
                    }
                    answered.lock().unwrap().push(id);
                }
            })
        })
        .collect();
    while answered.lock().unwrap().len() < 1_000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    service.read().await.kill_in_use();
    for client in clients {
        client.await.unwrap();
    }

    let service = Arc::into_inner(service).unwrap().into_inner().restart().await;
    let answered = answered.lock().unwrap().clone();
    let sent = sent.lock().unwrap().clone();
    let after = service.get(&format!("/anomalies/{KEY}/frequency")).await.ok();
    let counted = after["count_1h"].as_u64().unwrap() as usize;
    // A write that was under way when the process died may or may not be there.
    assert!((answered.len()..=sent.len()).contains(&counted), "{counted} counted");
    for ids in answered.chunks(1_000) {
        let again: Vec<_> =
            ids.iter().map(|id| json!({"alert_name": "HighCPU", "event_id": id})).collect();
        for answer in service.post("/anomalies", &again.into()).await.ok().as_array().unwrap() {
            assert_eq!(answer["counted"], false, "an answered event is not there");
        }
    }
    let still = service.get(&format!("/anomalies/{KEY}/frequency")).await.ok();
    assert_eq!(still["count_1h"], counted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_events_are_there_after_a_restart() {
    const EVENTS: u64 = 1_000_000;
    const BATCH: u64 = 2_000;
    const KEYS: u64 = 5_000;
    let (dir, now) = (TempDir::new().unwrap(), start_of_tests());
    let store = open_embedded(dir.path()).unwrap();
    for first in (0..EVENTS).step_by(BATCH as usize) {
        let batch = (first..first + BATCH)
            .map(|i| occurrence(i % KEYS, &i.to_string(), now.minus_seconds(i as i64 % 3_000)));
        assert!(store.record(now.into(), batch.collect()).await.iter().all(Result::is_ok));
    }
    store.close().await;
    drop(store);

    let store = open_embedded(dir.path()).unwrap();
    let keys = (0..KEYS).map(anomaly_counter::domain::AnomalyKey::from_bits).collect();
    let mut total = 0;
    for stats in store.stats(now.into(), keys).await {
        total += stats.unwrap().unwrap().counts.hour;
    }
    assert_eq!(total, EVENTS);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_events_leave_the_file_so_that_it_does_not_grow_for_ever() {
    let (dir, mut now) = (TempDir::new().unwrap(), start_of_tests());
    let store = open_embedded(dir.path()).unwrap();
    let file = dir.path().join("anomalies.redb");
    let mut sizes = Vec::new();
    for month in 0..24_u64 {
        for batch in 0..30_u64 {
            let events = (0..1_000_u64)
                .map(|i| occurrence(month * 100 + i % 100, &format!("{batch}-{i}"), now));
            assert!(store.record(now.into(), events.collect()).await.iter().all(Result::is_ok));
        }
        store.maintain(now.into()).await.unwrap();
        sizes.push(std::fs::metadata(&file).unwrap().len());
        now = now.plus_seconds(Window::Month.length_seconds() + 6 * 86_400);
    }
    let (early, late) = (sizes[11], sizes[23]);
    assert!(late <= early + early / 4, "the file grows: {sizes:?}");

    // Only the anomalies of the last month remain, also after a restart.
    store.maintain(now.into()).await.unwrap();
    store.close().await;
    drop(store);
    let store = open_embedded(dir.path()).unwrap();
    let first_month = (0..100).map(anomaly_counter::domain::AnomalyKey::from_bits).collect();
    assert!(store.stats(now.into(), first_month).await.iter().all(|stats| *stats == Ok(None)));
    store.close().await;
}

#[tokio::test]
async fn a_second_process_on_the_same_folder_fails_with_the_reason() {
    let service = Service::embedded().await;
    let data_dir = service.data_dir();
    let mut command = anomaly_counter(&[]);
    command.env("ANOMALY_COUNTER__LISTEN", "127.0.0.1:0");
    let stderr = Ended::of(command.env("ANOMALY_COUNTER__DATA_DIR", &data_dir)).failed().stderr;
    assert!(stderr.contains("in use by another process"), "{stderr}");
    assert!(stderr.contains("data_dir"), "{stderr}");
    service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await.ok();
}

#[test]
fn a_folder_that_can_not_be_created_and_a_file_of_another_kind_are_reported() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    let fault = open_embedded(&dir.path().join("file/data")).unwrap_err();
    assert!(matches!(fault, EmbeddedOpenError::DataDir { .. }), "{fault}");
    assert!(fault.to_string().contains("data_dir"), "{fault}");

    std::fs::write(dir.path().join("anomalies.redb"), "this is no database".repeat(1_000)).unwrap();
    let fault = open_embedded(dir.path()).unwrap_err();
    assert!(matches!(fault, EmbeddedOpenError::Unreadable { .. }), "{fault}");
    assert!(fault.to_string().contains("move it away"), "{fault}");
}
