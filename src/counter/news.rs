//! News about an anomaly: it has reached a level, or has come back although its cause was marked as
//! fixed. Each is one WARN line and one count, whether an answer to a caller, an estimate or a
//! replay reveals it. The lines are not limited, so that a noisy anomaly hides no other one.

use crate::{
    domain::{EscalationLevel, Frequency, KnownStats, Occurrence, Signature},
    telemetry,
};

/// The news that an occurrence causes, if any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// The level that the anomaly has reached by it, if that is a new step: a level that was held
    /// within `rules.rearm` was already reported. In an outage, that is not known, and every step
    /// is new.
    pub(super) reached: Option<EscalationLevel>,
    /// True if it is the first occurrence after the mark of a permanent fix.
    pub(super) has_regressed: bool,
}

impl News {
    /// Logs and counts the news. `frequency` is the frequency after the occurrence.
    pub(super) fn report(self, occurrence: &Occurrence, frequency: &Frequency) {
        if let Some(reached) = self.reached {
            report_step(occurrence, reached, frequency);
        }
        if self.has_regressed {
            report_regression(occurrence, &frequency.stats);
        }
    }
}

fn report_step(occurrence: &Occurrence, reached: EscalationLevel, frequency: &Frequency) {
    telemetry::level_step(reached);
    let key = occurrence.key;
    let [alert_name, service, namespace, error_type] = identifying_fields(occurrence);
    let (escalation_level, counts) = (reached.as_str(), frequency.stats.counts);
    let because = &frequency.because;
    tracing::warn!(
        alert_name,
        service,
        namespace,
        error_type,
        %key,
        escalation_level,
        because,
        count_1h = counts.hour,
        count_24h = counts.day,
        count_7d = counts.week,
        count_30d = counts.month,
        "anomaly {key} has reached {escalation_level}: {because}"
    );
}

fn report_regression(occurrence: &Occurrence, stats: &KnownStats) {
    telemetry::regression();
    let key = occurrence.key;
    let [alert_name, service, namespace, error_type] = identifying_fields(occurrence);
    let counts = stats.counts;
    tracing::warn!(
        alert_name,
        service,
        namespace,
        error_type,
        %key,
        fixed_at = stats.mark.set_at().map(tracing::field::display),
        count_1h = counts.hour,
        count_24h = counts.day,
        count_7d = counts.week,
        count_30d = counts.month,
        "anomaly {key} has come back, although its cause is marked as fixed"
    );
}

/// Returns the fields that identify the anomaly, from the posted object.
fn identifying_fields(occurrence: &Occurrence) -> [String; 4] {
    Signature::from_stored(&occurrence.signature_json.to_stored())
        .map(|signature| signature.named_fields().map(|(_, value)| value.to_owned()))
        .unwrap_or_default()
}
