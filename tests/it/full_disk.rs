//! A full disk: writes are refused and never falsely accepted, and the service recovers as soon as
//! there is space.

use serde_json::{Value, json};

use crate::support::{Answer, RedisServer, Service, eventually, healthy_again, key_of};

/// Returns an event large enough to fill the free pages of redb's file within few writes.
fn large(id: u64) -> Value {
    json!({"alert_name": "HighCPU", "event_id": id.to_string(), "trace": "x".repeat(60_000)})
}

async fn count(service: &Service) -> Value {
    let path = format!("/anomalies/{}/frequency", key_of("HighCPU"));
    service.get(&path).await.ok()["count_1h"].clone()
}

/// Writes until one is refused. Returns the number of accepted writes, and the refusal.
async fn fill(service: &Service, event: impl Fn(u64) -> Value, first: u64) -> (u64, Answer) {
    for id in first.. {
        let answer = service.post("/anomalies", &event(id)).await;
        if !answer.status.is_success() {
            return (id - first, answer);
        }
        assert!(id < first + 2_000, "it never fills up");
    }
    unreachable!("there is no end of numbers")
}

#[tokio::test]
async fn a_spool_on_a_full_disk_refuses_and_loses_nothing_that_it_took() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    redis.kill();
    assert_eq!(service.post("/anomalies", &large(0)).await.status, 202);
    let file = service.data_dir().join("spool.redb");
    service.limit_file_size(Some(std::fs::metadata(&file).unwrap().len()));
    let (mut more, refused) = fill(&service, large, 1).await;
    refused.problem(503);
    assert_eq!(refused.headers["retry-after"], "1");
    // No refused write is counted. The space that the failed commit gave back may hold one more.
    assert_eq!(count(&service).await, 1 + more);
    let (even_more, refused) = fill(&service, large, 10_000).await;
    refused.problem(503);
    more += even_more;
    assert_eq!(count(&service).await, 1 + more);

    service.limit_file_size(None);
    let answer = eventually("it takes writes again", || async {
        let answer = service.post("/anomalies", &large(20_000)).await;
        (answer.status == 202).then_some(answer)
    })
    .await;
    assert_eq!(answer.body["count_1h"], 2 + more);
    // Only the accepted writes are on disk.
    let service = service.restart().await;
    assert_eq!(count(&service).await, 2 + more);
    redis.restart();
    healthy_again(&service).await;
    assert_eq!(count(&service).await, 2 + more);
}

#[tokio::test]
async fn a_spool_that_can_not_be_written_is_noticed_while_redis_works() {
    let redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    let usable = async |expected: bool| {
        eventually("the disk is looked after", || async {
            let ready = service.get("/readyz").await.ok();
            assert_eq!(ready["status"], "ready");
            (ready["spool"]["usable"] == expected).then_some(())
        })
        .await;
    };
    usable(true).await;
    // As on a disk that is read-only.
    service.limit_file_size(Some(0));
    usable(false).await;
    assert_eq!(service.post("/anomalies", &large(0)).await.ok()["count_1h"], 1);
    service.limit_file_size(None);
    usable(true).await;
}

#[tokio::test]
async fn the_embedded_store_on_a_full_disk_refuses_and_loses_nothing_that_it_took() {
    let service = Service::embedded().await;
    // Each anomaly has one signature, so many anomalies are needed to fill a disk. Of more bytes
    // nothing would be kept.
    let anomaly =
        |id: u64| json!({"alert_name": format!("Alert{id}"), "trace": "x".repeat(15_000)});
    service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await.ok();
    service.limit_file_size(Some(std::fs::metadata(largest_file(&service)).unwrap().len()));
    let (taken, refused) = fill(&service, anomaly, 0).await;
    refused.problem(503);
    assert_eq!(refused.headers["retry-after"], "1");
    // Memory may hold writes that never reached the disk: no answer is better than a wrong one.
    for route in ["/frequency", "", "/repairs", "/repairs/restart", "/audit", "/history"] {
        let path = format!("/anomalies/{}{route}", key_of("HighCPU"));
        service.get(&path).await.problem(503);
    }

    service.limit_file_size(None);
    let event = json!({"alert_name": "HighCPU", "event_id": "once"});
    eventually("it takes writes again", || async {
        (service.post("/anomalies", &event).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(count(&service).await, 2);
    let service = service.restart().await;
    assert_eq!(count(&service).await, 2);
    for id in 0..taken {
        let path = format!("/anomalies/{}/frequency", key_of(&format!("Alert{id}")));
        assert_eq!(service.get(&path).await.ok()["count_1h"], 1);
    }
}

fn largest_file(service: &Service) -> std::path::PathBuf {
    let files = std::fs::read_dir(service.data_dir()).unwrap().map(|entry| entry.unwrap());
    files.max_by_key(|file| file.metadata().unwrap().len()).unwrap().path()
}
