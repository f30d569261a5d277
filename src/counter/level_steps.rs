//! Level steps: an occurrence by which an anomaly reaches a higher level. A step is reported once,
//! by the log and a metric, whether a caller's answer or a replay reveals it.

use crate::{
    domain::{AnomalyKey, EscalationLevel},
    telemetry,
};

/// Reports that an anomaly has reached a level.
pub(super) fn report_step(key: AnomalyKey, reached: EscalationLevel, count_24h: u64) {
    telemetry::level_step(reached);
    let escalation_level = reached.as_str();
    tracing::info!(
        %key,
        escalation_level,
        count_24h,
        "anomaly {key} has reached {escalation_level}"
    );
}
