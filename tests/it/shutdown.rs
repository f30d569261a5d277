//! Stopping: what was accepted is answered, and what was answered is kept.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::json;

use crate::support::Service;

#[tokio::test(flavor = "multi_thread")]
async fn on_sigterm_under_load_every_recorded_occurrence_is_answered() {
    let service = Arc::new(tokio::sync::RwLock::new(Service::embedded().await));
    let answered = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let (service, answered) = (service.clone(), answered.clone());
            tokio::spawn(async move {
                let service = service.read().await;
                let body = json!({"alert_name": "HighCPU"});
                loop {
                    let request = service.request(reqwest::Method::POST, "/anomalies").json(&body);
                    // Once it has stopped, connections are refused.
                    let Ok(answer) = request.send().await else {
                        break;
                    };
                    assert_eq!(answer.status(), 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    while answered.load(Ordering::Relaxed) < 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    service.read().await.terminate();
    for client in clients {
        client.await.unwrap();
    }

    let mut service = Arc::into_inner(service).unwrap().into_inner();
    assert!(service.ended_well().await);
    assert!(service.log().contains("stopped"));
    let service = service.restart().await;
    let after = service.get("/anomalies/af03baee239021c4/frequency").await.ok();
    assert_eq!(after["count_1h"], answered.load(Ordering::Relaxed));
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let mut service = Service::embedded().await;
    service.get("/healthz").await.ok();
    let _idle = tokio::net::TcpStream::connect(service.address()).await.unwrap();
    let begun = std::time::Instant::now();
    service.terminate();
    assert!(service.ended_well().await);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
