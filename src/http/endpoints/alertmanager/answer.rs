//! The response to a delivery.

use std::sync::LazyLock;

use serde::Serialize;
use utoipa::ToSchema;

use super::alert::AlertHead;
use crate::{
    counter::{Answered, Counted, OccurrenceOutcome},
    http::{
        bodies::{DegradedBody, FrequencyBody, Recorded},
        problem::Problem,
    },
    store::RecordOutcome,
    telemetry::{self, Counters, Label},
};

static WEBHOOK_ALERTS: LazyLock<Counters<AlertOutcome>> = LazyLock::new(telemetry::webhook_alerts);

/// Registers the metrics of this module. To be called after the recorder is installed.
pub(super) fn register_metrics() {
    LazyLock::force(&WEBHOOK_ALERTS);
}

/// Maximum number of failed alerts whose problem is in the answer: a short body may hold thousands
/// of faulty ones.
const MAX_PROBLEMS: usize = 100;

/// The response to a delivery.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryResult)]
pub(super) struct DeliveryBody {
    /// Number of alerts that were counted by this delivery.
    #[schema(example = 1)]
    counted: usize,
    /// Number of alerts that could not be read or stored.
    #[schema(example = 0)]
    failed: usize,
    /// Number of alerts that wait on disk because the store is unavailable. The service decides
    /// whether they count once the store answers.
    #[schema(example = 0)]
    waiting: usize,
    /// The result of each alert of the delivery, in the same order.
    alerts: Vec<AlertBody>,
    #[serde(flatten)]
    degraded: DegradedBody,
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
    /// The alert fires.
    Firing(Box<HeardBody>),
    /// The alert has ended.
    Resolved(Box<HeardBody>),
    /// The alert is invalid, or the store refused it.
    Failed {
        /// Always false.
        counted: bool,
        /// Always `failed`.
        reason: AlertReason,
        /// The error of the alert. Present for the first 100 failed alerts only.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        problem: Option<Problem>,
    },
}

/// The result of an alert that was read and stored.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HeardAlert)]
struct HeardBody {
    /// The frequency of the alert's anomaly. If the alert waits, the frequency does not include it.
    #[serde(flatten)]
    frequency: FrequencyBody,
    /// True if this delivery counted the alert as an occurrence; null if the alert waits and this
    /// is not decided yet.
    #[schema(required)]
    counted: Option<bool>,
    /// The reason why the alert was not counted. Present if `counted` is not true.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<AlertReason>,
}

/// The reason why an alert was not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum AlertReason {
    /// Its episode was heard of before: it still fires.
    Ongoing,
    /// Another alert of the anomaly was firing when it began: one incident counts once.
    SameIncident,
    /// It has ended.
    Resolved,
    /// A later delivery has said more of it, or has ended it within the last ten minutes.
    Stale,
    /// Its episode was recorded before.
    Duplicate,
    /// Its episode began more than 30 days ago.
    TooOld,
    /// Its episode may have been recorded before, and the id is not kept any more.
    Unrecognisable,
    /// It waits for the store.
    Waiting,
    /// It could not be read, or the store refuses it.
    Failed,
}

impl AlertReason {
    /// Returns `None` for an alert that counts.
    fn of(outcome: OccurrenceOutcome) -> Option<Self> {
        let settled = match outcome {
            OccurrenceOutcome::Settled(settled) => settled,
            OccurrenceOutcome::Spooled | OccurrenceOutcome::Undecided => {
                return Some(Self::Waiting);
            }
        };
        Some(match settled {
            RecordOutcome::Counted => return None,
            RecordOutcome::Duplicate => Self::Duplicate,
            RecordOutcome::TooOld => Self::TooOld,
            RecordOutcome::Unrecognisable => Self::Unrecognisable,
            RecordOutcome::Ongoing => Self::Ongoing,
            RecordOutcome::SameIncident => Self::SameIncident,
            RecordOutcome::Resolved => Self::Resolved,
            RecordOutcome::Stale => Self::Stale,
        })
    }
}

impl From<Answered<Counted>> for HeardBody {
    fn from(Answered { value, degraded }: Answered<Counted>) -> Self {
        let Counted { outcome, frequency } = value;
        let reason = AlertReason::of(outcome);
        let counted = (reason != Some(AlertReason::Waiting)).then_some(reason.is_none());
        Self { frequency: FrequencyBody::new(frequency, degraded), counted, reason }
    }
}

impl DeliveryBody {
    /// Creates the answer from the result of each alert, and counts the results.
    pub(super) fn new(heads: Vec<AlertHead>, results: Vec<Recorded>) -> Self {
        let alerts = Vec::with_capacity(results.len());
        let degraded = results.iter().map(|result| result.as_ref().ok()?.degraded);
        let degraded = DegradedBody::of_all(degraded);
        let mut body = Self { counted: 0, waiting: 0, failed: 0, alerts, degraded };
        for (head, result) in heads.into_iter().zip(results) {
            let mut result = AlertStatus::new(head.is_resolved, result);
            let outcome = result.outcome();
            WEBHOOK_ALERTS.increment(outcome);
            match outcome {
                AlertOutcome::Counted => body.counted += 1,
                AlertOutcome::Waiting => body.waiting += 1,
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

impl AlertStatus {
    fn new(is_resolved: bool, result: Recorded) -> Self {
        match result {
            Ok(counted) if is_resolved => Self::Resolved(Box::new(counted.into())),
            Ok(counted) => Self::Firing(Box::new(counted.into())),
            Err(problem) => {
                let (reason, problem) = (AlertReason::Failed, Some(problem));
                Self::Failed { counted: false, reason, problem }
            }
        }
    }

    fn outcome(&self) -> AlertOutcome {
        match self {
            Self::Firing(body) | Self::Resolved(body) if body.counted == Some(true) => {
                AlertOutcome::Counted
            }
            Self::Firing(body) | Self::Resolved(body) if body.counted.is_none() => {
                AlertOutcome::Waiting
            }
            Self::Firing(_) => AlertOutcome::NotCounted,
            Self::Resolved(_) => AlertOutcome::Resolved,
            Self::Failed { .. } => AlertOutcome::Failed,
        }
    }
}

/// The outcome of an alert, as the answer and the metric count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AlertOutcome {
    Counted,
    /// It fires, and is not a new occurrence.
    NotCounted,
    /// It waits for the store.
    Waiting,
    Resolved,
    Failed,
}

impl Label for AlertOutcome {
    const ALL: &'static [Self] =
        &[Self::Counted, Self::NotCounted, Self::Waiting, Self::Resolved, Self::Failed];

    fn value(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::NotCounted => "not_counted",
            Self::Waiting => "waiting",
            Self::Resolved => "resolved",
            Self::Failed => "failed",
        }
    }
}
