//! Deliveries as they are posted.

use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::spawn_blocking,
};
use utoipa::{
    ToSchema,
    openapi::{
        ArrayBuilder,
        schema::{SchemaType, Type},
    },
};

use super::{
    alert::{AlertHead, AlertRequest, type_of},
    labels::LabelNotes,
};
use crate::{
    domain::{AnomalyConfig, CountBy, KeyMapping, Occurrence, Timestamp},
    http::{
        bodies::schemas,
        extract::{DeliveryText, EventQuota, FirstElements, members, parse},
        problem::{Problem, ProblemKind},
    },
};

/// Size in bytes above which deliveries are read one at a time, because they take several times
/// their size in memory, and on a blocking thread, so that other requests are answered meanwhile.
const LARGE_BYTES: usize = 1 << 20;

/// Held by the one large delivery that is read and recorded.
static LARGE_TURN: Semaphore = Semaphore::const_new(1);

/// Maximum number of alerts of a delivery.
const MAX_ALERTS: usize = 10_000;

/// A delivery of Alertmanager (version 4) or Grafana (version 1). Its other fields are ignored.
#[derive(Debug, ToSchema)]
#[schema(
    as = Delivery,
    example = json!({"version": "4", "alerts": [{
        "status": "firing",
        "labels": {"alertname": "HighCPU", "service": "api", "namespace": "shop"},
        "annotations": {"summary": "CPU above 90 %"},
    }]})
)]
pub(in crate::http) struct DeliveryRequest<'a> {
    /// The alerts: 10,000 at most (413 above); null is an empty delivery. An element that is not an
    /// alert does not affect the others.
    #[schema(schema_with = alerts_schema)]
    alerts: Vec<&'a RawValue>,
    #[schema(ignore)]
    truncated: u64,
}

/// Without the maximum number, because more of them are too large and not invalid.
fn alerts_schema() -> ArrayBuilder {
    schemas::array_of_anything_like::<AlertRequest<'_>>()
        .schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
}

impl<'a> DeliveryRequest<'a> {
    pub(in crate::http) fn parse(text: &'a str) -> Result<Self, Problem> {
        // Checks the syntax only: a fault in an alert fails that alert alone.
        let whole: &RawValue = parse(text)?;
        let names = ["alerts", "truncatedAlerts", "ruleId", "evalMatches"];
        let Some([alerts, truncated, rule_id, matches]) = members(whole, names) else {
            let type_name = type_of(whole)?;
            let detail = format!("a delivery must be a JSON object, not {type_name}");
            return Err(Problem::new(ProblemKind::InvalidField, detail));
        };
        let truncated = truncated.and_then(|value| parse::<u64>(value.get()).ok());
        let Some(alerts) = alerts else {
            let fault = if rule_id.or(matches).is_some() {
                "is missing: this is a delivery of Grafana before version 9, which is not \
                 supported. Use Grafana 9 or later, with a contact point of the type Webhook"
            } else {
                "is missing: this is not a delivery of Alertmanager"
            };
            return Err(Problem::field("alerts", fault));
        };
        let truncated = truncated.unwrap_or_default();
        if alerts.get() == "null" {
            return Ok(Self { alerts: Vec::new(), truncated });
        }
        let Ok(alerts) = parse::<FirstElements<&RawValue, MAX_ALERTS>>(alerts.get()) else {
            return Err(Problem::wrong_type("alerts", "an array", type_of(alerts)?));
        };
        let FirstElements { first, count } = alerts;
        if count > MAX_ALERTS {
            let detail = format!(
                "a delivery holds at most {MAX_ALERTS} alerts, and this one holds {count}: set \
                 max_alerts in Alertmanager's webhook_config. Nothing was recorded"
            );
            return Err(Problem::new(ProblemKind::ContentTooLarge, detail));
        }
        Ok(Self { alerts: first, truncated })
    }

    /// Reads each alert; one that is malformed fails alone.
    pub(in crate::http) fn read(
        &self,
        count: CountBy,
        now: Timestamp,
        keys: &KeyMapping,
        config: AnomalyConfig,
    ) -> impl Iterator<Item = (AlertHead, Result<Occurrence, Problem>)> {
        self.alerts.iter().map(move |alert| {
            let alert = AlertRequest::parse(alert);
            let fingerprint = alert.as_ref().ok().and_then(AlertRequest::given_fingerprint);
            let is_resolved = alert.as_ref().is_ok_and(AlertRequest::is_resolved);
            let mut head = AlertHead { fingerprint, labels: LabelNotes::default(), is_resolved };
            let read = alert.and_then(|alert| alert.read(count, now, keys, config));
            let occurrence = read.map(|(occurrence, notes)| {
                head.labels = notes;
                occurrence
            });
            (head, occurrence)
        })
    }
}

/// A delivery whose alerts were read.
pub(super) struct ReadDelivery {
    /// The fields of each alert that the answer repeats beside its result.
    pub(super) heads: Vec<AlertHead>,
    /// The occurrence that each alert describes.
    pub(super) alerts: Vec<Result<Occurrence, Problem>>,
    /// Number of alerts that the sender left out.
    pub(super) truncated: u64,
    /// Held until the delivery is recorded.
    pub(super) turn: Option<SemaphorePermit<'static>>,
}

impl ReadDelivery {
    /// Reads a delivery that arrives at `now`, and takes its alerts from the quota.
    pub(super) async fn of(
        body: DeliveryText,
        quota: EventQuota,
        count: CountBy,
        now: Timestamp,
        keys: Arc<KeyMapping>,
        config: AnomalyConfig,
    ) -> Result<Self, Problem> {
        let is_large = body.len() > LARGE_BYTES;
        let read = move |turn| {
            let text = body.text();
            let delivery = DeliveryRequest::parse(&text)?;
            quota.take(delivery.alerts.len())?;
            let (heads, alerts) = delivery.read(count, now, &keys, config).unzip();
            Ok(Self { heads, alerts, truncated: delivery.truncated, turn })
        };
        if !is_large {
            return read(None);
        }
        let turn = LARGE_TURN.acquire().await.ok();
        match spawn_blocking(move || read(turn)).await {
            Ok(read) => read,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}
