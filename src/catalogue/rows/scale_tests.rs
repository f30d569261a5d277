//! The memory and the time of a million rows. The test is ignored by default, because it measures
//! speed: `cargo test --release -- --ignored --nocapture a_million_rows`.

use std::{fs, time::Instant};

use serde_json::json;

use super::*;
use crate::{
    catalogue::{Estimates, ListQuery, SummaryQuery, listing::ListPass, summary::SummaryPass},
    domain::{LevelSet, Ranking, RuleSource, Selection, TextPattern, Thresholds, WindowCounts},
};

const SERVICES: usize = 2_000;
const NAMES: usize = 500;

fn resident_bytes() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}

#[test]
#[ignore = "it takes a while, and says how fast something is"]
fn a_million_rows() {
    let now = Timestamp::from_micros(1_774_799_738_000_000);
    let rows = Rows::new(2_000_000);
    let before = resident_bytes();
    let begun = Instant::now();
    let mut number = 0_u64;
    for service in 0..SERVICES {
        for name in 0..NAMES {
            number += 1;
            let (alert_name, service) = (format!("Alert{name}"), format!("service-{service}"));
            let namespace = format!("namespace-{}", number % 40);
            let find = |field: &str| match field {
                "alert_name" => Some(Ok(&*alert_name)),
                "service" => Some(Ok(&*service)),
                "namespace" => Some(Ok(&*namespace)),
                _ => None,
            };
            let signature = Signature::from_lookup(find).unwrap();
            let day = number.wrapping_mul(0x9e37_79b9) % 13;
            let seen = now.minus_seconds((number % 100_000) as i64);
            let stats = AnomalyStats {
                counts: WindowCounts { hour: day / 4, day, week: day * 2, month: day * 3 },
                first_seen: Some(seen.minus_seconds(500_000)),
                last_seen: Some(seen),
                ..AnomalyStats::default()
            };
            let noted = Noted {
                key: signature.key(),
                began_at: None,
                as_of: now,
                stats: &stats,
                rule: None,
                firing: NotedFiring::Unchanged,
                is_news: false,
            };
            rows.note(&noted, || Some(signature));
        }
    }
    let each = (resident_bytes() - before) / rows.len();
    println!("{} rows in {:?}, {each} bytes each", rows.len(), begun.elapsed());

    let pattern = |text: &str| vec![TextPattern::parse(text).unwrap()];
    let all = Selection::default();
    let by_text = Selection {
        fields: [pattern("*7"), vec![], pattern("namespace-1?"), vec![]],
        words: "service-1".parse().unwrap(),
        ..Selection::default()
    };
    let by_level = Selection {
        levels: Some("ESCALATE,PERMANENT_FIX".parse::<LevelSet>().unwrap()),
        ..Selection::default()
    };
    let rule = |number: usize| {
        let matchers = [format!("namespace=~\"namespace-{number}\""), "service!=\"x\"".to_owned()];
        let levels = json!({"REPEAT": ["2 in 24h"], "ESCALATE": ["4 in 6h"]});
        json!({"name": format!("r{number}"), "match": matchers, "levels": levels})
    };
    let fifty: Vec<_> = (0..50).map(rule).collect();
    for (which, rules) in [("the rule default", json!([])), ("50 rules", json!(fifty))] {
        let sources: Vec<RuleSource> = serde_json::from_str(&rules.to_string()).unwrap();
        let thresholds = Thresholds::new(3, 5, 10).unwrap();
        let set = Arc::new(RuleSet::parse(&sources, thresholds, 86_400, None).unwrap());
        for (what, selection) in [("all", &all), ("by texts", &by_text), ("by level", &by_level)] {
            let list = || ListQuery {
                selection: selection.clone(),
                ranking: Ranking::default(),
                limit: 50,
                after: None,
            };
            let times = (0..9).map(|_| {
                let (query, begun) = (list(), Instant::now());
                let mut pass = ListPass::new(&query, now, true);
                let judge = rows.judge(Arc::clone(&set));
                rows.scan(now, &Estimates::new(), &judge, &mut pass);
                rows.dismiss(judge);
                let page = pass.finish();
                (begun.elapsed(), page.total)
            });
            println!("{which}: list, {what}: {:?}", times.min().unwrap());
            let times = (0..9).map(|_| {
                let selection = selection.clone();
                let (query, begun) =
                    (SummaryQuery { selection, by: vec![1, 2], top: 10 }, Instant::now());
                let mut pass = SummaryPass::new(&query, now);
                let judge = rows.judge(Arc::clone(&set));
                rows.scan(now, &Estimates::new(), &judge, &mut pass);
                rows.dismiss(judge);
                let summary = pass.finish();
                (begun.elapsed(), summary.anomalies)
            });
            println!("{which}: summary, {what}: {:?}", times.min().unwrap());
        }
    }
}
