//! `/repairs`: reporting repair attempts, and which actions are worth trying.

use axum::{
    Extension, Json,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
};
use serde::Serialize;

use super::{
    AppState, access,
    audit::CameFrom,
    body::JsonBody,
    degraded::{DegradedBody, written},
    fields::Fields,
    occurrence,
    path::{ActionPath, KeyPath},
    problem::Problem,
};
use crate::{
    auth::Caller,
    counter::Answered,
    domain::{
        Action, AnomalyKey, InvalidSuccessRate, RepairAttempt, RepairHistory, RepairStatistics,
        SuccessRate, Timestamp,
    },
};

/// How one action has fared among the newest attempts.
#[derive(Debug, Serialize)]
pub(super) struct ActionBody {
    action: String,
    attempts: u64,
    successes: u64,
    success_rate: SuccessRate,
}

impl ActionBody {
    fn new(action: &str, figures: RepairStatistics) -> Self {
        Self {
            action: action.to_owned(),
            attempts: figures.attempts,
            successes: figures.successes,
            success_rate: figures.success_rate(),
        }
    }

    pub(super) fn of_history(history: &RepairHistory) -> Vec<Self> {
        let figures = history.statistics_by_action();
        figures.into_iter().map(|(action, figures)| Self::new(action, figures)).collect()
    }
}

/// The answer to a reported attempt.
#[derive(Debug, Serialize)]
pub(super) struct RepairBody {
    anomaly_key: AnomalyKey,
    #[serde(flatten)]
    action: ActionBody,
    auto_repair_count: u64,
    /// False when this `event_id` was reported before.
    counted: bool,
    #[serde(flatten)]
    degraded: DegradedBody,
}

/// An anomaly's repairs.
#[derive(Debug, Serialize)]
pub(super) struct RepairsBody {
    anomaly_key: AnomalyKey,
    auto_repair_count: u64,
    actions: Vec<ActionBody>,
    /// The newest attempts, newest first.
    attempts: Vec<AttemptBody>,
    #[serde(flatten)]
    degraded: DegradedBody,
}

#[derive(Debug, Serialize)]
struct AttemptBody {
    action: String,
    success: bool,
    timestamp: Option<Timestamp>,
}

/// Whether an action is worth trying.
#[derive(Debug, Serialize)]
pub(super) struct ActionAdviceBody {
    anomaly_key: AnomalyKey,
    #[serde(flatten)]
    action: ActionBody,
    min_success_rate: SuccessRate,
    should_skip: bool,
    #[serde(flatten)]
    degraded: DegradedBody,
}

/// `POST /repairs`.
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

    let origin = came_from.said_by(None);
    let attempt = RepairAttempt { key, id, action: action.clone(), success, at: now, origin };
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

/// `GET /anomalies/{key}/repairs`.
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

/// `GET /anomalies/{key}/repairs/{action}?min_success_rate=0.2`.
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
    Ok(Answered { value: value.dossier.repairs, degraded })
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
