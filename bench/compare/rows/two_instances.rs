//! Two instances of the service on one Redis: a second one should cost nothing. It can't gain much
//! either, because they share the machine.

use std::fmt;

use super::{ANOMALIES, CONNECTIONS, row};
use crate::{
    Outcome,
    bench::{Bench, Contestant},
    markdown::grouped,
    service::{Service, Store},
    stats::Samples,
    table::{Goal, Line},
    workload::Anomaly,
    wrk::{Load, Requests},
};

const GOAL: Goal = Goal::RatioAtLeast(0.95);

/// The loads of all instances.
#[derive(Clone, Debug)]
struct Total(Vec<Load>);

impl Total {
    fn per_second(&self) -> f64 {
        self.0.iter().map(Load::per_second).sum()
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s together", grouped(self.per_second()))
    }
}

pub(crate) fn run(bench: &mut Bench, stores: &[Store]) -> Outcome<()> {
    let anomalies = Anomaly::many(ANOMALIES);
    let requests = Requests::post(anomalies.iter().map(Anomaly::body))?;
    for store in stores {
        let first = Service::on(*store)?;
        let second = first.sibling()?;
        // The total number of connections is the same.
        let contestants = vec![
            Contestant::new("one", |window| {
                Ok(Total(vec![requests.send(first.port(), CONNECTIONS, window)?]))
            }),
            Contestant::new("two", |window| {
                let begin = |port| requests.begin(port, CONNECTIONS / 2, window);
                let (on_first, on_second) = (begin(first.port())?, begin(second.port())?);
                Ok(Total(vec![on_first.end()?, on_second.end()?]))
            }),
        ];
        let found = bench.take_turns(bench.settings.window, contestants)?;
        let loads = found.iter().flatten().flat_map(|total| &total.0);
        let acknowledged = loads.map(|load| load.requests).sum();
        first.must_have_counted(&anomalies, acknowledged)?;
        second.must_have_counted(&anomalies, acknowledged)?;
        let total = |totals: &[Total]| Samples::of(totals, Total::per_second);
        bench.found(
            Line::new(row("two-instances", *store), "rate", "requests/s", total(&found[1]))
                .against("one", &total(&found[0]))
                .goal(GOAL),
        );
    }
    Ok(())
}
