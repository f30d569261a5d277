//! The answer to an occurrence, alone or among others.

use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::{frequency::FrequencyBody, sender_clock::note_times};
use crate::{
    auth::Caller,
    counter::{Answered, Counted, Counter, CounterError, OccurrenceOutcome},
    domain::{Moment, Occurrence},
    http::problem::Problem,
    store::RecordOutcome,
};

/// The response to an occurrence.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Counted)]
pub(in crate::http) struct CountedBody {
    #[serde(flatten)]
    frequency: FrequencyBody,
    /// True if this request counted the occurrence. False for a retry, and for an occurrence that
    /// is older than 30 days.
    counted: bool,
    /// The reason why the occurrence was not counted. Present if `counted` is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<NotCounted>,
    /// True if the service rewrote one of the four fields, as configured in its section `key`.
    /// Present if true.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false, example = true)]
    mapped: bool,
}

impl CountedBody {
    /// Creates the answer. `mapped` is true if the key mapping has changed one of the four fields.
    pub(in crate::http) fn new(answered: Answered<Counted>, mapped: bool) -> Self {
        let Answered { value, degraded } = answered;
        let Counted { outcome, frequency } = value;
        Self {
            frequency: FrequencyBody::new(frequency, degraded),
            counted: outcome.counts(),
            reason: NotCounted::of(outcome),
            mapped,
        }
    }
}

/// The reason why a posted occurrence was not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum NotCounted {
    /// It was recorded before: the call is a retry.
    Duplicate,
    /// It is older than 30 days.
    TooOld,
    /// It may have been recorded before, and its id is not kept any more.
    Unrecognisable,
}

impl NotCounted {
    fn of(outcome: OccurrenceOutcome) -> Option<Self> {
        match outcome {
            OccurrenceOutcome::Settled(RecordOutcome::Duplicate) => Some(Self::Duplicate),
            OccurrenceOutcome::Settled(RecordOutcome::TooOld) => Some(Self::TooOld),
            OccurrenceOutcome::Settled(RecordOutcome::Unrecognisable) => Some(Self::Unrecognisable),
            // It counts, or it is an alert.
            OccurrenceOutcome::Settled(_)
            | OccurrenceOutcome::Spooled
            | OccurrenceOutcome::Undecided => None,
        }
    }
}

/// The result of one element of many.
pub(in crate::http) type Recorded = Result<Answered<Counted>, Problem>;

/// Records one occurrence.
pub(in crate::http) async fn record_one(
    counter: &Counter,
    caller: &Caller,
    moment: Moment,
    occurrence: Occurrence,
) -> Result<Answered<Counted>, Problem> {
    let at = occurrence.at;
    let result = counter.record_one(moment, occurrence).await;
    note_times(caller, moment.now, [(at, &result)].into_iter());
    Ok(result?)
}

/// Records those elements that hold an occurrence, and returns the result of each element.
pub(in crate::http) async fn record_each(
    counter: &Counter,
    caller: &Caller,
    moment: Moment,
    elements: Vec<Result<Occurrence, Problem>>,
) -> Vec<Recorded> {
    let mut occurrences = Vec::with_capacity(elements.len());
    let pending: Vec<Result<(), Problem>> = elements
        .into_iter()
        .map(|element| element.map(|occurrence| occurrences.push(occurrence)))
        .collect();
    let times: Vec<_> = occurrences.iter().map(|occurrence| occurrence.at).collect();
    let results = counter.record(moment, occurrences).await;
    note_times(caller, moment.now, times.into_iter().zip(&results));
    let mut results = results.into_iter();
    pending
        .into_iter()
        .map(|element| {
            element?;
            let result = results.next().unwrap_or_else(|| Err(CounterError::no_result()));
            Ok(result?)
        })
        .collect()
}

/// Returns the first problem after which the client may retry, if any.
pub(in crate::http) fn temporary_problem(results: &[Recorded]) -> Option<&Problem> {
    let problems = results.iter().filter_map(|result| result.as_ref().err());
    problems.into_iter().find(|problem| problem.is_temporary())
}

/// Returns the status of many writes: 202 if any of them waits in the spool.
pub(in crate::http) fn write_status_of(results: &[Recorded]) -> StatusCode {
    let waits = |result: &Recorded| matches!(result, Ok(Answered { degraded: Some(_), .. }));
    if results.iter().any(waits) { StatusCode::ACCEPTED } else { StatusCode::OK }
}
