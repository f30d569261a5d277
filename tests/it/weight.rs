//! How light the service is: memory when idle, and time to the first answer.

use std::time::{Duration, Instant};

use crate::support::Service;

/// Resident, of which the pages of the program's file are a part: unoptimised, they are many more.
const MAX_RESIDENT_BYTES: u64 = if cfg!(debug_assertions) { 40_000_000 } else { 30_000_000 };
/// What it has allocated itself.
const MAX_ANONYMOUS_BYTES: u64 = 8_000_000;

#[tokio::test]
async fn it_answers_within_200_ms_of_its_start_and_stays_under_30_mb() {
    // Other tests share the machine: the best of a few starts is the service's own.
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        let service = Service::embedded().await;
        service.get("/healthz").await.ok();
        best = best.min(begun.elapsed());
        let resident = service.memory_bytes("VmRSS:");
        assert!(resident < MAX_RESIDENT_BYTES, "{resident} bytes");
        let anonymous = service.memory_bytes("RssAnon:");
        assert!(anonymous < MAX_ANONYMOUS_BYTES, "{anonymous} bytes");
    }
    assert!(best < Duration::from_millis(200), "{best:?}");
}
