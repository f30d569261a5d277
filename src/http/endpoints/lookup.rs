//! `/anomalies/lookup`: finds the anomaly that the labels of an alert identify, without its key.

use std::collections::BTreeMap;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    anomalies::AnomalyBody,
    endpoint::{Endpoint, routes},
};
use crate::{
    auth::Scope,
    domain::{KeyMapping, Moment, PostedTo, Selection, Signature, TextPattern},
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
    /// Returns the signature that these labels have when they are posted to `to`.
    fn signature(&self, keys: &KeyMapping, to: PostedTo) -> Result<Signature, Problem> {
        let unreadable = |error| {
            Problem::new(ProblemKind::InvalidField, format!("the labels can't be read: {error}"))
        };
        let text = serde_json::to_string(self).map_err(unreadable)?;
        let posted = keys.read(to, &text).map_err(unreadable)?;
        Ok(keys.map(&posted)?.signature)
    }
}

/// The anomaly that a look-up found.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LookedUp)]
struct LookedUpBody {
    identified_by: IdentifiedBy,
    #[serde(flatten)]
    anomaly: AnomalyBody,
}

/// How the labels identified the anomaly: as the labels of an alert on the webhook (`webhook`), or
/// as the fields of `POST /anomalies` (`fields`). If both give the same key, it is `webhook`.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum IdentifiedBy {
    Webhook,
    Fields,
}

/// Find an anomaly by the labels of an alert.
///
/// Accepts any labels, such as all labels of an alert: `alertname=HighCPU&job=api&pod=api-0`. They
/// identify the anomaly as the webhook does or, if no anomaly has that key, as `POST /anomalies`
/// does. `identified_by` says which. If the anomaly is unknown, the problem has the key
/// (`anomaly_key`), and says how many anomalies have the same name.
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
    let signature = labels.signature(&state.keys, PostedTo::Webhook)?;
    let by_webhook = signature.key();
    let by_fields = labels.signature(&state.keys, PostedTo::Anomalies).ok();
    let by_fields = by_fields.map(|signature| signature.key());
    let mut ways = vec![(by_webhook, IdentifiedBy::Webhook)];
    ways.extend(by_fields.filter(|key| *key != by_webhook).map(|key| (key, IdentifiedBy::Fields)));
    for (key, identified_by) in ways {
        if let Some(anomaly) = state.counter.anomaly(moment, key).await? {
            return Ok(Json(LookedUpBody { identified_by, anomaly: anomaly.into() }));
        }
    }
    let similar = similar(&state, moment, &signature).await;
    Err(Problem::unknown_labels(by_webhook, similar.as_deref()))
}

/// Returns a sentence that says how many anomalies share the first of the fields, and how to list
/// them; `None` if there are none, or if the search takes too long.
async fn similar(state: &AppState, moment: Moment, signature: &Signature) -> Option<String> {
    let mut fields = signature.named_fields().into_iter().enumerate();
    let (place, (name, text)) = fields.find(|(_, (_, text))| !text.is_empty())?;
    let pattern = TextPattern::of_text(text).ok()?;
    let value: String = url::form_urlencoded::byte_serialize(pattern.source().as_bytes()).collect();
    let query = format!("{name}={value}");
    let mut selection = Selection::default();
    selection.fields[place] = vec![pattern];
    Some(match state.counter.count(moment, selection).await? {
        0 => return None,
        1 => format!("1 anomaly has {name} {text}: GET /anomalies?{query}"),
        count => format!("{count} anomalies have {name} {text}: GET /anomalies?{query}"),
    })
}
