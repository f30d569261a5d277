//! `/repairs`: reporting repair attempts, and which actions are worth trying.

use axum::{
    Extension, Json,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    AppState,
    audit::CameFrom,
    body::JsonBody,
    degraded::{DegradedBody, written},
    fields::Fields,
    layers::access,
    occurrence,
    path::{ActionPath, KeyPath},
    problem::Problem,
    schemas,
};
use crate::{
    auth::Caller,
    counter::Answered,
    domain::{
        Action, AnomalyKey, InvalidSuccessRate, RepairAttempt, RepairHistory, RepairStatistics,
        SuccessRate, Timestamp,
    },
};

/// A repair attempt to report.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "it describes what is read field by field")]
#[serde(deny_unknown_fields)]
#[schema(as = RepairToReport)]
struct ReportRequest {
    /// The anomaly it was made on.
    #[schema(value_type = schemas::AnomalyKey)]
    anomaly_key: AnomalyKey,
    #[schema(value_type = schemas::ActionName)]
    action: String,
    /// Whether it worked.
    success: bool,
    /// By what a retry of the report is recognised; the header `Idempotency-Key` means the same.
    #[schema(value_type = Option<schemas::EventId>)]
    event_id: Option<String>,
}

/// How one action has fared among the anomaly's newest 100 attempts.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Action)]
pub(super) struct ActionBody {
    /// What was tried.
    #[schema(example = "restart_pod")]
    action: String,
    /// How often.
    #[schema(maximum = 100, example = 2)]
    total: u64,
    /// How often it worked.
    #[schema(maximum = 100, example = 1)]
    success: u64,
    #[schema(value_type = schemas::SuccessRate)]
    success_rate: SuccessRate,
}

impl ActionBody {
    fn new(action: &str, figures: RepairStatistics) -> Self {
        Self {
            action: action.to_owned(),
            total: figures.total,
            success: figures.success,
            success_rate: figures.success_rate(),
        }
    }

    pub(super) fn of_history(history: &RepairHistory) -> Vec<Self> {
        let figures = history.statistics_by_action();
        figures.into_iter().map(|(action, figures)| Self::new(action, figures)).collect()
    }
}

/// The answer to a reported attempt.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Repair)]
pub(super) struct RepairBody {
    #[schema(value_type = schemas::AnomalyKey)]
    anomaly_key: AnomalyKey,
    #[serde(flatten)]
    action: ActionBody,
    /// How many attempts of any action the anomaly has had.
    #[schema(example = 2)]
    auto_repair_count: u64,
    /// False when this `event_id` was reported before.
    counted: bool,
    #[serde(flatten)]
    degraded: DegradedBody,
}

/// An anomaly's repairs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Repairs)]
pub(super) struct RepairsBody {
    #[schema(value_type = schemas::AnomalyKey)]
    anomaly_key: AnomalyKey,
    /// How many attempts of any action the anomaly has had.
    #[schema(example = 2)]
    auto_repair_count: u64,
    /// The figures of each action among the newest 100 attempts, the most tried first.
    #[schema(max_items = 100)]
    actions: Vec<ActionBody>,
    /// The newest attempts, newest first.
    #[schema(max_items = 100)]
    attempts: Vec<AttemptBody>,
    #[serde(flatten)]
    degraded: DegradedBody,
}

/// One attempt.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Attempt)]
struct AttemptBody {
    /// What was tried.
    #[schema(example = "restart_pod")]
    action: String,
    /// Whether it worked.
    success: bool,
    /// When; null where an older writer has left no readable time.
    #[schema(required, value_type = Option<schemas::Time>)]
    timestamp: Option<Timestamp>,
}

/// Whether an action is worth trying.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Advice)]
pub(super) struct ActionAdviceBody {
    #[schema(value_type = schemas::AnomalyKey)]
    anomaly_key: AnomalyKey,
    #[serde(flatten)]
    action: ActionBody,
    /// The rate below which it is to be skipped.
    #[schema(value_type = schemas::SuccessRate)]
    min_success_rate: SuccessRate,
    /// Whether it was tried at least twice and works too seldom.
    should_skip: bool,
    #[serde(flatten)]
    degraded: DegradedBody,
}

/// Report a repair attempt.
#[utoipa::path(
    post,
    path = "/repairs",
    tag = "repairs",
    params((
        "Idempotency-Key" = Option<schemas::EventId>, Header, nullable = false,
        description = "Means the same as `event_id`. Where both are given they must be the same.",
    )),
    request_body = ReportRequest,
    responses(
        (status = 200, description = "It is recorded, or was before.", body = RepairBody),
        (status = 202, description = "The store is away: it waits, and will count.", body = RepairBody),
    ),
)]
pub(super) async fn report(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    came_from: CameFrom,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<RepairBody>), Problem> {
    access::admit_events(&caller, 1)?;
    let now = state.counter.now();
    let mut fields = Fields::of("a repair", body)?;
    let key = fields.anomaly_key()?;
    let action = Action::parse(&fields.required_text("action")?)
        .map_err(|error| Problem::field("action", error))?;
    let success = fields.required_bool("success")?;
    let id = occurrence::event_id(&mut fields, occurrence::idempotency_key(&headers)?)?;
    fields.finish()?;

    let actor = came_from.said_by(None);
    let attempt = RepairAttempt { key, id, action: action.clone(), success, at: now, actor };
    let recorded = state.counter.record_repair(now, attempt).await?;
    let Answered { value: recorded, degraded } =
        recorded.ok_or_else(|| Problem::unknown_anomaly(key))?;
    let figures = recorded.history.statistics(action.as_str());
    let body = RepairBody {
        anomaly_key: key,
        action: ActionBody::new(action.as_str(), figures),
        auto_repair_count: recorded.history.total,
        counted: recorded.counted,
        degraded: degraded.into(),
    };
    Ok((written(degraded), Json(body)))
}

/// Ask which repairs were tried on an anomaly.
#[utoipa::path(
    get,
    path = "/anomalies/{key}/repairs",
    tag = "repairs",
    params(("key" = schemas::AnomalyKey, Path)),
    responses((status = 200, description = "Totals, and the newest 100 attempts.", body = RepairsBody)),
)]
pub(super) async fn repairs(
    State(state): State<AppState>,
    KeyPath(key): KeyPath,
) -> Result<Json<RepairsBody>, Problem> {
    let Answered { value: history, degraded } = history(&state, key).await?;
    Ok(Json(RepairsBody {
        anomaly_key: key,
        auto_repair_count: history.total,
        actions: ActionBody::of_history(&history),
        attempts: history
            .recent
            .into_iter()
            .map(|attempt| AttemptBody {
                action: attempt.action,
                success: attempt.success,
                timestamp: attempt.at,
            })
            .collect(),
        degraded: degraded.into(),
    }))
}

/// Ask whether an action is worth trying.
///
/// An action that was never tried has figures of 0, and is not to be skipped.
#[utoipa::path(
    get,
    path = "/anomalies/{key}/repairs/{action}",
    tag = "repairs",
    params(
        ("key" = schemas::AnomalyKey, Path),
        ("action" = String, Path, description = "What would be tried.", example = "restart_pod"),
        (
            "min_success_rate" = Option<f64>, Query, nullable = false, minimum = 0, maximum = 1, example = 0.2,
            description = "The rate below which it is to be skipped; 0.2 where none is given.",
        ),
    ),
    responses((status = 200, description = "Its figures, and `should_skip`.", body = ActionAdviceBody)),
)]
pub(super) async fn advice(
    State(state): State<AppState>,
    ActionPath(key, action): ActionPath,
    RawQuery(query): RawQuery,
) -> Result<Json<ActionAdviceBody>, Problem> {
    let minimum = min_success_rate(query.as_deref().unwrap_or_default())?;
    let Answered { value: history, degraded } = history(&state, key).await?;
    let figures = history.statistics(&action);
    Ok(Json(ActionAdviceBody {
        anomaly_key: key,
        action: ActionBody::new(&action, figures),
        min_success_rate: minimum,
        should_skip: figures.should_skip(minimum),
        degraded: degraded.into(),
    }))
}

async fn history(state: &AppState, key: AnomalyKey) -> Result<Answered<RepairHistory>, Problem> {
    let anomaly = state.counter.anomaly(state.counter.now(), key).await?;
    let Answered { value, degraded } = anomaly.ok_or_else(|| Problem::unknown_anomaly(key))?;
    Ok(Answered { value: value.details.repairs, degraded })
}

fn min_success_rate(query: &str) -> Result<SuccessRate, Problem> {
    let name = "min_success_rate";
    let mut minimum = SuccessRate::DEFAULT_MINIMUM;
    for (parameter, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if parameter != name {
            // A typo passed over would be an advice by another bound than was asked for.
            return Err(Problem::field(&parameter, format!("is not known here: use `{name}`")));
        }
        minimum = value
            .parse()
            .map_err(|_| InvalidSuccessRate)
            .and_then(SuccessRate::new)
            .map_err(|error| Problem::field(name, error))?;
    }
    Ok(minimum)
}
