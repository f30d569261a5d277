//! The condition of the file. While it takes no writes, memory may hold changes that never reached
//! the disk, so it is not read either.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::store::StoreError;

/// The fault of the file, if there is one. Neither lock is held during disk operations.
#[derive(Debug, Default)]
pub(super) struct Condition {
    has_failed: AtomicBool,
    fault: Mutex<Option<StoreError>>,
}

impl Condition {
    /// Returns the fault of the file, if there is one.
    pub(super) fn fault(&self) -> Option<StoreError> {
        if self.has_failed.load(Ordering::Acquire) { self.fault.lock().clone() } else { None }
    }

    /// Notes a fault. Must be called before any caller gets it.
    pub(super) fn fail(&self, fault: StoreError) {
        *self.fault.lock() = Some(fault);
        self.has_failed.store(true, Ordering::Release);
    }

    /// Notes that memory holds exactly the content of the file.
    pub(super) fn recover(&self) {
        if self.has_failed.load(Ordering::Acquire) {
            self.has_failed.store(false, Ordering::Release);
            *self.fault.lock() = None;
        }
    }
}
