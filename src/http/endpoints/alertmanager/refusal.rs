//! Deliveries that are refused as a whole. They are counted and logged as a warning, because nobody
//! else notices that their alerts do not count. Alertmanager sends them again at the next
//! `group_interval`, and they are refused again.

use std::{sync::LazyLock, time::Instant};

use crate::{
    auth::Caller,
    http::problem::{Problem, ProblemKind},
    telemetry::{self, Counters, Label, may_log},
};

static REFUSALS: LazyLock<Counters<DeliveryRefusal>> = LazyLock::new(telemetry::webhook_refusals);

/// Registers the metrics of this module. To be called after the recorder is installed.
pub(super) fn register_metrics() {
    LazyLock::force(&REFUSALS);
}

/// Counts and logs a delivery of `bytes` that is refused.
pub(in crate::http) fn note_refusal(caller: &Caller, bytes: Option<usize>, problem: &Problem) {
    let Some(reason) = DeliveryRefusal::of(problem) else { return };
    REFUSALS.increment(reason);
    let kind = "a delivery is refused: none of its alerts is counted";
    let sender = caller.log_source();
    if may_log(kind, sender, Instant::now()) {
        tracing::warn!(sender = sender.name(), bytes, %problem, "{kind}");
    }
}

/// The reason why a delivery is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeliveryRefusal {
    TooLarge,
    TooSlow,
    Unreadable,
}

impl DeliveryRefusal {
    /// Returns `None` for a caller that is not admitted, which has its own log line, and for a
    /// delivery that the sender will retry.
    fn of(problem: &Problem) -> Option<Self> {
        match problem.kind() {
            ProblemKind::ContentTooLarge => Some(Self::TooLarge),
            ProblemKind::RequestTimeout => Some(Self::TooSlow),
            ProblemKind::Unauthorized => None,
            _ if problem.is_temporary() => None,
            _ => Some(Self::Unreadable),
        }
    }
}

impl Label for DeliveryRefusal {
    const ALL: &'static [Self] = &[Self::TooLarge, Self::TooSlow, Self::Unreadable];

    fn value(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::Unreadable => "unreadable",
        }
    }
}
