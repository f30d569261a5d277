//! The rules of RFC 9112 for a server: no request is accepted that two readers could read
//! differently.

use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{Answer, Service, key_of};

/// Sends bytes unchanged, and returns the status and the body of the answer. If it `breaks_off`,
/// the connection's sending side is closed after them.
async fn send(service: &Service, request: &str, breaks_off: bool) -> (u16, String) {
    let mut stream = TcpStream::connect(service.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    if breaks_off {
        stream.shutdown().await.unwrap();
    }
    let mut answer = String::new();
    // A reset does not discard the bytes that were read before it.
    let _ = stream.read_to_string(&mut answer).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    (head[9..12].parse().unwrap(), body.to_owned())
}

const BODY: &str = "{\"alert_name\":\"HighCPU\"}";

/// Returns a POST whose head begins with `head`.
fn post(head: &str) -> String {
    let length = BODY.len();
    format!(
        "{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{BODY}"
    )
}

#[tokio::test]
async fn a_request_without_one_host_of_the_service_is_refused() {
    let service = Service::embedded().await;
    let address = service.address();
    let own = format!("Host: {address}\r\n");
    for (line, host, expected) in [
        ("POST /anomalies HTTP/1.1", &*own, 200),
        ("POST /anomalies HTTP/1.0", "", 200),
        ("POST /anomalies HTTP/1.1", "", 400),
        ("POST /anomalies HTTP/1.1", "Host: 127.0.0.1\r\nHost: evil.example\r\n", 400),
        ("POST /anomalies HTTP/1.1", "Host: evil.example@127.0.0.1\r\n", 400),
        ("POST /anomalies HTTP/1.1", "Host: evil.example\r\n", 421),
        ("POST http://evil.example/anomalies HTTP/1.1", &*own, 421),
        ("POST http://evil.example/anomalies HTTP/1.1", "Host: evil.example\r\n", 421),
        ("POST http://evil.example/anomalies HTTP/1.0", "", 421),
        (&*format!("POST http://{address}/anomalies HTTP/1.1"), &*own, 200),
    ] {
        let (status, body) = send(&service, &post(&format!("{line}\r\n{host}")), false).await;
        assert_eq!(status, expected, "{line} {host:?}: {body}");
    }
    let path = format!("/anomalies/{}/frequency", key_of("HighCPU"));
    assert_eq!(service.get(&path).await.ok()["count_1h"], 3);
}

#[tokio::test]
async fn two_idempotency_keys_that_differ_are_refused() {
    let service = Service::embedded().await;
    let occurrence = json!({"alert_name": "HighCPU"});
    let with = |keys: &[&str]| {
        let request = service.request(Method::POST, "/anomalies").json(&occurrence);
        let add =
            |request: reqwest::RequestBuilder, key: &&str| request.header("idempotency-key", *key);
        Answer::of(keys.iter().fold(request, add))
    };
    assert!(with(&["a", "b"]).await.problem(400).contains("Idempotency-Key"));
    assert_eq!(with(&["a", "a"]).await.ok()["counted"], true);
    assert_eq!(with(&["a"]).await.ok()["reason"], "duplicate");
}

#[tokio::test]
async fn the_problem_of_an_incomplete_or_badly_chunked_body_is_not_bad_json() {
    let service = Service::embedded().await;
    let head = format!(
        "POST /anomalies HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n",
        service.address()
    );
    for rest in [
        "Content-Length: 100\r\n\r\n{\"alert",
        "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    ] {
        let (status, body) = send(&service, &format!("{head}{rest}"), true).await;
        assert_eq!(status, 400, "{rest:?}");
        assert!(body.contains("/problems/malformed-request"), "{rest:?}: {body}");
    }
}

#[tokio::test]
async fn answers_end_with_a_newline() {
    let service = Service::embedded().await;
    service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await.ok();
    let key = key_of("HighCPU");
    for path in [
        "/",
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/nothing",
        "/permanent-fix",
        "/spool/dead-letters",
        &format!("/anomalies/{key}"),
        &format!("/anomalies/{key}/frequency"),
        &format!("/anomalies/{key}/repairs"),
        &format!("/anomalies/{key}/audit"),
    ] {
        let answer = service.request(Method::GET, path).send().await.unwrap();
        let text = answer.text().await.unwrap();
        assert!(text.ends_with("}\n") || text.ends_with("]\n"), "{path}: {text:?}");
    }
}

#[tokio::test]
async fn the_root_names_the_paths_of_the_service() {
    let service = Service::embedded().await;
    let links = service.get("/").await.ok();
    assert_eq!(links["service"], "anomaly-counter");
    for name in ["docs", "openapi", "ready", "metrics"] {
        let path = links[name].as_str().unwrap();
        assert_eq!(
            service.request(Method::GET, path).send().await.unwrap().status(),
            200,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_may_send_and_read_the_services_headers() {
    let origin = "https://ops.example.org";
    let service = Service::with(&[("BROWSER__ALLOWED_ORIGINS", origin)]).await;
    let asked = service.request(Method::OPTIONS, "/anomalies").header("origin", origin);
    let asked = asked.header("access-control-request-method", "POST");
    let answer = asked.send().await.unwrap();
    let listed = |headers: &reqwest::header::HeaderMap, name: &str| {
        let names = headers[name].to_str().unwrap().to_ascii_lowercase();
        names.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>()
    };
    let allowed = listed(answer.headers(), "access-control-allow-headers");
    for header in ["authorization", "idempotency-key", "x-request-id", "traceparent"] {
        assert!(allowed.iter().any(|name| name == header), "{allowed:?}");
    }
    let posted = service.request(Method::POST, "/anomalies").header("origin", origin);
    let posted = Answer::of(posted.json(&json!({"alert_name": "HighCPU"}))).await;
    let exposed = listed(&posted.headers, "access-control-expose-headers");
    for header in ["x-request-id", "x-degraded", "retry-after", "location"] {
        assert!(exposed.iter().any(|name| name == header), "{exposed:?}");
    }
}
