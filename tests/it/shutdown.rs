//! Shutdown: every accepted request is answered, and every answered write is kept.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{DEADLINE, RedisServer, Service};

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
async fn an_idle_connection_does_not_delay_the_shutdown() {
    // If the shutdown waited for the connection, it would wait for ten minutes.
    let options =
        [("HTTP__HEADER_TIMEOUT_SECONDS", "600"), ("HTTP__SHUTDOWN_TIMEOUT_SECONDS", "600")];
    let mut service = Service::with(&options).await;
    service.get("/healthz").await.ok();
    let _idle = tokio::net::TcpStream::connect(service.address()).await.unwrap();
    service.terminate();
    assert!(service.ended_well().await);
}

#[tokio::test]
async fn a_client_that_never_completes_its_request_is_disconnected_and_delays_nobody() {
    let options = [
        ("HTTP__HEADER_TIMEOUT_SECONDS", "1"),
        ("HTTP__BODY_TIMEOUT_SECONDS", "1"),
        ("HTTP__MAX_CONNECTIONS", "20"),
    ];
    let service = Service::with(&options).await;
    let slow = |text: &'static str| {
        let address = service.address().to_owned();
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            let mut answer = String::new();
            // The end of the stream or a reset: the service has closed the connection.
            let _ = stream.read_to_string(&mut answer).await;
            answer
        })
    };
    let head = slow("POST /anomalies HTTP/1.1\r\nHost: localhost\r\n");
    let body = slow(
        "POST /anomalies HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\nConnection: close\r\n\r\n{",
    );
    service.get("/healthz").await.ok();
    tokio::time::timeout(DEADLINE, head).await.expect("it is cut off").unwrap();
    let answer = tokio::time::timeout(DEADLINE, body).await.expect("it is answered").unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");

    // At the limit, another connection is refused.
    let mut idle = Vec::new();
    for _ in 0..25 {
        idle.push(TcpStream::connect(service.address()).await.unwrap());
    }
    let refused = slow("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let refused = tokio::time::timeout(DEADLINE, refused).await.expect("an answer").unwrap();
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.contains("retry-after: 1"), "{refused}");
    drop(idle);
}

#[tokio::test]
async fn on_sigterm_in_an_outage_the_service_ends_and_keeps_accepted_writes() {
    let mut redis = RedisServer::start();
    let options = [("REDIS__URL", &*redis.url()), ("HTTP__SHUTDOWN_TIMEOUT_SECONDS", "600")];
    let mut service = Service::with(&options).await;
    // A stalled Redis keeps its connections open, and answers no QUIT.
    redis.pause();
    for id in 0..20 {
        let event = json!({"alert_name": "HighCPU", "event_id": id.to_string()});
        assert_eq!(service.post("/anomalies", &event).await.status, 202);
    }
    service.terminate();
    assert!(service.ended_well().await);
    redis.kill();
    let service = service.restart().await;
    let after = service.get("/anomalies/af03baee239021c4/frequency").await.ok();
    assert_eq!(after["count_1h"], 20);
}
