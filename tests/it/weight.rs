//! The memory of an idle service. The time of its start is a row of `make bench`.

use crate::support::Service;

/// Maximum resident memory. It includes the pages of the program's file, which are many more
/// without optimisation.
const MAX_RESIDENT_BYTES: u64 = if cfg!(debug_assertions) { 45_000_000 } else { 30_000_000 };
/// Maximum memory that the service has allocated itself.
const MAX_ANONYMOUS_BYTES: u64 = 8_000_000;

#[tokio::test]
async fn an_idle_service_takes_less_than_30_mb() {
    let service = Service::embedded().await;
    service.get("/healthz").await.ok();
    let resident = service.memory_bytes("VmRSS:");
    assert!(resident < MAX_RESIDENT_BYTES, "{resident} bytes");
    let anonymous = service.memory_bytes("RssAnon:");
    assert!(anonymous < MAX_ANONYMOUS_BYTES, "{anonymous} bytes");
}
