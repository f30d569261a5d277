//! `/anomalies/{key}/history`: the occurrences of an anomaly over time, and the changes of its
//! state.

use std::{fmt, str::FromStr};

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::endpoint::{Endpoint, routes};
use crate::{
    auth::Scope,
    counter::Answered,
    domain::{
        AnomalyKey, AskedPeriod, Band, EscalationLevel, HistoryBucket, HistoryPeriod, HistoryStep,
        HistoryWindow, InvalidPeriod, InvalidTimestamp, MAX_BUCKETS, Timestamp,
    },
    http::{
        bodies::{AuditEntryBody, DegradedBody, schemas},
        extract::{KeyPath, Query, parsed},
        json::Json,
        problem::{Problem, ProblemKind},
        state::AppState,
    },
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    use ProblemKind::{InvalidField, InvalidKey, UnknownAnomaly};
    vec![Endpoint::new("anomalies.history", routes!(history)).scope(Scope::Read).problems(&[
        InvalidKey,
        InvalidField,
        UnknownAnomaly,
    ])]
}

/// The parameters of a history.
#[derive(Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
#[derive(Default)]
struct HistoryQuery {
    /// The length of a history that ends now: a whole number with `m`, `h` or `d`, from `1h` to
    /// `30d`. The default is `24h`.
    #[serde(deserialize_with = "parsed")]
    #[param(value_type = Option<String>, nullable = false, example = "7d")]
    window: Option<HistoryWindow>,
    /// The beginning of the history, instead of `window`. Occurrences older than 30 days are left
    /// out.
    #[serde(deserialize_with = "parsed")]
    #[param(value_type = Option<schemas::Time>, nullable = false)]
    from: Option<Time>,
    /// The end of the history that begins at `from`. The default is now.
    #[serde(deserialize_with = "parsed")]
    #[param(value_type = Option<schemas::Time>, nullable = false)]
    to: Option<Time>,
    /// The width of the buckets: `5m`, `15m`, `30m`, `1h`, `2h`, `6h`, `12h` or `1d`. The default
    /// is `15m` up to 24 hours, `1h` up to 7 days, and `6h` beyond that. There are at most 1,000
    /// buckets.
    #[serde(deserialize_with = "parsed")]
    #[param(value_type = Option<String>, nullable = false, example = "1h")]
    step: Option<HistoryStep>,
}

/// A time of a query.
#[derive(Clone, Copy)]
struct Time(Timestamp);

impl FromStr for Time {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        Timestamp::parse_rfc3339(text).map(Self)
    }
}

impl HistoryQuery {
    fn period(&self, now: Timestamp) -> Result<HistoryPeriod, Problem> {
        let fault = |field, fault: &dyn fmt::Display| Err(Problem::field(field, fault));
        let asked = match (self.window, self.from, self.to) {
            (Some(_), Some(_), _) => {
                return fault("window", &"can't be used with `from`: give one of the two");
            }
            (_, None, Some(_)) => return fault("from", &"is missing: `to` requires it"),
            (window, None, None) => AskedPeriod::Window(window.unwrap_or_default()),
            (None, Some(Time(from)), to) => AskedPeriod::Between(from, to.map_or(now, |to| to.0)),
        };
        HistoryPeriod::new(now, asked, self.step).map_err(|error| {
            let field = match error {
                InvalidPeriod::Empty => "from",
                InvalidPeriod::TooManyBuckets { .. } => "step",
            };
            Problem::field(field, error)
        })
    }
}

/// The history of an anomaly.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = History)]
struct HistoryBody {
    #[schema(value_type = schemas::AnomalyKey)]
    anomaly_key: AnomalyKey,
    /// The beginning of the first bucket.
    #[schema(value_type = schemas::Time)]
    from: Timestamp,
    /// The end of the last bucket.
    #[schema(value_type = schemas::Time)]
    to: Timestamp,
    /// The width of the buckets.
    #[schema(example = 3600)]
    step_seconds: i64,
    /// Occurrences in all buckets.
    #[schema(example = 41)]
    total: u64,
    /// The buckets, oldest first. They begin at multiples of `step_seconds` in UTC, and follow each
    /// other without a gap; the last one ends at `to`.
    #[schema(max_items = 1000)]
    buckets: Vec<BucketBody>,
    /// The audit entries between `from` and `to`, oldest first, among the newest 100 entries of the
    /// audit.
    #[schema(max_items = 100)]
    events: Vec<AuditEntryBody>,
    /// The levels, lowest first, in the current configuration.
    bands: Vec<BandBody>,
    #[serde(flatten)]
    degraded: DegradedBody,
}

/// The occurrences of one bucket of time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HistoryBucket)]
struct BucketBody {
    /// The beginning of the bucket.
    #[schema(value_type = schemas::Time)]
    start: Timestamp,
    /// Occurrences in the bucket.
    #[schema(example = 2)]
    count: u64,
    /// Occurrences in the 24 hours up to the end of the bucket, on which the levels depend. Null if
    /// these 24 hours began more than 30 days ago: older occurrences are not stored.
    #[schema(required, example = 4)]
    count_24h: Option<u64>,
    /// Present if false: a count may be wrong by the occurrences of up to an hour that are stored
    /// as one number, or by occurrences older than 30 days.
    #[serde(skip_serializing_if = "crate::http::bodies::is_true")]
    #[schema(required = false)]
    exact: bool,
}

impl From<HistoryBucket> for BucketBody {
    fn from(HistoryBucket { start, count, count_24h, is_exact }: HistoryBucket) -> Self {
        Self { start, count, count_24h, exact: is_exact }
    }
}

/// A level, and a condition that reaches it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Band)]
struct BandBody {
    #[schema(value_type = schemas::EscalationLevel)]
    level: EscalationLevel,
    /// The number of occurrences, and the window in which they are counted.
    #[schema(example = "3 in 24h")]
    condition: String,
}

impl From<Band> for BandBody {
    fn from(Band { level, condition }: Band) -> Self {
        Self { level, condition }
    }
}

/// Read how often an anomaly has occurred over time.
///
/// In an outage of the store, the response is 503: the history of an anomaly is in the store only.
#[utoipa::path(
    get,
    path = "/anomalies/{key}/history",
    tag = "anomalies",
    params(("key" = schemas::AnomalyKey, Path), HistoryQuery),
    responses((status = 200, description = "The history.", body = HistoryBody)),
)]
async fn history(
    State(state): State<AppState>,
    KeyPath(key): KeyPath,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<HistoryBody>, Problem> {
    const _: () = assert!(MAX_BUCKETS == 1_000, "the descriptions say so");
    let moment = state.counter.moment();
    let period = query.period(moment.now)?;
    let history = state.counter.history(moment, key, &period).await?;
    let Answered { value, degraded } = history.ok_or_else(|| Problem::unknown_anomaly(key))?;
    Ok(Json(HistoryBody {
        anomaly_key: key,
        from: period.start(),
        to: period.end(),
        step_seconds: period.step().seconds(),
        total: value.total(),
        buckets: value.buckets.into_iter().map(Into::into).collect(),
        events: value.events.into_iter().map(Into::into).collect(),
        bands: value.bands.into_iter().map(Into::into).collect(),
        degraded: degraded.into(),
    }))
}
