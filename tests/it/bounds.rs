//! Overload and slow clients: excess requests are refused at once with a time to retry, and other
//! clients notice nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use crate::support::{
    DEADLINE, Proxy, RedisServer, Service, Weather, eventually, healthy_again, key_of, metric,
};

async fn connect(service: &Service) -> TcpStream {
    TcpStream::connect(service.address()).await.unwrap()
}

/// Starts a service that handles two requests at a time, each of which takes twice this delay.
async fn slow_service(delay: Duration) -> (RedisServer, Proxy, Arc<Service>) {
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.port()).await;
    let options = [
        ("REDIS__URL", &*proxy.url()),
        ("REDIS__COMMAND_TIMEOUT_MS", "8000"),
        ("HTTP__MAX_CONCURRENT_REQUESTS", "2"),
    ];
    let service = Arc::new(Service::with(&options).await);
    service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await.ok();
    proxy.set(Weather::Slow(delay));
    (redis, proxy, service)
}

#[tokio::test]
async fn a_burst_waits_for_its_turn() {
    let (_redis, _proxy, service) = slow_service(Duration::from_millis(100)).await;
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
async fn in_an_overload_excess_requests_are_refused_at_once_and_the_others_keep_their_latency() {
    const CALLERS: usize = 40;
    const ENOUGH: usize = 30;
    let (_redis, proxy, service) = slow_service(Duration::from_millis(200)).await;
    let accepted = Arc::new(AtomicUsize::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (service, accepted) = (Arc::clone(&service), Arc::clone(&accepted));
        callers.spawn(async move {
            let (mut overtaken_by, mut refused) = (Vec::new(), Vec::new());
            loop {
                let before = accepted.load(Ordering::Relaxed);
                if before >= ENOUGH {
                    return (overtaken_by, refused);
                }
                let answer = service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await;
                if answer.status == 200 {
                    overtaken_by.push(accepted.fetch_add(1, Ordering::Relaxed) - before);
                } else {
                    refused.push(answer);
                }
            }
        });
    }
    eventually("a call is accepted", || async {
        (accepted.load(Ordering::Relaxed) > 0).then_some(())
    })
    .await;
    // Probes are always answered.
    service.get("/healthz").await.ok();
    let (overtaken_by, refused): (Vec<_>, Vec<_>) = callers.join_all().await.into_iter().unzip();
    let overtaken_by: Vec<usize> = overtaken_by.concat();
    let refused: Vec<_> = refused.into_iter().flatten().collect();
    for answer in &refused {
        assert!(answer.problem(503).contains("had no effect"));
        assert_eq!(answer.body["type"], "/problems/overloaded");
        assert_eq!(answer.headers["retry-after"], "1");
    }
    // If each refused call had waited for 0.8 s, there would be about ten for an accepted one.
    assert!(refused.len() > 20 * overtaken_by.len(), "{} refused", refused.len());
    // In a queue of all callers, a call waits until most of the others are accepted.
    let most = overtaken_by.iter().max().unwrap();
    assert!(*most < CALLERS / 2, "{overtaken_by:?}");
    proxy.set(Weather::Fair);
    let path = format!("/anomalies/{}/frequency", key_of("HighCPU"));
    assert_eq!(service.get(&path).await.ok()["count_1h"], 1 + overtaken_by.len());
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
    proxy.set(Weather::Slow(Duration::from_millis(3_000)));
    let late = service.post("/anomalies", &event).await;
    assert!(late.problem(503).contains("same event_id"));
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
    let options = [("HTTP__SEND_TIMEOUT_SECONDS", "3"), ("HTTP__MAX_CONNECTIONS", "1")];
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
    // Pipelines many requests and reads no answer.
    let sending = tokio::spawn(async move {
        for _ in 0..200 {
            if stream.write_all(request.as_bytes()).await.is_err() {
                break;
            }
        }
        tokio::time::sleep(2 * DEADLINE).await;
        drop(stream);
    });
    // This client has the only connection that is served, until it is closed.
    eventually("the connection limit is reached", || async {
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
    eventually("a connection is free again", || async {
        let answer = service.request(reqwest::Method::GET, "/healthz").send().await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await;
    assert!(!sending.is_finished(), "the client itself has not let go");
    sending.abort();
}

#[tokio::test]
async fn a_full_embedded_store_refuses_new_anomalies_and_counts_known_ones() {
    const LIMIT: usize = 20;
    let limit = LIMIT.to_string();
    let service = Service::with(&[("STORE__MAX_ANOMALIES", &limit)]).await;
    let event = |number: usize| json!({"alert_name": format!("Alert{number}")});
    for number in 0..LIMIT {
        service.post("/anomalies", &event(number)).await.ok();
    }
    let refused = service.post("/anomalies", &event(LIMIT)).await;
    let detail = refused.problem(503);
    assert!(detail.contains("`store.max_anomalies`"), "{detail}");
    assert!(detail.contains("nothing was recorded"), "{detail}");
    assert_eq!(refused.headers["retry-after"], "60");

    // Of an array only the new anomaly is refused.
    let both = service.post("/anomalies", &json!([event(0), event(LIMIT)])).await.ok();
    assert_eq!(both[0]["count_1h"], 2);
    assert_eq!(both[1]["status"], 503);
    let path = format!("/anomalies/{}/frequency", key_of(&format!("Alert{LIMIT}")));
    service.get(&path).await.problem(404);

    // A full store is no outage.
    let ready = service.get("/readyz").await.ok();
    assert_eq!(ready["status"], "ready");
    assert_eq!(metric(&service, "anomaly_counter_store_anomalies").await, LIMIT as f64);
    assert_eq!(metric(&service, "anomaly_counter_store_max_anomalies").await, LIMIT as f64);
    assert!(metric(&service, "anomaly_counter_store_errors_total{class=\"full\"}").await >= 2.0);

    let service = service.restart().await;
    service.post("/anomalies", &event(LIMIT)).await.problem(503);
    assert_eq!(service.post("/anomalies", &event(1)).await.ok()["count_1h"], 2);
}
