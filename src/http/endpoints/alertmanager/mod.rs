//! `/webhooks/alertmanager`: deliveries of Prometheus' Alertmanager (version 4) and of Grafana
//! (version 1). See <https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>.
//!
//! Alertmanager sends every alert of a group again and again for as long as it fires. The store
//! decides which of them are occurrences ([`crate::domain::Incidents`]). Alertmanager repeats a
//! delivery at once after a 5xx, and after a 4xx only at the next `group_interval`. So a 4xx is for
//! faults that no repetition would fix, and a fault that one would fix is never answered with a
//! 200.

mod alert;
mod answer;
mod delivery;
mod labels;
mod refusal;

use std::{sync::Arc, time::Instant};

use axum::{extract::State, http::StatusCode};

use self::{alert::AlertHead, answer::DeliveryBody, delivery::ReadDelivery};
use super::endpoint::{Access, BodyKind, Endpoint, routes};
use crate::{
    auth::{Caller, Scope},
    counter::Counter,
    domain::{AlertState, Moment, Occurrence},
    http::{
        bodies::{Recorded, record_each, temporary_problem, write_status_of},
        extract::{DeliveryText, EventQuota},
        json::Json,
        problem::Problem,
        state::AppState,
    },
    telemetry::{self, may_log},
};

pub(in crate::http) use self::{
    alert::AlertRequest, delivery::DeliveryRequest, refusal::note_refusal,
};

/// Registers the metrics of deliveries. To be called after the recorder is installed.
pub(in crate::http) fn register_metrics() {
    answer::register_metrics();
    refusal::register_metrics();
}

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("alertmanager.deliver", routes!(deliver))
            .access(Access::ScopeOrSignature(Scope::Ingest))
            .body(BodyKind::Delivery)
            .any_query(),
    ]
}

/// Receive a delivery of Alertmanager or Grafana.
///
/// The labels of an alert identify its anomaly. An alert that starts firing is an occurrence,
/// unless another alert of the anomaly is already firing: one incident counts once, however many
/// alerts it has and however often they are sent (`alertmanager.count`). A malformed alert does not
/// affect the others. If a retry may succeed, the response is 503, and the sender may retry the
/// same delivery. The body is JSON; relays may declare it as `text/plain` or `text/json` too.
#[utoipa::path(
    post,
    path = "/webhooks/alertmanager",
    tag = "anomalies",
    request_body = DeliveryRequest<'_>,
    responses(
        (status = 200, description = "The result of each alert.", body = DeliveryBody),
        (
            status = 202,
            description = "The store is unavailable. Some alerts are on disk, and are applied once \
                           the store answers.",
            body = DeliveryBody,
        ),
    ),
)]
async fn deliver(
    State(state): State<AppState>,
    caller: Caller,
    quota: EventQuota,
    body: Result<DeliveryText, Problem>,
) -> Result<(StatusCode, Json<DeliveryBody>), Problem> {
    let bytes = body.as_ref().ok().map(DeliveryText::len);
    let moment = state.counter.moment();
    let read = match body {
        Ok(body) => {
            let (count, keys) = (state.alertmanager.count, Arc::clone(&state.keys));
            ReadDelivery::of(body, quota, count, moment.now, keys, state.anomaly).await
        }
        Err(problem) => Err(problem),
    };
    let delivery = read.inspect_err(|problem| note_refusal(&caller, bytes, problem))?;
    let ReadDelivery { heads, alerts, truncated, turn: _turn } = delivery;
    note_truncated(&caller, truncated);
    let results = record_in_order(&state.counter, &caller, moment, alerts).await;
    // Alertmanager sends the whole delivery again, and alerts that were recorded count once. (A
    // delivery has no id: if each delivery counts, a part of it may count twice.)
    if let Some(problem) = temporary_problem(&results) {
        return Err(problem.clone());
    }
    note_failed(&caller, &heads, &results);
    let status = write_status_of(&results);
    Ok((status, Json(DeliveryBody::new(heads, results))))
}

/// Records the alerts of a delivery: first the ends, then the beginnings, the earliest first. So an
/// alert that began after another had ended is not hidden by it, and of several that began the
/// first one counts. Alertmanager delivers them in the order of their labels.
async fn record_in_order(
    counter: &Counter,
    caller: &Caller,
    moment: Moment,
    alerts: Vec<Result<Occurrence, Problem>>,
) -> Vec<Recorded> {
    let order_of = |alert: &Result<Occurrence, Problem>| {
        let episode = alert.as_ref().ok()?.episode.as_ref()?;
        Some((episode.state == AlertState::Firing, episode.start()))
    };
    let mut alerts: Vec<_> = alerts.into_iter().enumerate().collect();
    alerts.sort_by_key(|(_, alert)| order_of(alert));
    let (places, alerts): (Vec<usize>, Vec<_>) = alerts.into_iter().unzip();
    let results = record_each(counter, caller, moment, alerts).await;
    let mut results: Vec<_> = places.into_iter().zip(results).collect();
    results.sort_by_key(|(place, _)| *place);
    results.into_iter().map(|(_, result)| result).collect()
}

fn note_truncated(caller: &Caller, truncated: u64) {
    if truncated == 0 {
        return;
    }
    telemetry::truncated_alerts(truncated);
    let kind = "a delivery omits alerts, which are not counted: raise max_alerts in Alertmanager's \
                webhook_config";
    let sender = caller.log_source();
    if may_log(kind, sender, Instant::now()) {
        tracing::warn!(sender = sender.name(), truncated, "{kind}");
    }
}

/// Logs the failed alerts of a delivery in one line, which describes the first of them.
fn note_failed(caller: &Caller, heads: &[AlertHead], results: &[Recorded]) {
    let mut failed = heads.iter().zip(results).filter_map(|(head, result)| {
        let problem = result.as_ref().err()?;
        Some((head.fingerprint.as_deref().unwrap_or_default(), problem))
    });
    let Some((fingerprint, problem)) = failed.next() else { return };
    let failed = 1 + failed.count();
    let kind = "alerts of a delivery failed and are not counted";
    let sender = caller.log_source();
    if may_log(kind, sender, Instant::now()) {
        let first: String = fingerprint.chars().take(SHOWN_FINGERPRINT_CHARS).collect();
        tracing::warn!(sender = sender.name(), failed, first, %problem, "{kind}");
    }
}

/// Maximum length of a fingerprint in the log.
const SHOWN_FINGERPRINT_CHARS: usize = 100;
