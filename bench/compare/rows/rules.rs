//! Fifty rules, the last of which matches: they should cost nearly nothing.

use std::fmt::Write as _;

use super::{ANOMALIES, per_second, row, storm};
use crate::{
    Outcome,
    bench::Bench,
    service::{Service, Store},
    table::{Goal, Line},
    workload::Anomaly,
    wrk::Requests,
};

const GOAL: Goal = Goal::RatioAtLeast(0.95);
const RULES: usize = 50;

pub(crate) fn run(bench: &mut Bench, stores: &[Store]) -> Outcome<()> {
    let anomalies = Anomaly::many(ANOMALIES);
    let requests = Requests::post(anomalies.iter().map(Anomaly::body))?;
    for store in stores {
        let without = Service::on(*store)?;
        let with = Service::configured(*store, &rules())?;
        let servers = vec![("none".to_owned(), without.port()), ("rules".to_owned(), with.port())];
        let loads = storm(bench, &requests, servers)?;
        for (service, loads) in [&without, &with].into_iter().zip(&loads) {
            let acknowledged = loads.iter().map(|load| load.requests).sum();
            service.must_have_counted(&anomalies, acknowledged)?;
        }
        bench.found(
            Line::new(row("rules", *store), "rate", "requests/s", per_second(&loads[1]))
                .against("none", &per_second(&loads[0]))
                .goal(GOAL),
        );
    }
    Ok(())
}

/// Rules with two matchers each, of which one is a regular expression. The last one takes all
/// anomalies, and counts in a window of its own.
fn rules() -> String {
    let mut text = String::new();
    let mut add = |name: usize, service: &str| {
        // Writing to a String can't fail.
        let _ = write!(
            text,
            "[[rules.rule]]\nname = \"rule-{name}\"\n\
             match = ['namespace!=\"dev\"', 'service=~\"{service}\"']\n\
             levels.REPEAT = [\"6 in 6h\"]\nlevels.ESCALATE = [\"12 in 24h\", \"8 in 1h\"]\n\
             levels.PERMANENT_FIX = [\"50 in 7d and 5 in 24h\"]\n\n"
        );
    };
    (1..RULES).for_each(|name| add(name, &format!("(team|group)-{name}-.*")));
    add(RULES, "svc-.*");
    text
}
