//! A task without which the service must not continue: nothing would apply the waiting operations,
//! while writes would still be accepted.

use std::{future::Future, panic::AssertUnwindSafe};

use futures_util::FutureExt as _;

use crate::telemetry::exit_with_log;

/// Starts a task. If it panics, the process ends: a new process starts with the data on disk.
pub(super) fn spawn(what: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(or_else(task, move || {
        tracing::error!(task = what, "the {what} panicked; the process exits");
        exit_with_log(1);
    }));
}

async fn or_else(task: impl Future<Output = ()>, on_panic: impl FnOnce()) {
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        on_panic();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_noticed_and_an_end_is_none() {
        let (mut noticed, mut ended) = (false, false);
        or_else(async { panic!("odd") }, || noticed = true).await;
        or_else(async {}, || ended = true).await;
        assert!(noticed && !ended);
    }
}
