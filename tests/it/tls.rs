//! TLS on the listener: certificates that are replaced while it serves, client certificates, and
//! clients that stall.

use std::{fs, path::Path};

use reqwest::{Certificate, Client, Identity};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::support::{
    Ended, Service, anomaly_counter, eventually, http_client, write_certificates,
};

pub(crate) const PAIR: &str =
    "tls.certificate_file = \"server.pem\"\ntls.key_file = \"server.key\"\n";
pub(crate) const CLIENT_CA: &str = "tls.client_ca_file = \"ca.pem\"\n";

/// Returns the files of `write_certificates` as texts.
fn certificates() -> Vec<(&'static str, String)> {
    let dir = TempDir::new().unwrap();
    write_certificates(dir.path());
    ["ca.pem", "server.pem", "server.key", "client.pem", "client.key"]
        .map(|name| (name, fs::read_to_string(dir.path().join(name)).unwrap()))
        .into()
}

/// Starts a service with the files of `write_certificates` in its folder.
pub(crate) async fn service(config: &str) -> Service {
    let certificates = certificates();
    let files: Vec<_> = certificates.iter().map(|(name, text)| (*name, text.as_str())).collect();
    Service::with_files(config, &files).await
}

/// Returns a client that trusts the CA in the service's folder.
fn client(service: &Service, identity: Option<Identity>) -> Client {
    let ca = Certificate::from_pem(&fs::read(service.dir().join("ca.pem")).unwrap()).unwrap();
    let builder = http_client().tls_certs_only([ca]);
    match identity {
        Some(identity) => builder.identity(identity).build().unwrap(),
        None => builder.build().unwrap(),
    }
}

async fn is_ready(service: &Service, client: &Client) -> bool {
    let answer = client.get(format!("https://{}/readyz", service.address())).send().await;
    answer.is_ok_and(|answer| answer.status() == 200)
}

/// Runs the command `healthcheck` as a container does.
fn healthcheck(service: &Service) -> Ended {
    let mut command = anomaly_counter(&["healthcheck"]);
    command.env("ANOMALY_COUNTER__LISTEN", service.address());
    Ended::of(command.current_dir(service.dir()))
}

#[tokio::test]
async fn with_tls_the_service_speaks_nothing_else() {
    let service = service(PAIR).await;
    let trusting = client(&service, None);
    let posted = trusting
        .post(format!("https://{}/anomalies", service.address()))
        .json(&json!({"alert_name": "HighCPU"}))
        .send();
    assert_eq!(posted.await.unwrap().status(), 200);
    let plain = http_client().build().unwrap().get(format!("http://{}/readyz", service.address()));
    assert!(plain.send().await.is_err());
    // A client that does not trust the CA does not connect.
    assert!(!is_ready(&service, &http_client().build().unwrap()).await);
    healthcheck(&service).succeeded();
}

#[tokio::test]
async fn another_certificate_is_shown_after_sighup_and_a_broken_one_never() {
    let service = service(PAIR).await;
    let before = client(&service, None);
    assert!(is_ready(&service, &before).await);
    write_certificates(service.dir());
    service.hang_up();
    let after = client(&service, None);
    eventually("the other certificate is shown", || async {
        is_ready(&service, &after).await.then_some(())
    })
    .await;

    fs::write(service.dir().join("server.pem"), "no certificate").unwrap();
    service.hang_up();
    eventually("the log has the fault", || async {
        service.log().contains("the certificate was not reloaded").then_some(())
    })
    .await;
    assert!(is_ready(&service, &client(&service, None)).await);
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_if_one_is_required() {
    let service = service(&[PAIR, CLIENT_CA].concat()).await;
    let identity = |name: &str| {
        let file = |kind: &str| fs::read(service.dir().join(format!("{name}.{kind}"))).unwrap();
        Identity::from_pem(&[file("pem"), file("key")].concat()).unwrap()
    };
    assert!(is_ready(&service, &client(&service, Some(identity("client")))).await);
    assert!(!is_ready(&service, &client(&service, None)).await);
    let stranger = TempDir::new().unwrap();
    write_certificates(stranger.path());
    let read = |kind: &str| fs::read(stranger.path().join(format!("client.{kind}"))).unwrap();
    let stranger = Identity::from_pem(&[read("pem"), read("key")].concat()).unwrap();
    assert!(!is_ready(&service, &client(&service, Some(stranger))).await);
    healthcheck(&service).succeeded();
}

#[tokio::test]
async fn clients_that_stall_in_the_handshake_delay_nobody() {
    let service = service(PAIR).await;
    let mut stalled = Vec::new();
    for _ in 0..200 {
        stalled.push(TcpStream::connect(service.address()).await.unwrap());
    }
    // Handshakes time out after 10 s: one after the other, the stalled ones would take half an
    // hour.
    assert!(is_ready(&service, &client(&service, None)).await);
}

#[test]
fn an_invalid_certificate_stops_the_start_and_is_named() {
    let dir = TempDir::new().unwrap();
    write_certificates(dir.path());
    let start = |config: &str| {
        fs::write(dir.path().join("c.toml"), config).unwrap();
        error_at_start(dir.path())
    };
    assert!(start("tls.certificate_file = \"server.pem\"").contains("must both be set"));
    assert!(start(&PAIR.replace("server.pem", "nowhere.pem")).contains("nowhere.pem"));
    assert!(start(&PAIR.replace("server.key", "client.key")).contains("belong together"));
}

/// Returns the error with which a start in `dir` fails.
fn error_at_start(dir: &Path) -> String {
    let mut command = anomaly_counter(&["--config", "c.toml"]);
    command.env("ANOMALY_COUNTER__LISTEN", "127.0.0.1:0");
    Ended::of(command.current_dir(dir)).failed().stderr
}
