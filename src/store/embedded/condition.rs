//! The condition of the file. While it takes no writes, memory may hold what never came to disk, so
//! that nothing is read from it either.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::store::StoreError;

/// The fault of the file, if there is one. Neither lock is ever held while the disk works.
#[derive(Debug, Default)]
pub(super) struct Condition {
    has_failed: AtomicBool,
    fault: Mutex<Option<StoreError>>,
}

impl Condition {
    /// Returns the fault.
    pub(super) fn fault(&self) -> Option<StoreError> {
        if self.has_failed.load(Ordering::Acquire) { self.fault.lock().clone() } else { None }
    }

    /// Notes a fault. To be called before any caller learns of it.
    pub(super) fn fail(&self, fault: StoreError) {
        *self.fault.lock() = Some(fault);
        self.has_failed.store(true, Ordering::Release);
    }

    /// Notes that memory holds what is in the file, and nothing else.
    pub(super) fn recover(&self) {
        if self.has_failed.load(Ordering::Acquire) {
            self.has_failed.store(false, Ordering::Release);
            *self.fault.lock() = None;
        }
    }
}
