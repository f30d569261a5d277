//! The way in which commands reach a running service: addresses, tokens, certificates, outages, and
//! the errors if they can't.

use std::{fs, path::Path};

use serde_json::json;
use tempfile::TempDir;

use super::{
    access::guarded,
    client_commands::{ask, ask_at},
    tls::{self, CLIENT_CA, PAIR},
};
use crate::support::{
    Ended, RedisServer, Service, anomaly_counter, eventually, write_certificates,
};

/// Runs a command with this text as the user's client.toml.
fn ask_with(dir: &Path, client: &str, arguments: &[&str]) -> Ended {
    let folder = dir.join("anomaly-counter");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("client.toml"), client).unwrap();
    let mut command = anomaly_counter(arguments);
    Ended::of(command.current_dir(dir).env("XDG_CONFIG_HOME", dir))
}

#[tokio::test]
async fn a_token_is_read_from_a_file_or_the_environment() {
    let service = guarded().await;
    let url = format!("http://{}", service.address());
    let url = ("ANOMALY_COUNTER_URL", url.as_str());

    let none = ask_at(&[url], &["top"]).ended_with(3).stderr;
    assert!(none.contains("requires a token: put one with the scope `read` into"), "{none}");
    assert!(none.contains("--token-file") && none.contains("token new"), "{none}");
    let wrong = ask_at(&[url, ("ANOMALY_COUNTER_TOKEN", "nobody")], &["top"]).ended_with(3).stderr;
    assert!(wrong.contains("does not accept the token from ANOMALY_COUNTER_TOKEN"), "{wrong}");
    assert!(!wrong.contains("nobody"), "{wrong}");
    ask_at(&[url, ("ANOMALY_COUNTER_TOKEN", "read")], &["top"]).succeeded();
    let fix = ["fix", "6a0d01fd615acb3c", "-m", "x"];
    let forbidden = ask_at(&[url, ("ANOMALY_COUNTER_TOKEN", "read")], &fix).ended_with(3).stderr;
    assert!(forbidden.contains("not sufficient") && forbidden.contains("operate"), "{forbidden}");

    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("anomaly-counter")).unwrap();
    fs::write(dir.path().join("anomaly-counter/token"), "read\n").unwrap();
    let client = format!("url = \"{}\"\ntoken_file = \"token\"\noutput = \"json\"\n", url.1);
    let by_file = ask_with(dir.path(), &client, &["top"]).succeeded().stdout;
    assert!(by_file.starts_with("{\"anomalies\":[]"), "{by_file}");
    let operate = dir.path().join("operate");
    fs::write(&operate, "operate").unwrap();
    let file = operate.to_str().unwrap();
    let unknown = ask_with(dir.path(), &client, &[&fix[..], &["--token-file", file]].concat());
    unknown.ended_with(1);
}

#[tokio::test]
async fn tls_is_verified_with_the_ca_in_a_file() {
    let dir = TempDir::new().unwrap();
    write_certificates(dir.path());
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let config = "tls.certificate_file = \"server.pem\"\ntls.key_file = \"server.key\"\n";
    let (certificate, key) = (read("server.pem"), read("server.key"));
    let service =
        Service::with_files(config, &[("server.pem", &certificate), ("server.key", &key)]).await;
    let url = format!("https://{}", service.address());
    let url = ("ANOMALY_COUNTER_URL", url.as_str());
    let ca = dir.path().join("ca.pem");
    let ca = ca.to_str().unwrap();

    ask_at(&[url], &["top", "--ca-file", ca]).succeeded();
    let client = format!("url = \"{}\"\nca_file = \"../ca.pem\"\n", url.1);
    ask_with(dir.path(), &client, &["top"]).succeeded();
    let untrusted = ask_at(&[url], &["top"]).ended_with(3).stderr;
    assert!(untrusted.contains("certificate") && untrusted.contains("ca_file"), "{untrusted}");
    let another = TempDir::new().unwrap();
    write_certificates(another.path());
    let other = another.path().join("ca.pem");
    let wrong = ask_at(&[url], &["top", "--ca-file", other.to_str().unwrap()]).ended_with(3).stderr;
    assert!(wrong.contains("is not accepted") && wrong.contains("has not signed"), "{wrong}");
    let no_ca = dir.path().join("server.key");
    let no_ca = ask_at(&[url], &["top", "--ca-file", no_ca.to_str().unwrap()]).ended_with(2).stderr;
    assert!(no_ca.contains("server.key has no usable certificate"), "{no_ca}");
    let plain = format!("http://{}", service.address());
    ask_at(&[], &["top", "--url", &plain]).ended_with(3);
}

#[tokio::test]
async fn a_service_that_requires_a_certificate_is_shown_one() {
    let service = tls::service(&(PAIR.to_owned() + CLIENT_CA)).await;
    let path = |name: &str| service.dir().join(name).to_str().unwrap().to_owned();
    let url = format!("https://{}", service.address());
    let url = ("ANOMALY_COUNTER_URL", url.as_str());
    let (ca, certificate, key) = (path("ca.pem"), path("client.pem"), path("client.key"));

    let top = ["top", "--ca-file", &ca];
    let with = |certificate: &str, key: &str| {
        let pair = ["--certificate-file", certificate, "--key-file", key];
        ask_at(&[url], &[&top[..], &pair].concat())
    };
    with(&certificate, &key).succeeded();
    let client = format!(
        "url = \"{}\"\nca_file = \"../ca.pem\"\ncertificate_file = \"../client.pem\"\n",
        url.1
    );
    let both = format!("{client}key_file = \"../client.key\"\n");
    ask_with(service.dir(), &both, &["top"]).succeeded();
    let one = ask_with(service.dir(), &client, &["top"]).ended_with(2).stderr;
    assert!(one.contains("`certificate_file` and `key_file` belong together"), "{one}");

    let none = ask_at(&[url], &top).ended_with(3).stderr;
    assert!(none.contains("requires a client certificate, and none is given"), "{none}");
    let another = TempDir::new().unwrap();
    write_certificates(another.path());
    let other = |name: &str| another.path().join(name).to_str().unwrap().to_owned();
    let foreign = with(&other("client.pem"), &other("client.key")).ended_with(3).stderr;
    assert!(foreign.contains("client.pem is not accepted"), "{foreign}");
    let no_key = with(&certificate, &certificate).ended_with(2).stderr;
    assert!(no_key.contains("client.pem and its key can't be used"), "{no_key}");
}

#[tokio::test]
async fn if_no_service_answers_the_address_and_its_source_are_named() {
    let mut service = Service::embedded().await;
    let address = service.address().to_owned();
    let https = ask_at(&[], &["top", "--url", &format!("https://{address}")]).ended_with(3).stderr;
    assert!(https.contains("does it use http instead of https"), "{https}");
    service.kill();
    let url = format!("http://{address}");
    let away = ask_at(&[("ANOMALY_COUNTER_URL", &url)], &["show", "x"]).ended_with(3);
    assert!(away.stderr.contains(&format!("no service at {url} (ANOMALY_COUNTER_URL)")));
    assert!(away.stderr.contains("For another address, use --url"), "{}", away.stderr);
    assert_eq!(away.stdout, "");
    let dir = TempDir::new().unwrap();
    let by_file =
        ask_with(dir.path(), &format!("url = \"{url}\"\n"), &["top"]).ended_with(3).stderr;
    assert!(by_file.contains("anomaly-counter/client.toml)"), "{by_file}");
}

#[test]
fn a_configuration_that_can_not_be_used_is_named() {
    let dir = TempDir::new().unwrap();
    for (client, says) in [
        ("address = \"http://x\"\n", "`address`"),
        ("token = \"anc_x\"\n", "`token_file`"),
        ("url = \"ftp://x\"\n", "not an address of http"),
        ("token_file = \"missing\"\n", "missing can't be read"),
    ] {
        let error = ask_with(dir.path(), client, &["top"]).ended_with(2).stderr;
        assert!(error.contains(says) && error.contains("anomaly-counter/"), "{error}");
        assert!(!error.contains("anc_x"), "{error}");
    }
    let foreign = ask_at(&[], &["--config", "service.toml", "top"]).ended_with(2).stderr;
    assert!(foreign.contains("configuration of the service"), "{foreign}");
}

#[tokio::test]
async fn in_an_outage_answers_are_marked_and_a_mark_waits() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    let posted = json!({"alert_name": "HighCPU", "service": "api"});
    service.post("/anomalies", &json!(vec![posted; 3])).await.ok();
    eventually("the list knows it", || async {
        let list = service.get("/anomalies").await.ok();
        (list["complete"] == true && list["total"] == 1).then_some(())
    })
    .await;
    redis.kill();

    let top = ask(&service, &["top"]).succeeded();
    assert!(top.stdout.contains("REPEAT") && top.stdout.contains("HighCPU"), "{}", top.stdout);
    eventually("the outage is noticed", || async {
        let ready = service.get("/readyz").await.ok();
        (ready["status"] == "degraded").then_some(())
    })
    .await;
    let top = ask(&service, &["top"]).succeeded();
    assert!(top.stderr.contains("is unavailable: the figures"), "{}", top.stderr);
    let show = ask(&service, &["show", "alertname=HighCPU", "job=api"]).succeeded();
    assert!(show.stderr.contains("counts are lower bounds"), "{}", show.stderr);
    let fixed = ask(&service, &["fix", "highcpu", "-m", "x"]).succeeded().stdout;
    assert!(fixed.contains("accepted, waiting for Redis: marked as fixed"), "{fixed}");
    let unfixed = ask(&service, &["unfix", "highcpu", "-o", "json"]).succeeded();
    assert!(unfixed.stderr.contains("accepted, waiting for Redis"), "{}", unfixed.stderr);
    let history = ask(&service, &["history", "highcpu"]).ended_with(3).stderr;
    assert!(history.contains("returns 503"), "{history}");
}
