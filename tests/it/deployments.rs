//! Redis as it is deployed: with users and passwords, on a Unix socket, behind TLS, with Sentinel.

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::support::{
    RedisCluster, RedisServer, Sentinel, Service, eventually, write_certificates,
};

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

/// Returns the warnings and errors in the log of a service.
fn warnings(service: &Service) -> Vec<String> {
    let log = service.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let loud = lines.filter(|line| line["level"] == "WARN" || line["level"] == "ERROR");
    loud.map(|line| line["message"].as_str().unwrap().to_owned()).collect()
}

/// Starts the service on a Redis that it can't use: before any request, one warning gives the
/// reason, and the service serves.
async fn is_said_at_the_start(url: &str, more: &[(&str, &str)], says: &str) {
    // Longer than the default, because a busy machine may take long to connect.
    let connect_timeout = ("REDIS__CONNECT_TIMEOUT_MS", "5000");
    let options = [&[("REDIS__URL", url), connect_timeout], more].concat();
    let service = Service::with(&options).await;
    let warning = eventually("a warning", || async { warnings(&service).into_iter().next() }).await;
    assert!(warning.contains(says), "{url}: {warning}");
    assert!(!warning.contains("geheim"), "{warning}");
    let answer = service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await;
    assert_eq!(answer.status, 202, "{url}: {}", answer.body);
    assert_eq!(warnings(&service), [warning], "{url}");
}

#[tokio::test]
async fn an_unusable_redis_causes_one_warning_at_the_start_with_the_reason() {
    let redis = RedisServer::start();
    let guarded = RedisServer::start_with(&["--requirepass", "geheim"]);
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &redis.port().to_string()]);
    let mut stopped = RedisServer::start();
    stopped.kill();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = |redis: &RedisServer, scheme: &str| redis.url().replace("redis://", scheme);
    let wrong_password = at(&guarded, "redis://:geheimer@");
    let silent = format!("redis://{}", silent.local_addr().unwrap());
    for (url, says) in [
        ("redis://nowhere.invalid:6379", "the host name can't be resolved"),
        (&stopped.url(), "no process listens there"),
        (&wrong_password, "it refuses the user or the password"),
        (&guarded.url(), "it requires a password"),
        (&replica.url(), "it is a replica"),
        (&at(&redis, "redis-cluster://"), "it is not a cluster. Use redis://"),
        (&format!("{}?sentinelServiceName=m", at(&redis, "redis-sentinel://")), "not a Sentinel"),
        (&format!("{}/99", redis.url()), "no database of this number"),
        (&silent, "it does not answer in time"),
    ] {
        is_said_at_the_start(url, &[], says).await;
    }
}

#[tokio::test]
async fn tls_to_a_plain_port_and_the_reverse_are_reported_at_the_start() {
    let dir = TempDir::new().unwrap();
    write_certificates(dir.path());
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let encrypted = RedisServer::start_tls(&[
        ("--tls-ca-cert-file", &file("ca.pem")),
        ("--tls-cert-file", &file("server.pem")),
        ("--tls-key-file", &file("server.key")),
        ("--tls-auth-clients", "no"),
    ]);
    is_said_at_the_start(&encrypted.url(), &[], "use rediss://").await;
    let url = encrypted.url().replace("redis://127.0.0.1", "rediss://localhost");
    is_said_at_the_start(&url, &[], "redis.tls.ca_file").await;
    let plain = RedisServer::start();
    let url = plain.url().replace("redis://", "rediss://");
    let ca = [("REDIS__TLS__CA_FILE", &*file("ca.pem"))];
    is_said_at_the_start(&url, &ca, "If it does not use TLS, use redis://").await;
}

#[tokio::test]
async fn a_single_server_of_a_cluster_is_reported_at_the_start() {
    let cluster = RedisCluster::of_masters(3).await;
    for master in cluster.masters() {
        let service = Service::with(&[("REDIS__URL", &master.url())]).await;
        eventually("a warning", || async {
            warnings(&service).iter().any(|line| line.contains("redis-cluster://")).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn missing_permissions_are_reported_at_the_start() {
    let redis = RedisServer::start();
    let other = redis.client().await;
    other.run(&["ACL", "SETUSER", "u", "on", ">geheim", "~*", "+@all", "-zadd"]).await;
    let url = redis.url().replace("redis://", "redis://u:geheim@");
    let service = Service::with(&[("REDIS__URL", &url)]).await;
    let warning = eventually("a warning", || async { warnings(&service).into_iter().next() }).await;
    assert!(warning.contains("the user lacks permissions"), "{warning}");
}

#[tokio::test]
async fn a_correct_redis_causes_no_warning() {
    let redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    eventually("what was found is in the log", || async {
        service.log().contains("Redis at startup: redis://").then_some(())
    })
    .await;
    assert_eq!(warnings(&service), Vec::<String>::new());
}
