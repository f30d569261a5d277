//! The mapping of keys against a model that applies each rule by itself, letter by letter, for
//! arbitrary labels; and its promises for hostile ones.

use std::collections::BTreeMap;

use anomaly_counter::domain::{
    AnomalyConfig, KeyConfig, KeyMapping, PostedTo, Signature, SignatureJson,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json, value::RawValue};

pub(crate) type Labels = BTreeMap<String, String>;

const FIELDS: [(&str, &str); 4] = [
    ("alert_name", "alertname"),
    ("service", "job"),
    ("namespace", "namespace"),
    ("error_type", "reason"),
];
pub(crate) const ALPHABET: &str = "bcdfghjklmnpqrstvwxz2456789";
const UNBOUNDED: AnomalyConfig = AnomalyConfig { max_metadata_bytes: usize::MAX };

pub(crate) fn mapping(key: &Value, kubernetes_on_webhook: bool) -> KeyMapping {
    let mut whole = json!({"kubernetes": false, "relabel": [], "mask": {}});
    whole.as_object_mut().unwrap().extend(key.as_object().unwrap().clone());
    KeyMapping::new(serde_json::from_value::<KeyConfig>(whole).unwrap(), kubernetes_on_webhook)
}

/// Returns the four fields as mapped; `None` if all are empty.
pub(crate) fn mapped(keys: &KeyMapping, to: PostedTo, posted: &Labels) -> Option<[String; 4]> {
    let object = json!(posted).to_string();
    let read = keys.read(to, &object).unwrap();
    let signature = keys.map(&read).ok()?.signature;
    Some(signature.named_fields().map(|(_, value)| value.to_owned()))
}

fn first<'a>(values: impl IntoIterator<Item = &'a str>) -> &'a str {
    values.into_iter().find(|value| !value.is_empty()).unwrap_or_default()
}

/// Applies the webhook's rules without `key`, each as the documents describe it.
fn model_of_webhook(labels: &Labels) -> [String; 4] {
    let label = |name: &str| match labels.get(name).map_or("", String::as_str) {
        "[no value]" | "<no value>" => "",
        text => text,
    };
    let is_exporter = [label("job"), label("service")]
        .into_iter()
        .any(|text| text.ends_with("kube-state-metrics"));
    let mut fields = FIELDS.map(|(name, alias)| first([label(name), label(alias)]).to_owned());
    fields[2] = first([label("exported_namespace"), &fields[2]]).to_owned();
    fields[1] = first([label("exported_service"), label("exported_job"), &fields[1]]).to_owned();
    if is_exporter {
        let exported = ["exported_namespace", "exported_pod", "exported_container"];
        let is_honoured = exported.into_iter().all(|name| label(name).is_empty());
        let own = |name| if is_honoured { label(name) } else { "" };
        let pod = first([label("exported_pod"), own("pod")]);
        let container = first([label("exported_container"), own("container")]);
        let mut workload_of_pod = model_of_pod(pod);
        let is_of_container = pod.starts_with(&format!("{container}-")) && !container.is_empty();
        if workload_of_pod == pod && is_of_container {
            workload_of_pod = container.to_owned();
        }
        let workload = first([
            first([label("exported_deployment"), label("deployment")]),
            first([label("exported_statefulset"), label("statefulset")]),
            first([label("exported_daemonset"), label("daemonset")]),
            first([label("exported_cronjob"), label("cronjob")]),
            &model_without_number(first([label("exported_job_name"), label("job_name")])),
            &workload_of_pod,
            container,
        ])
        .to_owned();
        if !workload.is_empty() {
            fields[1] = workload;
        }
    }
    let is_about_rule = ["DatasourceNoData", "DatasourceError"].contains(&&*fields[0]);
    if is_about_rule && fields[1].is_empty() {
        fields[1] = label("rulename").to_owned();
    }
    fields
}

pub(crate) fn is_made_of(
    text: &str,
    letters: &str,
    lengths: std::ops::RangeInclusive<usize>,
) -> bool {
    lengths.contains(&text.chars().count()) && text.chars().all(|c| letters.contains(c))
}

fn model_without_number(name: &str) -> String {
    let parts: Vec<&str> = name.split('-').collect();
    let (last, rest) = parts.split_last().unwrap();
    let rest = rest.join("-");
    if is_made_of(last, "0123456789", 1..=usize::MAX) && !rest.is_empty() {
        return rest;
    }
    name.to_owned()
}

fn model_of_pod(pod: &str) -> String {
    let parts: Vec<&str> = pod.split('-').collect();
    let hash = |text: &str| is_made_of(text, ALPHABET, 8..=10);
    let time = |text: &str| is_made_of(text, "0123456789", 8..=10);
    let kept = match parts.as_slice() {
        [rest @ .., middle, end]
            if !rest.is_empty()
                && is_made_of(end, ALPHABET, 5..=5)
                && (hash(middle) || time(middle)) =>
        {
            rest.join("-")
        }
        [rest @ .., end] if is_made_of(end, ALPHABET, 5..=5) => rest.join("-"),
        _ => return model_without_number(pod),
    };
    if kept.is_empty() { pod.to_owned() } else { kept }
}

fn label_names() -> impl Strategy<Value = String> {
    let names = [
        "alertname",
        "alert_name",
        "service",
        "job",
        "namespace",
        "error_type",
        "reason",
        "exported_namespace",
        "exported_job",
        "exported_service",
        "exported_pod",
        "exported_container",
        "deployment",
        "statefulset",
        "daemonset",
        "cronjob",
        "job_name",
        "pod",
        "container",
        "rulename",
        "cluster",
        "as_posted",
    ];
    prop::sample::select(names.to_vec()).prop_map(str::to_owned)
}

fn label_values() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => Just(String::new()),
        4 => Just("kube-state-metrics".to_owned()),
        1 => Just("kps-kube-state-metrics".to_owned()),
        1 => Just("[no value]".to_owned()),
        1 => Just("<no value>".to_owned()),
        1 => Just("DatasourceNoData".to_owned()),
        4 => "[a-z]{1,6}(-[bcdf4-9]{8,10})?(-[a-z0-9]{5})?",
        4 => "(-|[a-z]{1,4}|[0-9]{1,10}|[bcdfghj24-9]{5}|\\u{e9}){0,5}",
        1 => any::<String>(),
        1 => "\\u{1f600}{0,1100}",
    ]
}

fn any_labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map(label_names(), label_values(), 0..10)
}

/// Returns texts in which masks find something.
pub(crate) fn any_text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("550e8400-e29b-41d4-a716-446655440000".to_owned()),
        Just("10.0.0.1".to_owned()),
        Just("fe80::1".to_owned()),
        Just("[::ffff:10.0.0.1]:80".to_owned()),
        Just("-x2k4p".to_owned()),
        Just("-6d9f7c5b84-x2k4p".to_owned()),
        "[0-9a-fx:.\\[\\] -]{1,12}",
        "[0-9]{1,3}",
        "[ :.,/_a-z-]{1,3}",
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

fn key_options() -> impl Strategy<Value = Value> {
    let source = prop_oneof![
        prop::sample::select(FIELDS.map(|(name, _)| name).to_vec()).prop_map(str::to_owned),
        label_names()
    ];
    let regex = prop::sample::select(vec![
        "(.*)",
        "(.+)/(.+)",
        "",
        "([^-]*)-(.*)",
        "(?i)SHOP.*",
        "a|ab",
        ".*(\\d+)",
        "(a*)*b",
    ]);
    let replacement = prop::sample::select(vec!["$1", "$1/$2", "", "x", "${1}-$3", "$$", "$1$1$1"]);
    let target = prop::sample::select(FIELDS.map(|(name, _)| name).to_vec());
    let replace = (prop::collection::vec(source, 1..3), "[;/]{0,2}", regex, target, replacement);
    let rule = (replace, any::<bool>()).prop_map(
        |((sources, separator, regex, target, replacement), is_lowercase)| {
            let mut rule =
                json!({"source_labels": sources, "separator": separator, "target_label": target});
            if is_lowercase {
                rule["action"] = "lowercase".into();
            } else {
                rule["regex"] = regex.into();
                rule["replacement"] = replacement.into();
            }
            rule
        },
    );
    let names = vec!["uuid", "ip", "pod_hash", "hex", "number"];
    let masks = prop::sample::subsequence(names, 0..=5).prop_shuffle();
    let mask = prop::array::uniform4(masks).prop_map(
        |[a, b, c, d]| json!({"alert_name": a, "service": b, "namespace": c, "error_type": d}),
    );
    (prop::collection::vec(rule, 0..4), mask, any::<bool>())
        .prop_map(|(relabel, mask, kubernetes)| {
            json!({"relabel": relabel, "mask": mask, "kubernetes": kubernetes})
        })
}

/// Applies one rule of `key.relabel`, as Prometheus' documents describe it.
fn model_of_rule(rule: &Value, fields: &mut [String; 4], labels: &Labels) {
    let index = |name: &str| FIELDS.iter().position(|(field, _)| *field == name);
    let value = |name: &str| match index(name) {
        Some(index) => fields[index].clone(),
        None => cut(labels.get(name).map_or("", String::as_str)),
    };
    let sources: Vec<String> = rule["source_labels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|source| value(source.as_str().unwrap()))
        .collect();
    let joined = sources.join(rule["separator"].as_str().unwrap());
    let target = index(rule["target_label"].as_str().unwrap()).unwrap();
    if rule["action"] == "lowercase" {
        fields[target] = cut(&joined.to_lowercase());
        return;
    }
    let pattern = format!("(?s)\\A(?:{})\\z", rule["regex"].as_str().unwrap());
    let Some(groups) = regex::Regex::new(&pattern).unwrap().captures(&joined) else { return };
    let group = |number| groups.get(number).map_or("", |group| group.as_str());
    let replaced = match rule["replacement"].as_str().unwrap() {
        "$1" => group(1).to_owned(),
        "$1/$2" => format!("{}/{}", group(1), group(2)),
        "${1}-$3" => format!("{}-{}", group(1), group(3)),
        "$$" => "$".to_owned(),
        "$1$1$1" => group(1).repeat(3),
        other => other.to_owned(),
    };
    fields[target] = cut(&replaced);
}

fn cut(text: &str) -> String {
    text.chars().take(1_024).collect()
}

fn posted_fields(labels: &Labels) -> [String; 4] {
    let posted = |name: &str| labels.get(name).cloned();
    FIELDS.map(|(name, alias)| posted(name).or_else(|| posted(alias)).unwrap_or_default())
}

proptest! {
    #[test]
    fn the_webhook_maps_labels_as_the_documents_say(labels in any_labels()) {
        let labels: Labels = labels.into_iter().map(|(name, text)| (name, cut(&text))).collect();
        let expected = model_of_webhook(&labels);
        let found = mapped(&KeyMapping::default(), PostedTo::Webhook, &labels);
        if expected.iter().all(String::is_empty) {
            // If anything was posted, the posted fields are used.
            let posted = posted_fields(&labels);
            prop_assert_eq!(found, posted.iter().any(|text| !text.is_empty()).then_some(posted));
        } else {
            prop_assert_eq!(found, Some(expected));
        }
    }

    #[test]
    fn two_pods_of_a_workload_are_one_service_and_two_workloads_are_two(
        workloads in prop::array::uniform2("[a-z]([a-z]{0,10}-)?[aeiou]{1,10}"),
        template in "[bcdf456789]{8,10}",
        suffixes in prop::array::uniform2("[bcdfghjklmnpqrstvwxz2456789]{5}"),
        ordinals in prop::array::uniform2(0..200_u32),
    ) {
        let service = |pod: String| {
            let labels = [("alertname", "A"), ("job", "kube-state-metrics"), ("pod", &pod)];
            let labels = labels.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
            let [_, service, ..] =
                mapped(&KeyMapping::default(), PostedTo::Webhook, &labels).unwrap();
            service
        };
        for workload in &workloads {
            for (suffix, ordinal) in suffixes.iter().zip(ordinals) {
                for pod in [
                    format!("{workload}-{template}-{suffix}"),
                    format!("{workload}-{suffix}"),
                    format!("{workload}-{ordinal}"),
                ] {
                    prop_assert_eq!(&service(pod), workload);
                }
            }
        }
    }

    #[test]
    fn rules_apply_one_after_the_other(labels in any_labels(), options in key_options()) {
        let mut options = options;
        options["mask"] = json!({});
        options["kubernetes"] = false.into();
        let labels: Labels = labels.into_iter().map(|(name, text)| (name, cut(&text))).collect();
        let posted = posted_fields(&labels);
        let mut expected = posted.clone();
        for rule in options["relabel"].as_array().unwrap() {
            model_of_rule(rule, &mut expected, &labels);
        }
        if expected.iter().all(String::is_empty) {
            expected = posted;
        }
        let is_anything = expected.iter().any(|text| !text.is_empty());
        let found = mapped(&mapping(&options, true), PostedTo::Anomalies, &labels);
        prop_assert_eq!(found, is_anything.then_some(expected));
    }

    #[test]
    fn what_is_stored_reads_back_as_the_same_anomaly(
        labels in any_labels(),
        text in any_text(),
        options in key_options(),
        on_webhook: bool,
        max_metadata_bytes in prop_oneof![Just(usize::MAX), 0..300_usize],
    ) {
        let mut labels = labels;
        labels.insert("reason".to_owned(), text);
        let object = json!(labels).to_string();
        let keys = mapping(&options, on_webhook);
        let config = AnomalyConfig { max_metadata_bytes };
        for to in [PostedTo::Anomalies, PostedTo::Webhook] {
            let posted = keys.read(to, &object).unwrap();
            let Ok(found) = keys.map(&posted) else { continue };
            let stored = match to {
                PostedTo::Anomalies if found.is_mapped() => {
                    SignatureJson::of_mapped(&object, &found.replaced, config)
                }
                PostedTo::Anomalies => SignatureJson::of_posted(&object, config),
                PostedTo::Webhook => {
                    let labels = serde_json::from_str::<&RawValue>(&object).unwrap();
                    let cut = posted.cut_labels();
                    SignatureJson::of_alert(labels, None, &cut, &found.replaced, config)
                }
            };
            let stored: Map<String, Value> = serde_json::from_str(&stored.to_stored()).unwrap();
            let read_back = Signature::from_fields(&stored);
            prop_assert_eq!(read_back.as_ref(), Ok(&found.signature));
            let explained = keys.explain(&posted).unwrap();
            prop_assert_eq!(explained.key, found.signature.key());
            prop_assert_eq!(
                found.is_mapped(),
                explained.posted_key != Some(explained.key),
                "{:?}", explained
            );
        }
    }

    #[test]
    fn without_options_an_occurrence_is_what_it_is(labels in any_labels()) {
        let keys = KeyMapping::default();
        let object: Map<String, Value> =
            labels.iter().map(|(name, text)| (name.clone(), text.clone().into())).collect();
        let text = json!(object).to_string();
        let posted = keys.read(PostedTo::Anomalies, &text).unwrap();
        let found = keys.map(&posted).map(|found| (found.is_mapped(), found.signature));
        prop_assert_eq!(found, Signature::from_fields(&object).map(|plain| (false, plain)));
        let copied = SignatureJson::of_mapped(&text, &[], UNBOUNDED);
        prop_assert_eq!(copied, SignatureJson::of_posted(&text, UNBOUNDED));
    }
}
