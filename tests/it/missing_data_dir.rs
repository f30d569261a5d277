//! A data folder that is deleted, moved or replaced while the service runs: no write is
//! acknowledged that a later process would not find, and once the folder is back, the service
//! continues by itself.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::support::{Answer, RedisServer, Service, eventually, healthy_again, key_of, metric};

fn event(id: u64) -> Value {
    json!({"alert_name": "HighCPU", "event_id": id.to_string()})
}

async fn count(service: &Service) -> Value {
    let path = format!("/anomalies/{}/frequency", key_of("HighCPU"));
    service.get(&path).await.ok()["count_1h"].clone()
}

/// Asserts that the call had no effect, and that the answer names the file.
#[track_caller]
fn was_refused(answer: &Answer, file: &Path) {
    let detail = answer.problem(503);
    let path = Path::new("data").join(file.file_name().unwrap());
    assert!(detail.contains(&path.display().to_string()), "{detail}");
    assert!(detail.contains("The call had no effect"), "{detail}");
}

/// Ways to lose a file, and to bring it back.
type Loss = (&'static str, fn(&Path), fn(&Path));

const LOSSES: [Loss; 4] = [
    (
        "its folder is moved",
        |file| rename(folder(file), &moved(file)),
        |file| {
            rename(&moved(file), folder(file));
        },
    ),
    (
        "another folder is in its place",
        |file| {
            rename(folder(file), &moved(file));
            copy_folder(&moved(file), folder(file));
        },
        |file| {
            fs::remove_dir_all(folder(file)).unwrap();
            rename(&moved(file), folder(file));
        },
    ),
    (
        "the file is moved",
        |file| rename(file, &file.with_extension("away")),
        |file| {
            rename(&file.with_extension("away"), file);
        },
    ),
    (
        "the file is replaced by a copy",
        |file| {
            rename(file, &file.with_extension("away"));
            fs::copy(file.with_extension("away"), file).unwrap();
        },
        |file| rename(&file.with_extension("away"), file),
    ),
];

fn folder(file: &Path) -> &Path {
    file.parent().unwrap()
}

fn moved(file: &Path) -> std::path::PathBuf {
    folder(file).with_extension("moved")
}

fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).unwrap();
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

async fn is_ready(service: &Service) {
    eventually("it is ready", || async {
        (service.get("/readyz").await.ok()["status"] == "ready").then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_its_file_the_embedded_store_refuses_calls_until_it_is_back() {
    let service = Service::embedded().await;
    let file = service.data_dir().join("anomalies.redb");
    let mut counted = 0;
    for (how, lose, bring_back) in LOSSES {
        counted += 1;
        assert_eq!(service.post("/anomalies", &event(counted)).await.ok()["count_1h"], counted);
        lose(&file);
        for _ in 0..3 {
            was_refused(&service.post("/anomalies", &event(1_000)).await, &file);
        }
        for path in ["/frequency", "", "/repairs", "/audit", "/history"] {
            let path = format!("/anomalies/{}{path}", key_of("HighCPU"));
            was_refused(&service.get(&path).await, &file);
        }
        let ready = service.get("/readyz").await.ok();
        assert_eq!((&ready["status"], &ready["cause"]), (&json!("degraded"), &json!("disk")));
        bring_back(&file);
        is_ready(&service).await;
        assert_eq!(count(&service).await, counted, "{how}");
    }
    let service = service.restart().await;
    assert_eq!(count(&service).await, counted);
}

#[tokio::test]
async fn a_missing_file_of_the_embedded_store_is_noticed_without_a_write() {
    let service = Service::embedded().await;
    service.post("/anomalies", &event(1)).await.ok();
    fs::remove_dir_all(service.data_dir()).unwrap();
    eventually("it is degraded", || async {
        (service.get("/readyz").await.ok()["cause"] == "disk").then_some(())
    })
    .await;
    was_refused(
        &service.post("/anomalies", &event(2)).await,
        &service.data_dir().join("anomalies.redb"),
    );
    assert!(service.log().contains("anomalies.redb is missing"), "{}", service.log());
}

#[tokio::test]
async fn without_its_spool_a_service_on_redis_counts_and_says_so() {
    let redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    let file = service.data_dir().join("spool.redb");
    let usable = async |expected: bool| {
        eventually("the spool's state is noticed", || async {
            let ready = service.get("/readyz").await.ok();
            let unusable = metric(&service, "anomaly_counter_spool_unusable").await;
            (ready["spool"]["usable"] == expected && (unusable == 0.0) == expected).then_some(())
        })
        .await;
    };
    let mut counted = 0;
    for (how, lose, bring_back) in LOSSES {
        usable(true).await;
        lose(&file);
        usable(false).await;
        counted += 1;
        assert_eq!(
            service.post("/anomalies", &event(counted)).await.ok()["count_1h"],
            counted,
            "{how}"
        );
        assert_eq!(service.get("/readyz").await.ok()["status"], "ready");
        bring_back(&file);
    }
    usable(true).await;
}

#[tokio::test]
async fn in_an_outage_without_a_spool_writes_are_refused_and_waiting_ones_still_count() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    let file = service.data_dir().join("spool.redb");
    redis.kill();
    assert_eq!(service.post("/anomalies", &event(1)).await.status, 202);
    for (how, lose, bring_back) in LOSSES {
        lose(&file);
        for _ in 0..3 {
            was_refused(&service.post("/anomalies", &event(1_000)).await, &file);
        }
        bring_back(&file);
        let answer = service.post("/anomalies", &event(1)).await;
        assert_eq!(answer.status, 202, "{how}: {}", answer.body);
    }
    // The open file is read to its end.
    fs::remove_dir_all(service.data_dir()).unwrap();
    was_refused(&service.post("/anomalies", &event(1_000)).await, &file);
    assert!(service.log().contains("the writes in it are lost if"), "{}", service.log());
    redis.restart();
    healthy_again(&service).await;
    assert_eq!(service.post("/anomalies", &event(2)).await.ok()["count_1h"], 2);
    assert_eq!(service.get("/readyz").await.ok()["spool"]["usable"], false);
}
