//! Redis as it is deployed: with users and passwords, on a Unix socket, behind TLS, with Sentinel.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{RedisServer, Sentinel, Service, eventually, write_certificates};

async fn records(service: &Service) -> Value {
    service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await.ok()
}

#[tokio::test]
async fn an_acl_user_a_password_and_a_database_number_are_taken_from_the_url() {
    let redis = RedisServer::start();
    let other = redis.client().await;
    other.run(&["ACL", "SETUSER", "ops", "on", ">s3cret@/:", "~anomaly:*", "+@all"]).await;
    let url = redis.url().replace("redis://", "redis://ops:s3cret%40%2F%3A@") + "/3";
    let service = Service::with(&[("REDIS__URL", &url)]).await;
    assert_eq!(records(&service).await["degraded"], false);
    other.run(&["SELECT", "3"]).await;
    assert!(other.number(&["DBSIZE"]).await >= 2);
    assert!(!service.log().contains("s3cret"), "{}", service.log());

    // A wrong password is an outage, and the log says why.
    let url = redis.url().replace("redis://", "redis://ops:wrong@");
    let service = Service::with(&[("REDIS__URL", &url)]).await;
    let answer = service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await;
    assert_eq!(answer.status, 202);
    eventually("the log says why", || async { service.log().contains("WRONGPASS").then_some(()) })
        .await;
}

#[tokio::test]
async fn a_unix_socket_serves() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("redis.sock");
    let _redis = RedisServer::start_with(&["--unixsocket", socket.to_str().unwrap()]);
    let url = format!("redis+unix://{}", socket.display());
    let service = Service::with(&[("REDIS__URL", &url)]).await;
    assert_eq!(records(&service).await["degraded"], false);
}

#[tokio::test]
async fn tls_with_a_private_ca_and_a_client_certificate_serves() {
    let dir = TempDir::new().unwrap();
    write_certificates(dir.path());
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let redis = RedisServer::start_tls(&[
        ("--tls-ca-cert-file", &file("ca.pem")),
        ("--tls-cert-file", &file("server.pem")),
        ("--tls-key-file", &file("server.key")),
        ("--tls-auth-clients", "yes"),
    ]);
    let url = redis.url().replace("redis://127.0.0.1", "rediss://localhost");
    let options = [
        ("REDIS__URL", url.as_str()),
        ("REDIS__TLS__CA_FILE", &file("ca.pem")),
        ("REDIS__TLS__CERTIFICATE_FILE", &file("client.pem")),
        ("REDIS__TLS__KEY_FILE", &file("client.key")),
    ];
    let service = Service::with(&options).await;
    assert_eq!(records(&service).await["degraded"], false);

    // The server refuses a client without a certificate.
    let service = Service::with(&options[..2]).await;
    let answer = service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await;
    assert_eq!(answer.status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_master_killed_right_after_its_answers_loses_nothing() {
    let mut master = RedisServer::start();
    let replica = RedisServer::start_with(&[
        "--replicaof",
        "127.0.0.1",
        &master.port().to_string(),
        "--repl-diskless-sync-delay",
        "0",
    ]);
    let replication = replica.client().await;
    eventually("the replica is in step", || async {
        let info = replication.text(&["INFO", "replication"]).await.unwrap();
        info.contains("master_link_status:up").then_some(())
    })
    .await;
    let sentinel = Sentinel::start(&master);
    let service = Service::with(&[("REDIS__URL", &sentinel.url())]).await;
    for _ in 0..5 {
        assert_eq!(records(&service).await["degraded"], false);
    }
    // From here on the replica receives nothing: acknowledged writes are on the master alone.
    replica.pause();
    for count in 6..=40 {
        assert_eq!(records(&service).await["count_1h"], count);
    }
    master.kill();
    replica.resume();
    let during = service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await;
    assert!(during.status.is_success(), "{}", during.body);

    eventually("the replica is promoted and has all of it", || async {
        let ready = service.get("/readyz").await.ok();
        let read = service.get("/anomalies/af03baee239021c4/frequency").await;
        (ready["status"] == "ready" && read.body["count_1h"] == 41).then_some(())
    })
    .await;
    // Sentinel has closed all connections to the replica, so this is a new one.
    let promoted = replica.client().await;
    assert_eq!(promoted.number(&["ZCARD", "anomaly:timeline:af03baee239021c4"]).await, 41);
}
