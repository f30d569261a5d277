//! Lists and summaries of rows that come and go, against a model of them.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};

use super::{
    Estimates, ListQuery, SummaryQuery,
    listing::ListPass,
    noted::{Noted, NotedFiring},
    rows::Rows,
    summary::SummaryPass,
};
use crate::domain::{
    AnomalyKey, AnomalyStats, Ranking, RuleSet, Selection, Signature, TextPattern, Thresholds,
    Timestamp, WindowCounts,
};

fn now() -> Timestamp {
    Timestamp::from_micros(1_774_799_738_000_000)
}

fn rules() -> RuleSet {
    RuleSet::parse(&[], Thresholds::new(3, 5, 10).unwrap(), 86_400, None).unwrap()
}

fn signature(alert_name: &str, service: &str) -> Signature {
    let find = |name: &str| match name {
        "alert_name" => Some(Ok(alert_name)),
        "service" => Some(Ok(service)),
        _ => None,
    };
    Signature::from_lookup(find).unwrap()
}

fn stats(day: u64) -> AnomalyStats {
    let counts = WindowCounts { hour: 0, day, week: day, month: day };
    let seen = Some(now().minus_seconds(7_200));
    AnomalyStats { counts, first_seen: seen, last_seen: seen, ..AnomalyStats::default() }
}

/// A step: key, names, count of 24 hours, and whether the anomaly is noted or removed.
type Step = (u64, (String, String), u64, bool);

fn any_step() -> impl Strategy<Value = Step> {
    let names = ("[abc]{1,2}", "[xyz]?");
    (0..20_u64, names, 0..12_u64, prop::bool::weighted(0.3))
}

proptest! {
    #[test]
    fn a_pass_is_a_filtered_and_sorted_list_also_where_texts_have_come_and_gone(
        steps in vec(any_step(), 0..80),
        name in "[abc*?]{0,2}",
        limit in 1..30_usize,
    ) {
        let rows = Rows::new(1_000);
        let judge = rows.judge(rules().into());
        let mut model = BTreeMap::<AnomalyKey, (String, String, u64)>::new();
        for (number, (alert_name, service), day, is_removed) in steps {
            let key = AnomalyKey::from_bits(number << 58 | number);
            if is_removed {
                rows.remove(key);
                model.remove(&key);
                continue;
            }
            let (as_of, stats, firing) = (now(), stats(day), NotedFiring::Unchanged);
            let (began_at, stats, rule, is_news) = (None, &stats, None, true);
            let noted = Noted { key, began_at, as_of, stats, rule, firing, is_news };
            rows.note(&noted, || Some(signature(&alert_name, &service)));
            // The names of a key never change.
            let entry = model.entry(key).or_insert((alert_name, service, day));
            entry.2 = day;
        }
        let pattern = TextPattern::parse(&name).unwrap();
        let fields = [vec![pattern.clone()], vec![], vec![], vec![]];
        let selection = Selection { fields, ..Selection::default() };
        let mut expected: Vec<_> =
            model.iter().filter(|(_, (name, ..))| pattern.matches(name)).collect();
        expected.sort_by_key(|(key, (.., day))| (std::cmp::Reverse(*day), **key));

        let ranking = Ranking::default();
        let query = ListQuery { selection: selection.clone(), ranking, limit, after: None };
        let mut pass = ListPass::new(&query, now(), true);
        rows.scan(now(), &Estimates::new(), &judge, &mut pass);
        let page = pass.finish();
        prop_assert_eq!(page.total, expected.len() as u64);
        prop_assert!(page.total_is_exact);
        prop_assert_eq!(page.next.is_some(), expected.len() > limit);
        let listed: Vec<_> = page.anomalies.iter().map(|one| one.key).collect();
        let first: Vec<_> = expected.iter().take(limit).map(|(key, _)| **key).collect();
        prop_assert_eq!(listed, first);
        for one in &page.anomalies {
            let (alert_name, service, day) = &model[&one.key];
            prop_assert_eq!(one.signature.clone(), Some(signature(alert_name, service)));
            prop_assert_eq!(one.stats.counts.day, *day);
        }

        let query = SummaryQuery { selection, by: vec![1], top: 100 };
        let mut pass = SummaryPass::new(&query, now());
        rows.scan(now(), &Estimates::new(), &judge, &mut pass);
        let summary = pass.finish();
        prop_assert_eq!(summary.anomalies, expected.len() as u64);
        let sum: u64 = expected.iter().map(|(_, (.., day))| day).sum();
        prop_assert_eq!(summary.occurrences.day, sum);
        prop_assert_eq!(summary.levels.iter().sum::<u64>(), summary.anomalies);
        let mut by_service = BTreeMap::<&str, u64>::new();
        for (_, (_, service, _)) in &expected {
            *by_service.entry(service).or_default() += 1;
        }
        let (field, groups) = &summary.by[0];
        prop_assert_eq!((*field, groups.len()), (1, by_service.len()));
        for group in groups {
            let value = group.value.as_deref().unwrap();
            prop_assert_eq!(group.anomalies, by_service[value]);
        }
    }
}
