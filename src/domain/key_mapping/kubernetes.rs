//! The preset for Kubernetes: with the labels of kube-state-metrics, `service` and `job` name the
//! exporter, and all workloads of a namespace would be one anomaly.

use super::{
    fields::{Field, Fields, StepKind},
    pod_name::{without_number, workload_of_pod},
};

const EXPORTER: &str = "kube-state-metrics";

/// The labels that name a workload, most reliable first, and how its name is derived from their
/// values. Next to each is its name when the exporter has such a label itself and Prometheus does
/// not honour the exporter's labels.
const WORKLOADS: [(&str, &str, NameOf); 7] = [
    ("deployment", "exported_deployment", as_it_is),
    ("statefulset", "exported_statefulset", as_it_is),
    ("daemonset", "exported_daemonset", as_it_is),
    ("cronjob", "exported_cronjob", as_it_is),
    ("job_name", "exported_job_name", without_number),
    ("pod", "exported_pod", workload_of_pod),
    ("container", "exported_container", as_it_is),
];

type NameOf = fn(&str) -> &str;

/// If one of these is present, `pod` and `container` belong to the exporter itself.
const NOT_HONOURED: [&str; 3] = ["exported_namespace", "exported_pod", "exported_container"];

fn as_it_is(name: &str) -> &str {
    name
}

/// Returns the names of the labels that are read.
pub(super) fn sources() -> impl Iterator<Item = &'static str> {
    let workloads = WORKLOADS.into_iter().flat_map(|(name, exported, _)| [name, exported]);
    workloads.chain(NOT_HONOURED)
}

/// Returns true for an alert that names the exporter instead of a workload.
pub(super) fn is_of_exporter<'p>(posted: impl Fn(&str) -> &'p str) -> bool {
    ["job", "service"].into_iter().any(|name| posted(name).ends_with(EXPORTER))
}

/// Sets `service` to the workload that the labels name, if they name one.
pub(super) fn apply<'p>(fields: &mut Fields<'_>, posted: impl Fn(&str) -> &'p str) {
    let is_there = |name: &str| !posted(name).is_empty();
    let is_honoured = !NOT_HONOURED.into_iter().any(is_there);
    let label = |(name, exported, name_of): (&'static str, &'static str, NameOf)| {
        let is_own = !is_honoured && ["pod", "container"].contains(&name);
        let label = [exported, name].into_iter().find(|label| is_there(label))?;
        (label == exported || !is_own).then_some((label, name_of))
    };
    let mut labels = WORKLOADS.into_iter().filter_map(label);
    let Some((mut label, name_of)) = labels.next() else { return };
    let mut name = name_of(posted(label));
    // If a pod's name does not end in anything that Kubernetes appends, its container may show
    // which part belongs to the workload.
    if label.ends_with("pod")
        && name == posted(label)
        && let Some((container, _)) = labels.next()
        && is_part_before_hyphen(posted(container), name)
    {
        (label, name) = (container, posted(container));
    }
    let by = || StepKind::Kubernetes(format!("{label} {:?}", posted(label)));
    fields.set(Field::Service, name, by);
}

/// Returns true if `part` is followed by a hyphen in `name`.
fn is_part_before_hyphen(part: &str, name: &str) -> bool {
    name.strip_prefix(part).is_some_and(|rest| rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service_of(labels: &[(&str, &'static str)]) -> String {
        let posted = |name: &str| {
            labels.iter().find(|(label, _)| *label == name).map_or("", |found| found.1)
        };
        let mut fields = Fields::new(["A", "exporter", "shop", ""].map(str::to_owned), None);
        apply(&mut fields, posted);
        fields.get(Field::Service).to_owned()
    }

    #[test]
    fn the_exporter_is_recognised_by_job_or_service() {
        let is_of_exporter =
            |job, service| is_of_exporter(|name: &str| if name == "job" { job } else { service });
        assert!(is_of_exporter("kube-state-metrics", ""));
        assert!(is_of_exporter("api", "kps-kube-state-metrics"));
        for (job, service) in [("", ""), ("api", "api"), ("kube-state-metrics-2", "api")] {
            assert!(!is_of_exporter(job, service), "{job} {service}");
        }
    }

    #[test]
    fn the_most_reliable_label_names_the_workload() {
        let own = ("pod", "kps-kube-state-metrics-6d9f7c5b8-x2k4p");
        for (labels, service) in [
            (&[("deployment", "cart"), own][..], "cart"),
            (&[("statefulset", "postgres"), own], "postgres"),
            (&[("daemonset", "agent"), own], "agent"),
            (&[("cronjob", "backup"), ("job_name", "other-1"), own], "backup"),
            (&[("job_name", "backup-28391040"), own], "backup"),
            (&[("pod", "cart-6d9f7c5b8-x2k4p"), ("container", "app")], "cart"),
            (&[("pod", ""), ("container", "app")], "app"),
            (&[("pod", "cart-7c9d-p1"), ("container", "cart")], "cart"),
            (&[("pod", "cart-7c9d-p1"), ("container", "car")], "cart-7c9d-p1"),
            (&[("pod", "cart-canary-x2k4p"), ("container", "cart")], "cart-canary"),
            (&[("node", "n1")], "exporter"),
            (&[], "exporter"),
        ] {
            assert_eq!(service_of(labels), service, "{labels:?}");
        }
    }

    #[test]
    fn without_honoured_labels_pod_and_container_are_the_exporters() {
        let own = [
            ("pod", "kps-kube-state-metrics-6d9f7c5b8-x2k4p"),
            ("container", "kube-state-metrics"),
        ];
        for (labels, service) in [
            (
                &[("exported_pod", "cart-6d9f7c5b8-x2k4p"), ("exported_container", "app")][..],
                "cart",
            ),
            (&[("exported_container", "app")], "app"),
            (&[("exported_namespace", "shop"), ("deployment", "cart")], "cart"),
            (&[("exported_namespace", "shop"), ("horizontalpodautoscaler", "cart")], "exporter"),
        ] {
            assert_eq!(service_of(&[labels, &own].concat()), service, "{labels:?}");
        }
    }
}
