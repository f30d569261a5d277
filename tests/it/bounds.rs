//! More than the service can do, and clients that want to hold it up: refused at once, told to come
//! again, and no trouble for the others.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use crate::support::{Proxy, RedisServer, Service, Weather, eventually, healthy_again, key_of};

async fn connect(service: &Service) -> TcpStream {
    TcpStream::connect(service.address()).await.unwrap()
}

/// Two requests at a time, each of which takes 400 ms.
async fn slow_service() -> (RedisServer, Proxy, Arc<Service>) {
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.port()).await;
    let options = [
        ("REDIS__URL", &*proxy.url()),
        ("REDIS__COMMAND_TIMEOUT_MS", "8000"),
        ("HTTP__MAX_CONCURRENT_REQUESTS", "2"),
    ];
    let service = Arc::new(Service::with(&options).await);
    service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await.ok();
    proxy.set(Weather::Slow(Duration::from_millis(200)));
    (redis, proxy, service)
}

#[tokio::test]
async fn a_burst_waits_for_its_turn() {
    let (_redis, _proxy, service) = slow_service().await;
    let mut burst = JoinSet::new();
    for _ in 0..4 {
        let service = Arc::clone(&service);
        burst.spawn(async move {
            service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await.status
        });
    }
    for status in burst.join_all().await {
        assert_eq!(status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn under_lasting_overload_what_is_beyond_is_refused_at_once_and_the_rest_keeps_its_latency() {
    let (_redis, proxy, service) = slow_service().await;
    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..20 {
        let service = Arc::clone(&service);
        callers.spawn(async move {
            let mut answers = Vec::new();
            while begun.elapsed() < Duration::from_secs(5) {
                let asked = Instant::now();
                let answer = service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await;
                answers.push((asked - begun, asked.elapsed(), answer));
            }
            answers
        });
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    // Whoever looks after it is answered.
    service.get("/healthz").await.ok();
    let answers: Vec<_> = callers.join_all().await.into_iter().flatten().collect();
    let (accepted, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|(_, _, answer)| answer.status == 200);
    for (_, took, _) in &accepted {
        assert!(*took < Duration::from_millis(1_700), "{took:?}");
    }
    assert!(accepted.len() > 10, "{} accepted", accepted.len());
    // The burst at the beginning may wait; then nobody does.
    let lasting = refused.iter().filter(|(at, ..)| *at > Duration::from_millis(1_800));
    assert!(lasting.clone().count() > 100);
    for (_, took, answer) in lasting {
        assert!(answer.problem(503).contains("nothing was recorded"));
        assert_eq!(answer.body["type"], "/problems/overloaded");
        assert_eq!(answer.headers["retry-after"], "1");
        assert!(*took < Duration::from_millis(200), "{took:?}");
    }
    proxy.set(Weather::Fair);
    let path = format!("/anomalies/{}/frequency", key_of("HighCPU"));
    assert_eq!(service.get(&path).await.ok()["count_1h"], 1 + accepted.len());
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_a_503_and_the_write_counts_once() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.port()).await;
    let options = [
        ("REDIS__URL", &*proxy.url()),
        ("REDIS__COMMAND_TIMEOUT_MS", "8000"),
        ("HTTP__RESPONSE_TIMEOUT_SECONDS", "1"),
    ];
    let service = Service::with(&options).await;
    let event = json!({"alert_name": "HighCPU", "event_id": "once"});
    proxy.set(Weather::Slow(Duration::from_millis(1_500)));
    let begun = Instant::now();
    let late = service.post("/anomalies", &event).await;
    assert!(late.problem(503).contains("same event_id"));
    assert!(begun.elapsed() < Duration::from_millis(1_300), "{:?}", begun.elapsed());
    proxy.set(Weather::Fair);
    eventually("the same event is taken", || async {
        (service.post("/anomalies", &event).await.status.is_success()).then_some(())
    })
    .await;
    healthy_again(&service).await;
    let path = format!("/anomalies/{}/frequency", key_of("HighCPU"));
    assert_eq!(service.get(&path).await.ok()["count_1h"], 1);
}

#[tokio::test]
async fn a_client_that_reads_no_answers_loses_its_connection() {
    let options = [("HTTP__SEND_TIMEOUT_SECONDS", "1"), ("HTTP__MAX_CONNECTIONS", "1")];
    let service = Service::with(&options).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(service.address().parse().unwrap()).await.unwrap();
    let array = vec![json!({"alert_name": "HighCPU"}); 1_000];
    let body = serde_json::to_string(&array).unwrap();
    let request = format!(
        "POST /anomalies HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    // Many requests one behind the other, and none of the answers read.
    let sending = tokio::spawn(async move {
        for _ in 0..200 {
            if stream.write_all(request.as_bytes()).await.is_err() {
                break;
            }
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
        drop(stream);
    });
    // It has the only place, until it is cut off.
    eventually("the place is taken", || async {
        let mut other = connect(&service).await;
        other
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await
            .ok()?;
        let mut answer = String::new();
        other.read_to_string(&mut answer).await.ok()?;
        answer.starts_with("HTTP/1.1 503").then_some(())
    })
    .await;
    eventually("the place is free again", || async {
        let answer = service.request(reqwest::Method::GET, "/healthz").send().await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await;
    assert!(!sending.is_finished(), "the client itself has not let go");
    sending.abort();
}
