//! The parts of names that Kubernetes appends: the hash of its template and a random suffix to a
//! pod's name, the ordinal to that of a StatefulSet's pod, the time to that of a CronJob's job.

use std::ops::RangeInclusive;

/// The letters and digits of hashes and suffixes (`SafeEncodeString` in Kubernetes'
/// `apimachinery/pkg/util/rand`): no vowels, so that they form no words.
const ALPHABET: &str = "bcdfghjklmnpqrstvwxz2456789";

const TEMPLATE_HASH_LENGTH: RangeInclusive<usize> = 8..=10;
const SUFFIX_LENGTH: RangeInclusive<usize> = 5..=5;

/// Length of the time: minutes since 1970, or seconds before Kubernetes 1.21.
const CRON_TIME_LENGTH: RangeInclusive<usize> = 8..=10;

/// Splits `-<suffix>` off the end.
fn split_suffix(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('-').filter(|(_, end)| is_of_alphabet(end, SUFFIX_LENGTH))
}

/// Splits `-<template hash>` off the end.
fn split_template_hash(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('-').filter(|(_, end)| is_of_alphabet(end, TEMPLATE_HASH_LENGTH))
}

fn is_of_alphabet(text: &str, length: RangeInclusive<usize>) -> bool {
    length.contains(&text.len()) && text.chars().all(|c| ALPHABET.contains(c))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the text before the hash at its end: `-<template hash>-<suffix>`, or `-<suffix>` alone
/// if it has a digit, because the end of `svc-https` could be a suffix too.
pub(super) fn before_hash(text: &str) -> Option<&str> {
    let (before, suffix) = split_suffix(text)?;
    match split_template_hash(before) {
        Some((before, _)) => Some(before),
        None => suffix.bytes().any(|byte| byte.is_ascii_digit()).then_some(before),
    }
}

/// Returns the name of the workload that a pod belongs to, or the pod's own name. Suffixes without
/// a digit are removed too, because 22 % of them have none.
pub(super) fn workload_of_pod(pod: &str) -> &str {
    let workload = match split_suffix(pod) {
        Some((before, _)) => match before.rsplit_once('-') {
            Some((name, end)) if is_of_alphabet(end, TEMPLATE_HASH_LENGTH) => name,
            Some((name, end)) if is_number(end) && CRON_TIME_LENGTH.contains(&end.len()) => name,
            _ => before,
        },
        None => without_number(pod),
    };
    if workload.is_empty() { pod } else { workload }
}

/// Returns a name without the number at its end: the ordinal of a pod, the time of a job.
pub(super) fn without_number(name: &str) -> &str {
    match name.rsplit_once('-') {
        Some((before, end)) if is_number(end) && !before.is_empty() => before,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_leads_to_its_workload() {
        for (pod, workload) in [
            ("cart-6d9f7c5b8-x2k4p", "cart"),
            ("cart-6d9f7c5b84-bcdfg", "cart"),
            ("node-exporter-x2k4p", "node-exporter"),
            ("agent-2-x2k4p", "agent-2"),
            ("api-2-6d9f7c5b8-x2k4p", "api-2"),
            ("postgres-0", "postgres"),
            ("postgres-replica-12", "postgres-replica"),
            ("kafka-24567", "kafka"),
            ("kafka-12345", "kafka"),
            ("backup-28391040-x2k4p", "backup"),
            ("backup-1617181920-bcdfg", "backup"),
            // A suffix has its alphabet and length: no vowels, no 0, 1 and 3.
            ("cart-6d9f7c5b8-x2k4a", "cart-6d9f7c5b8-x2k4a"),
            ("cart-6d9f7c5b8-x2k4", "cart-6d9f7c5b8-x2k4"),
            ("cart-6d9f7c5-x2k4p", "cart-6d9f7c5"),
            // Words that could be a suffix are removed.
            ("api-v2245", "api"),
            ("svc-https", "svc"),
            ("cart", "cart"),
            ("", ""),
            ("-", "-"),
            ("-x2k4p", "-x2k4p"),
            ("-6d9f7c5b8-x2k4p", "-6d9f7c5b8-x2k4p"),
            ("-0", "-0"),
            (
                "caf\u{e9}-\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
                "caf\u{e9}-\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
            ),
            ("\u{1f600}-x2k4p", "\u{1f600}"),
            ("cart-\u{0663}", "cart-\u{0663}"),
        ] {
            assert_eq!(workload_of_pod(pod), workload, "{pod}");
        }
    }

    #[test]
    fn the_time_of_a_job_is_taken_off() {
        for (job, workload) in [
            ("backup-28391040", "backup"),
            ("migrate-2", "migrate"),
            ("migrate", "migrate"),
            ("migrate-v2", "migrate-v2"),
            ("-28391040", "-28391040"),
            ("28391040", "28391040"),
        ] {
            assert_eq!(without_number(job), workload, "{job}");
        }
    }

    #[test]
    fn a_hash_is_found_at_the_end_only() {
        for (text, before) in [
            ("cart-6d9f7c5b8-x2k4p", Some("cart")),
            ("cart-bcdfghjk-bcdfg", Some("cart")),
            ("cart-x2k4p", Some("cart")),
            ("api-v2245", Some("api")),
            ("svc-https", None),
            ("cart-6d9f7c5b8-x2k4p in shop", None),
            ("x2k4p", None),
        ] {
            assert_eq!(before_hash(text), before, "{text}");
        }
    }
}
