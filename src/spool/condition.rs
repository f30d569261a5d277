//! The condition of the spool as it is known without its thread: how much waits, and whether more
//! can. That nothing can is two lines in the log, when it begins and when it ends, and a gauge.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Instant,
};

use parking_lot::Mutex;

/// The condition of the spool. The lock is never held while the disk works.
#[derive(Debug, Default)]
pub(super) struct Condition {
    /// Size of all waiting operations.
    pub(super) waiting_bytes: AtomicU64,
    /// Number of times that the held writes were dropped.
    pub(super) held_drops: AtomicU64,
    is_unusable: AtomicBool,
    since: Mutex<Option<Instant>>,
}

impl Condition {
    pub(super) fn is_usable(&self) -> bool {
        !self.is_unusable.load(Ordering::Acquire)
    }

    /// Notes a fault.
    pub(super) fn fail(&self, fault: &str) {
        let mut since = self.since.lock();
        if since.is_some() {
            return;
        }
        *since = Some(Instant::now());
        self.is_unusable.store(true, Ordering::Release);
        let waiting_bytes = self.waiting_bytes.load(Ordering::Relaxed);
        let of_waiting = match waiting_bytes {
            0 => "",
            _ => "; the writes in it are lost if this process ends before they are applied",
        };
        tracing::error!(
            fault,
            waiting_bytes,
            "the spool can't be used, so no write can wait: {fault}{of_waiting}"
        );
    }

    /// Notes that the file has taken a write.
    pub(super) fn recover(&self) {
        if self.is_usable() {
            return;
        }
        let Some(since) = self.since.lock().take() else { return };
        self.is_unusable.store(false, Ordering::Release);
        let seconds = since.elapsed().as_secs();
        tracing::info!(seconds, "the spool can be used again, after {seconds} s");
    }
}
