//! `/repairs`: records repair attempts, and advises which actions are worth trying.

use axum::{extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::endpoint::{Endpoint, routes};
use crate::{
    auth::Scope,
    counter::Answered,
    domain::{
        Action, AnomalyKey, RepairAttempt, RepairHistory, RepairStatistics, SuccessRate, Timestamp,
    },
    http::{
        bodies::{ActionBody, DegradedBody, NotCounted, schemas, write_status},
        extract::{
            ActionPath, EventQuota, IdempotencyKey, JsonBody, KeyPath, Query, RequestBody,
            Requester, event_id, parse_key, parsed,
        },
        json::Json,
        problem::{Problem, ProblemKind},
        state::AppState,
    },
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    use ProblemKind::{InvalidField, InvalidKey, UnknownAnomaly};
    vec![
        Endpoint::new("repairs.record", routes!(record))
            .scope(Scope::Ingest)
            .problems(&[InvalidKey, UnknownAnomaly]),
        Endpoint::new("repairs.list", routes!(list))
            .scope(Scope::Read)
            .problems(&[InvalidKey, UnknownAnomaly]),
        Endpoint::new("repairs.advice", routes!(advice)).scope(Scope::Read).problems(&[
            InvalidKey,
            UnknownAnomaly,
            InvalidField,
        ]),
    ]
}

/// A repair attempt to report.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(
    as = RepairToReport,
    example = json!({
        "anomaly_key": "d7807df379350b77", "action": "restart_pod", "success": true,
    })
)]
struct RepairRequest {
    /// The key of the anomaly that was repaired.
    #[schema(value_type = schemas::AnomalyKey)]
    anomaly_key: String,
    /// The name of the repair action.
    #[schema(value_type = schemas::ActionName)]
    action: String,
    /// True if the repair worked.
    success: bool,
    /// An id of this report. A second request with the same id does not count again. The header
    /// `Idempotency-Key` has the same meaning.
    #[schema(value_type = Option<schemas::EventId>)]
    event_id: Option<String>,
}

impl RequestBody for RepairRequest {
    const NOUN: &'static str = "a repair";
}

/// The response to a reported attempt.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Repair)]
struct RepairBody {
    #[schema(value_type = schemas::AnomalyKey)]
    anomaly_key: AnomalyKey,
    /// The name of the repair action.
    #[schema(example = "restart_pod")]
    action: String,
    /// Number of attempts of this action among the anomaly's newest 100; null if earlier attempts
    /// are unknown in an outage.
    #[schema(required, maximum = 100, example = 2)]
    total: Option<u64>,
    /// Number of those attempts that worked; null if `total` is.
    #[schema(required, maximum = 100, example = 1)]
    success: Option<u64>,
    /// The share of attempts that worked; null if `total` is.
    #[schema(required, value_type = Option<schemas::SuccessRate>)]
    success_rate: Option<SuccessRate>,
    /// Number of repair attempts of all actions; null if `total` is.
    #[schema(required, example = 2)]
    auto_repair_count: Option<u64>,
    /// False if an attempt with this `event_id` was reported before.
    counted: bool,
    /// The reason why the attempt was not counted. Present if `counted` is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<NotCounted>,
    #[serde(flatten)]
    degraded: DegradedBody,
}

/// The repair attempts on an anomaly.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Repairs)]
struct RepairsBody {
    #[schema(value_type = schemas::AnomalyKey)]
    anomaly_key: AnomalyKey,
    /// Number of repair attempts of all actions.
    #[schema(example = 2)]
    auto_repair_count: u64,
    /// The attempts and successes of each action, among the newest 100 attempts. The action with
    /// the most attempts comes first.
    #[schema(max_items = 100)]
    actions: Vec<ActionBody>,
    /// The newest 100 attempts, newest first.
    #[schema(max_items = 100)]
    attempts: Vec<AttemptBody>,
    #[serde(flatten)]
    degraded: DegradedBody,
}

/// One repair attempt.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Attempt)]
struct AttemptBody {
    /// The name of the repair action.
    #[schema(example = "restart_pod")]
    action: String,
    /// True if it worked.
    success: bool,
    /// The time of the attempt; null if an older program wrote an unreadable time.
    #[schema(required, value_type = Option<schemas::Time>)]
    timestamp: Option<Timestamp>,
}

/// The advice on whether to try a repair action again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Advice)]
struct ActionAdviceBody {
    #[schema(value_type = schemas::AnomalyKey)]
    anomaly_key: AnomalyKey,
    #[serde(flatten)]
    action: ActionBody,
    /// The success rate below which the action should be skipped, as in the request.
    #[schema(value_type = schemas::SuccessRate)]
    min_success_rate: SuccessRate,
    /// True if the action should be skipped: among the newest 100 attempts of the anomaly it was
    /// tried at least twice, and its success rate is below `min_success_rate`.
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
        description = "Has the same meaning as `event_id`, and must be equal to it if both are \
                       present.",
    )),
    request_body = RepairRequest,
    responses(
        (
            status = 200, body = RepairBody,
            description = "The attempt is recorded, or was recorded before.",
        ),
        (
            status = 202, body = RepairBody,
            description = "The store is unavailable. The attempt is on disk, and is counted once \
                           the store answers.",
        ),
    ),
)]
async fn record(
    State(state): State<AppState>,
    quota: EventQuota,
    requester: Requester,
    IdempotencyKey(id): IdempotencyKey,
    JsonBody(repair): JsonBody<RepairRequest>,
) -> Result<(StatusCode, Json<RepairBody>), Problem> {
    quota.take(1)?;
    let RepairRequest { anomaly_key, action, success, event_id: id_of_body } = repair;
    let key = parse_key(&anomaly_key).map_err(|problem| problem.at_field("anomaly_key"))?;
    let action = Action::parse(&action).map_err(|error| Problem::field("action", error))?;
    let id = event_id(id_of_body.as_deref(), id)?;

    let moment = state.counter.moment();
    let actor = requester.actor(None);
    let attempt = RepairAttempt { key, id, action: action.clone(), success, at: moment.now, actor };
    let recorded = state.counter.record_repair(moment, attempt).await?;
    let Answered { value: recorded, degraded } =
        recorded.ok_or_else(|| Problem::unknown_anomaly(key))?;
    let history = recorded.history.as_ref();
    let figures = history.map(|history| history.statistics(action.as_str()));
    let body = RepairBody {
        anomaly_key: key,
        action: action.to_string(),
        total: figures.map(|figures| figures.total),
        success: figures.map(|figures| figures.success),
        success_rate: figures.map(RepairStatistics::success_rate),
        auto_repair_count: history.map(|history| history.total),
        counted: recorded.counted,
        reason: (!recorded.counted).then_some(NotCounted::Duplicate),
        degraded: degraded.into(),
    };
    Ok((write_status(degraded), Json(body)))
}

/// Read which repairs were tried on an anomaly.
#[utoipa::path(
    get,
    path = "/anomalies/{key}/repairs",
    tag = "repairs",
    params(("key" = schemas::AnomalyKey, Path)),
    responses((
        status = 200, description = "The repair attempts.", body = RepairsBody,
    )),
)]
async fn list(
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

/// The parameters of an advice.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AdviceQuery {
    /// The success rate below which the action should be skipped.
    #[serde(default, deserialize_with = "parsed")]
    #[param(value_type = Option<f64>, nullable = false, minimum = 0, maximum = 1, example = 0.2)]
    min_success_rate: Option<SuccessRate>,
}

/// Read whether a repair action should be skipped.
///
/// An action that was never tried has zeros, and should not be skipped.
#[utoipa::path(
    get,
    path = "/anomalies/{key}/repairs/{action}",
    tag = "repairs",
    params(
        ("key" = schemas::AnomalyKey, Path),
        ("action" = schemas::ActionName, Path, description = "The name of the repair action."),
        AdviceQuery,
    ),
    responses((
        status = 200, description = "The advice.", body = ActionAdviceBody,
    )),
)]
async fn advice(
    State(state): State<AppState>,
    ActionPath(key, action): ActionPath,
    Query(AdviceQuery { min_success_rate }): Query<AdviceQuery>,
) -> Result<Json<ActionAdviceBody>, Problem> {
    let minimum = min_success_rate.unwrap_or(SuccessRate::DEFAULT_MINIMUM);
    let Answered { value: history, degraded } = history(&state, key).await?;
    let figures = history.statistics(action.as_str());
    Ok(Json(ActionAdviceBody {
        anomaly_key: key,
        action: ActionBody::new(action.as_str(), figures),
        min_success_rate: minimum,
        should_skip: figures.should_skip(minimum),
        degraded: degraded.into(),
    }))
}

async fn history(state: &AppState, key: AnomalyKey) -> Result<Answered<RepairHistory>, Problem> {
    let history = state.counter.repairs(state.counter.moment(), key).await?;
    history.ok_or_else(|| Problem::unknown_anomaly(key))
}
