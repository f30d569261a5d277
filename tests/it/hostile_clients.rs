//! Hostile clients: thousands of idle connections; heads and bodies that are too large, too slow or
//! endless; and bytes that are not HTTP. Other clients are answered meanwhile, and memory is
//! bounded.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::support::{Answer, DEADLINE, Service, eventually, http_client, metric};

/// Maximum growth of memory: hostile clients may take 64 MiB for their bodies and up to 64 KiB for
/// each connection's buffer. Without bounds they take several times as much.
const MAX_GROWTH_BYTES: u64 = 150_000_000;

/// Posts over a new connection.
async fn post_anew(service: &Service) -> Option<Answer> {
    let client = http_client().build().unwrap();
    let url = format!("http://{}/anomalies", service.address());
    let request = client.post(url).json(&json!({"alert_name": "HighCPU"}));
    let response = request.send().await.ok()?;
    let (status, headers) = (response.status(), response.headers().clone());
    Some(Answer { status, headers, body: response.json().await.ok()? })
}

/// Makes other calls while `hostile` lasts, all of which must be answered. Returns the number of
/// calls that were answered before it ended.
async fn answered_while(service: &Service, hostile: impl Future<Output = ()>) -> u64 {
    let mut hostile = std::pin::pin!(hostile);
    let mut answered = 0;
    loop {
        let mut call = std::pin::pin!(async { post_anew(service).await.expect("an answer").ok() });
        tokio::select! {
            _ = &mut call => answered += 1,
            () = &mut hostile => {
                call.await;
                return answered;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_keep_nobody_out() {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    assert!(files >= 11_000, "this test takes 11,000 open files: raise the limit (ulimit -Hn)");
    let service = Service::embedded().await;
    post_anew(&service).await.unwrap().ok();
    let before = service.memory_bytes("VmRSS:");

    let mut idle = Vec::new();
    for _ in 0..10 {
        let streams = join_all((0..1_000).map(|_| TcpStream::connect(service.address()))).await;
        for (n, stream) in streams.into_iter().enumerate() {
            let mut stream = stream.unwrap();
            // Half of them begin a request that never ends.
            if n % 2 == 0 {
                // The service may have closed it already.
                let _ = stream.write_all(b"POST /anomalies HTTP/1.1\r\nHo").await;
            }
            idle.push(stream);
        }
    }
    // No connection is closed in its first second, in which a new client sends its request.
    eventually("one more is answered", || async {
        (post_anew(&service).await?.status == 200).then_some(())
    })
    .await;
    for _ in 0..20 {
        post_anew(&service).await.expect("an answer").ok();
    }
    let grown = service.memory_bytes("VmHWM:") - before;
    assert!(grown < MAX_GROWTH_BYTES, "{grown} bytes more");

    let open = metric(&service, "anomaly_counter_http_connections").await;
    assert!((4_000.0..4_100.0).contains(&open), "{open} open");
    let closed = metric(&service, "anomaly_counter_http_idle_connections_closed_total").await;
    assert!(closed > 20.0, "{closed} closed");
    drop(idle);
}

#[tokio::test]
async fn a_client_that_goes_on_asking_keeps_its_connection_among_idle_ones() {
    let service = Service::with(&[("HTTP__MAX_CONNECTIONS", "8")]).await;
    let mut stream = TcpStream::connect(service.address()).await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..40 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = [0; 1_024];
        let read = stream.read(&mut answer).await.unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "after {} idle ones", idle.len());
        idle.push(TcpStream::connect(service.address()).await.unwrap());
        // More often than idle connections are closed.
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn with_a_limit_of_files_below_that_of_connections_other_clients_are_answered() {
    let service = Service::with_open_files(300).await;
    eventually("the log says what to do", || async {
        service.log().contains("Raise the system's limit").then_some(())
    })
    .await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(TcpStream::connect(service.address()).await.unwrap());
    }
    eventually("one more is answered", || async {
        (post_anew(&service).await?.status == 200).then_some(())
    })
    .await;
}

/// Sends `bytes`, then `more` again and again at this pace until the service ends the connection.
/// Returns the answers.
async fn send(service: &Service, bytes: &[u8], more: &[u8], pace: Duration) -> String {
    let stream = TcpStream::connect(service.address()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let answer = async {
        let mut answer = Vec::new();
        // A reset does not discard the bytes that were read before it.
        let _ = reader.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let sending = async {
        let mut goes_on = writer.write_all(bytes).await.is_ok() && !more.is_empty();
        while goes_on {
            goes_on = writer.write_all(more).await.is_ok();
            sleep(pace).await;
        }
        // The answer is still to come.
        std::future::pending::<()>().await;
    };
    timeout(DEADLINE, async {
        tokio::select! {
            answer = answer => answer,
            () = sending => unreachable!(),
        }
    })
    .await
    .expect("the service ends it")
}

const POST: &str =
    "POST /anomalies HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
/// Bytes that are not HTTP: the beginning of TLS.
const NO_HTTP: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n";
const AT_ONCE: Duration = Duration::ZERO;
const SLOWLY: Duration = Duration::from_millis(100);

/// A hostile client: the bytes that are sent first, those that are repeated, their pace, and the
/// possible statuses. 0 stands for no answer: the client has not sent a whole request, or it goes
/// on sending and gets a reset.
type HostileClient<'a> = (&'a [u8], &'a [u8], Duration, &'a [u16]);

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_client_sends_others_are_answered_in_time_and_memory_is_bounded() {
    // Heads have time on a busy machine too: one that is late gets no answer.
    let options = [("HTTP__BODY_TIMEOUT_SECONDS", "10"), ("HTTP__HEADER_TIMEOUT_SECONDS", "8")];
    let service = Service::with(&options).await;
    post_anew(&service).await.unwrap().ok();
    let before = service.memory_bytes("VmRSS:");
    let large = format!("{POST}Content-Length: 10000000\r\n\r\n{}", " ".repeat(10_000_000));
    let endless = format!("{POST}Transfer-Encoding: chunked\r\n\r\n");
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    let slow = format!("{POST}Content-Length: 1000\r\n\r\n{{");
    let tiny = format!("{POST}Transfer-Encoding: chunked\r\n\r\n");
    // So short that it is sent at once, also on a busy machine.
    let head = format!("{POST}X-More: {}\r\n", "x".repeat(40_000));
    let twice = format!("{POST}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}");
    let clients: [HostileClient<'_>; 11] = [
        (large.as_bytes(), b"", AT_ONCE, &[413]),
        (endless.as_bytes(), chunk.as_bytes(), AT_ONCE, &[413, 503, 0]),
        (slow.as_bytes(), b" ", SLOWLY, &[408]),
        (tiny.as_bytes(), b"1\r\n \r\n", AT_ONCE, &[408, 413, 503, 0]),
        (head.as_bytes(), b"", AT_ONCE, &[431]),
        (POST.as_bytes(), b"X-More: x\r\n", AT_ONCE, &[431, 0]),
        (POST.as_bytes(), b"x", SLOWLY, &[0]),
        (b"POST /anom", b"", SLOWLY, &[0]),
        (NO_HTTP, b"", AT_ONCE, &[400]),
        (b"GET /healthz\r\n\r\n", b"", AT_ONCE, &[400]),
        (twice.as_bytes(), b"", AT_ONCE, &[400]),
    ];
    let hostile = async {
        let all = clients.iter().flat_map(|client| std::iter::repeat_n(client, 50));
        let answers = join_all(all.map(|(bytes, more, pace, expected)| {
            let answer = send(&service, bytes, more, *pace);
            async move { (answer.await, expected, bytes) }
        }));
        for (answer, expected, bytes) in answers.await {
            let sent = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]);
            let status = answer.strip_prefix("HTTP/1.1 ").map_or("0", |rest| &rest[..3]);
            let is_expected = expected.contains(&status.parse().unwrap());
            assert!(is_expected, "{sent:?} was answered {answer:?}");
        }
    };
    // The slow bodies time out after 10 s: a client that had to wait for them would get one answer.
    let answered = answered_while(&service, hostile).await;
    assert!(answered > 4, "{answered} others were answered");
    // The peak of memory since the start.
    let grown = service.memory_bytes("VmHWM:") - before;
    assert!(grown < MAX_GROWTH_BYTES, "{grown} bytes more");
}

#[tokio::test]
async fn a_client_that_goes_on_sending_and_reads_late_reads_its_refusal() {
    let service = Service::with(&[("HTTP__BODY_TIMEOUT_SECONDS", "1")]).await;
    let long_head = format!("{POST}X-More: {}\r\n", "x".repeat(100_000));
    let slow_body = format!("{POST}Content-Length: 1000\r\n\r\n{{");
    // The body times out after a second.
    for (sent, more, status) in [(long_head, 5, 431), (slow_body, 15, 408)] {
        let mut stream = TcpStream::connect(service.address()).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        for _ in 0..more {
            sleep(Duration::from_millis(100)).await;
            // The service may have closed it.
            let _ = stream.write_all(b" ").await;
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{status}: {answer}");
    }
}

/// Clients that send all of a body except its last byte.
async fn unended(service: &Service, head: &str, clients: usize, bytes: usize) -> Vec<TcpStream> {
    let request = format!("{head}Content-Length: {bytes}\r\n\r\n{}", " ".repeat(bytes - 1));
    let mut streams = Vec::new();
    for _ in 0..clients {
        let mut stream = TcpStream::connect(service.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    streams
}

#[tokio::test]
async fn more_large_bodies_than_there_is_memory_for_are_refused_and_small_ones_are_not() {
    const BYTES: usize = 65_536;
    let (most, total) = (BYTES.to_string(), (64 * BYTES).to_string());
    let options = [
        ("HTTP__MAX_BODY_BYTES", &*most),
        ("ALERTMANAGER__MAX_BODY_BYTES", &*most),
        ("HTTP__MAX_CONNECTIONS", "256"),
        ("HTTP__MAX_TOTAL_BODY_BYTES", &*total),
        ("HTTP__BODY_TIMEOUT_SECONDS", "8"),
    ];
    let service = Service::with(&options).await;
    let mut unended_bodies = unended(&service, POST, 80, BYTES).await;
    let large = format!("{{\"alert_name\":\"HighCPU\"}}{}", " ".repeat(60_000));
    let mut refused = None;
    // Concurrent bodies may all be refused half-way; one by one they fill the rest.
    while refused.is_none() && unended_bodies.len() < 200 {
        unended_bodies.extend(unended(&service, POST, 1, BYTES).await);
        let answer = service.post_raw("/anomalies", large.clone()).await;
        refused = (answer.status == 503).then_some(answer);
    }
    let refused = refused.expect("a refusal");
    assert!(refused.problem(503).contains("memory"));
    post_anew(&service).await.unwrap().ok();
    drop(unended_bodies);
    eventually("there is room again", || async {
        (service.post_raw("/anomalies", large.clone()).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_wait_for_memory_instead_of_taking_more() {
    let service = Service::embedded().await;
    let body = format!("{{\"alert_name\":\"HighCPU\",\"pad\":\"{}\"}}", "x".repeat(1_000_000));
    for _ in 0..2 {
        let posts = (0..64).map(|_| service.post_raw("/anomalies", body.clone()));
        for answer in join_all(posts).await {
            answer.ok();
        }
    }
    let peak = service.memory_bytes("VmHWM:");
    assert!(peak < 400 << 20, "{peak} bytes");
}

#[tokio::test]
async fn bodies_that_never_arrive_do_not_keep_connections_from_others() {
    let service = Service::with(&[("HTTP__MAX_CONNECTIONS", "8")]).await;
    let heads = [POST, "GET /docs HTTP/1.1\r\nHost: localhost\r\n"];
    for head in heads {
        let _unended = unended(&service, head, 8, 2).await;
        eventually("one more is answered", || async {
            (post_anew(&service).await?.status == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_reads_the_refusal() {
    let service = Service::with(&[("HTTP__MAX_BODY_BYTES", "1000")]).await;
    let expects = format!("{POST}Expect: 100-continue\r\n");
    let announced = format!("{expects}Content-Length: 2000\r\n\r\n");
    let answer = send(&service, announced.as_bytes(), b"", AT_ONCE).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    // The size of a chunked body is known only at its end.
    let chunk = format!("7d0\r\n{}\r\n0\r\n\r\n", " ".repeat(2_000));
    let chunked =
        format!("{expects}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{chunk}");
    let answer = send(&service, chunked.as_bytes(), b"", AT_ONCE).await;
    assert!(answer.contains("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let service = Service::embedded().await;
    let mut pipelining = JoinSet::new();
    for client in 0..20 {
        let address = service.address().to_owned();
        pipelining.spawn(async move {
            let event = |n| format!(r#"{{"alert_name":"HighCPU","event_id":"{client}-{n}"}}"#);
            let mut requests = String::new();
            for n in 0..100 {
                let event = event(n);
                let length = event.len();
                let id = format!("X-Request-Id: {n}\r\n");
                requests += &format!("{POST}{id}Content-Length: {length}\r\n\r\n{event}");
            }
            requests += "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(requests.as_bytes()).await.unwrap();
            let mut answers = String::new();
            stream.read_to_string(&mut answers).await.unwrap();
            answers
        });
    }
    let others = answered_while(&service, async {
        for answers in pipelining.join_all().await {
            assert_eq!(answers.matches("HTTP/1.1 200").count(), 101);
            let ids = answers.lines().filter_map(|line| line.strip_prefix("x-request-id: "));
            let ids: Vec<_> = ids.filter_map(|id| id.parse::<usize>().ok()).collect();
            assert_eq!(ids, Vec::from_iter(0..100));
        }
    });
    assert!(others.await > 0, "no other was answered");
}

#[tokio::test]
async fn a_request_through_a_trusted_proxy_is_logged_with_its_clients_address() {
    let listen = "[proxy]\ntrusted = [\"127.0.0.0/8\"]\n[auth]\n\
                  [[auth.tokens]]\nname = \"a\"\nsha256 = \
                  \"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\"\nscopes = [\"read\"]\n";
    let service = Service::with_files(listen, &[]).await;
    let request = service.request(Method::GET, "/spool/dead-letters");
    let request = request.header("x-forwarded-for", "203.0.113.9, 198.51.100.7");
    Answer::of(request).await.problem(401);
    let log = service.log();
    let line = log.lines().find(|line| line.contains("a call is refused")).unwrap();
    assert!(line.contains("\"client\":\"198.51.100.7\""), "{line}");
}
