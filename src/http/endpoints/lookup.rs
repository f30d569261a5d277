//! `/anomalies/lookup`: the anomaly that the labels of an alert identify, by no key.

use std::collections::BTreeMap;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::{anomalies::AnomalyBody, endpoint::Endpoint};
use crate::{
    auth::Scope,
    domain::{AnomalyKey, KeyMapping, PostedTo},
    http::{
        extract::Query,
        json::Json,
        problem::{Problem, ProblemKind},
        state::AppState,
    },
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    use ProblemKind::{InvalidField, UnknownAnomaly};
    vec![
        Endpoint::new("anomalies.lookup", routes!(lookup))
            .scope(Scope::Read)
            .problems(&[InvalidField, UnknownAnomaly]),
    ]
}

/// The labels of an alert, or the fields of an occurrence.
#[derive(Deserialize, Serialize)]
#[serde(transparent)]
struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Returns the key by which the anomaly of these labels is known to a call.
    fn key(&self, keys: &KeyMapping, to: PostedTo) -> Result<AnomalyKey, Problem> {
        let unreadable = |error| {
            Problem::new(ProblemKind::InvalidField, format!("the labels can't be read: {error}"))
        };
        let text = serde_json::to_string(self).map_err(unreadable)?;
        let posted = keys.read(to, &text).map_err(unreadable)?;
        Ok(keys.map(&posted)?.signature.key())
    }
}

/// An anomaly that was looked up.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LookedUp)]
struct LookedUpBody {
    identified_by: IdentifiedBy,
    #[serde(flatten)]
    anomaly: AnomalyBody,
}

/// The way in which the labels have identified the anomaly: as those of an alert on the webhook
/// (`webhook`), or as the fields that `POST /anomalies` takes (`fields`). Where both give the same
/// key, it is `webhook`.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum IdentifiedBy {
    Webhook,
    Fields,
}

/// Find an anomaly by the labels of an alert.
///
/// Takes any labels, such as all of those of an alert: `alertname=HighCPU&job=api&pod=api-0`. They
/// identify the anomaly as on the webhook, and if none is known by that key, as the fields of
/// `POST /anomalies`. The answer says which (`identified_by`). The problem of an anomaly that is
/// not known has the key (`anomaly_key`).
#[utoipa::path(
    get,
    path = "/anomalies/lookup",
    tag = "anomalies",
    params(
        ("alert_name" = Option<String>, Query, nullable = false, example = "HighCPU",
         description = "The name of the alert or fault. The alias is `alertname`."),
        ("service" = Option<String>, Query, nullable = false, example = "api",
         description = "The service or workload. The alias is `job`."),
        ("namespace" = Option<String>, Query, nullable = false, example = "shop",
         description = "The namespace in which the service runs."),
        ("error_type" = Option<String>, Query, nullable = false, example = "OOMKilled",
         description = "The kind of error. The alias is `reason`."),
    ),
    responses((status = 200, description = "The anomaly.", body = LookedUpBody)),
)]
async fn lookup(
    State(state): State<AppState>,
    Query(labels): Query<Labels>,
) -> Result<Json<LookedUpBody>, Problem> {
    let moment = state.counter.moment();
    let by_webhook = labels.key(&state.keys, PostedTo::Webhook)?;
    let by_fields = labels.key(&state.keys, PostedTo::Anomalies).ok();
    let mut ways = vec![(by_webhook, IdentifiedBy::Webhook)];
    ways.extend(by_fields.filter(|key| *key != by_webhook).map(|key| (key, IdentifiedBy::Fields)));
    for (key, identified_by) in ways {
        if let Some(anomaly) = state.counter.anomaly(moment, key).await? {
            return Ok(Json(LookedUpBody { identified_by, anomaly: anomaly.into() }));
        }
    }
    Err(Problem::unknown_labels(by_webhook))
}
