//! The rules for the labels of alerts, before and after the preset.

use super::fields::{Field, Fields, StepKind};

/// Labels that Prometheus renames because the exporter has such a label itself: they name the
/// failing component. The first one that is present counts.
const EXPORTED: [(Field, &[&str]); 2] = [
    (Field::Namespace, &["exported_namespace"]),
    (Field::Service, &["exported_service", "exported_job"]),
];

/// Grafana's alerts about a rule that has no data, or whose data source fails.
const DATASOURCE_ALERTS: [&str; 2] = ["DatasourceNoData", "DatasourceError"];

/// The label that names the rule of such an alert.
const RULE_NAME: &str = "rulename";

/// The texts that the templates of Grafana and of Go produce for a missing value.
const NO_VALUE: [&str; 2] = ["[no value]", "<no value>"];

/// Returns the names of the labels `exported_…` that win.
pub(super) fn exported_labels() -> impl Iterator<Item = &'static str> {
    EXPORTED.into_iter().flat_map(|(_, names)| names.iter().copied())
}

/// Returns the names of the labels that are read in addition to the identifying ones.
pub(super) fn sources() -> impl Iterator<Item = &'static str> {
    exported_labels().chain([RULE_NAME])
}

/// Returns a label as a source of the mapping: a label that a template left without a value is
/// empty.
pub(super) fn filled(text: &str) -> &str {
    if NO_VALUE.contains(&text) { "" } else { text }
}

/// Treats empty labels as absent, and lets `exported_…` win.
pub(super) fn apply_before_preset<'p>(
    fields: &mut Fields<'_>,
    label: impl Fn(&str) -> &'p str + Copy,
) {
    for field in Field::ALL {
        let value = field.names().map(label).find(|value| !value.is_empty()).unwrap_or_default();
        fields.set(field, value, || StepKind::EmptyLabel);
    }
    for (field, names) in EXPORTED {
        if let Some(name) = names.iter().find(|name| !label(name).is_empty()) {
            fields.set(field, label(name), || StepKind::Exported(name));
        }
    }
}

/// Sets the service to the name of Grafana's rule, if nothing else names a service.
pub(super) fn apply_after_preset<'p>(fields: &mut Fields<'_>, label: impl Fn(&str) -> &'p str) {
    let is_about_rule = DATASOURCE_ALERTS.contains(&fields.get(Field::AlertName));
    if is_about_rule && fields.get(Field::Service).is_empty() {
        fields.set(Field::Service, label(RULE_NAME), || StepKind::RuleName);
    }
}
