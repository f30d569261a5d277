//! The answer to a delivery.

use std::sync::LazyLock;

use serde::Serialize;
use utoipa::ToSchema;

use super::alert::AlertHead;
use crate::{
    http::{
        bodies::{CountedBody, Recorded},
        problem::Problem,
    },
    telemetry::{self, Counters, Label},
};

static WEBHOOK_ALERTS: LazyLock<Counters<AlertOutcome>> = LazyLock::new(telemetry::webhook_alerts);

/// Registers the metrics of this module. To be called after the recorder is installed.
pub(super) fn register_metrics() {
    LazyLock::force(&WEBHOOK_ALERTS);
}

/// Number of failed alerts whose problem the answer has: a short body may hold thousands of faulty
/// ones.
const MAX_PROBLEMS: usize = 100;

/// The answer to a delivery.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryResult)]
pub(super) struct DeliveryBody {
    /// Number of `alerts` that count from this delivery on.
    #[schema(example = 1)]
    counted: usize,
    /// Number of `alerts` that could not be read.
    #[schema(example = 0)]
    failed: usize,
    /// For each alert of the delivery, in its order.
    alerts: Vec<AlertBody>,
}

/// The result of an alert.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AlertResult)]
struct AlertBody {
    #[serde(flatten)]
    head: AlertHead,
    #[serde(flatten)]
    result: AlertStatus,
}

/// The result by the status of the alert.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase", tag = "status")]
#[schema(as = AlertStatus)]
enum AlertStatus {
    /// The alert fires; the frequency of its anomaly.
    Firing(Box<CountedBody>),
    /// The episode has ended.
    Resolved {
        /// Always false.
        counted: bool,
    },
    /// The alert could not be read, or the store refuses it.
    Failed {
        /// Always false.
        counted: bool,
        /// Left out of further alerts than the first hundred that have failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        problem: Option<Problem>,
    },
}

impl DeliveryBody {
    /// Makes the answer of the result of each alert, and counts the results.
    pub(super) fn new(heads: Vec<AlertHead>, results: Vec<Recorded>) -> Self {
        let mut body = Self { counted: 0, failed: 0, alerts: Vec::with_capacity(results.len()) };
        for (head, result) in heads.into_iter().zip(results) {
            let mut result = AlertStatus::from(result);
            let outcome = result.outcome();
            WEBHOOK_ALERTS.increment(outcome);
            match outcome {
                AlertOutcome::Counted => body.counted += 1,
                AlertOutcome::Failed => body.failed += 1,
                AlertOutcome::NotCounted | AlertOutcome::Resolved => {}
            }
            if let AlertStatus::Failed { problem, .. } = &mut result
                && body.failed > MAX_PROBLEMS
            {
                *problem = None;
            }
            body.alerts.push(AlertBody { head, result });
        }
        body
    }
}

impl From<Recorded> for AlertStatus {
    fn from(result: Recorded) -> Self {
        match result {
            Ok(Some(counted)) => Self::Firing(Box::new(counted.into())),
            Ok(None) => Self::Resolved { counted: false },
            Err(problem) => Self::Failed { counted: false, problem: Some(problem) },
        }
    }
}

impl AlertStatus {
    fn outcome(&self) -> AlertOutcome {
        match self {
            Self::Firing(body) if body.counted() => AlertOutcome::Counted,
            Self::Firing(_) => AlertOutcome::NotCounted,
            Self::Resolved { .. } => AlertOutcome::Resolved,
            Self::Failed { .. } => AlertOutcome::Failed,
        }
    }
}

/// The outcome of an alert, as the answer counts it and the metric has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AlertOutcome {
    Counted,
    /// It was counted before, or is too old.
    NotCounted,
    Resolved,
    Failed,
}

impl Label for AlertOutcome {
    const ALL: &'static [Self] = &[Self::Counted, Self::NotCounted, Self::Resolved, Self::Failed];

    fn value(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::NotCounted => "not_counted",
            Self::Resolved => "resolved",
            Self::Failed => "failed",
        }
    }
}
