//! `POST /anomalies` with one occurrence a request: the storm for which the service is built.

use super::{ANOMALIES, beside_ceiling, per_second, row, services, storm};
use crate::{
    Outcome,
    bench::Bench,
    service::{Ceiling, Store},
    stats::Samples,
    table::{Goal, Line},
    workload::Anomaly,
    wrk::{Load, Requests},
};

const P99_GOAL: Goal = Goal::RatioAtMost(4.0);

fn rate_goal(store: Store) -> Goal {
    match store {
        Store::Redis => Goal::RatioAtLeast(0.6),
        Store::Embedded => Goal::RatioAtLeast(0.75),
    }
}

pub(crate) fn run(bench: &mut Bench, stores: &[Store]) -> Outcome<()> {
    let anomalies = Anomaly::many(ANOMALIES);
    let requests = Requests::post(anomalies.iter().map(Anomaly::body))?;
    let (ceiling, services) = (Ceiling::start()?, services(stores)?);

    let mut loads = storm(bench, &requests, beside_ceiling(&ceiling, stores, &services))?;
    let of_ceiling = loads.remove(0);
    for ((store, service), loads) in stores.iter().zip(&services).zip(&loads) {
        service.must_have_counted(&anomalies, loads.iter().map(|load| load.requests).sum())?;
        let name = row("post", *store);
        bench.found(
            Line::new(&name, "rate", "requests/s", per_second(loads))
                .against("ceiling", &per_second(&of_ceiling))
                .goal(rate_goal(*store)),
        );
        let p99 = Line::new(&name, "p99", "µs", p99_us(loads));
        let p99 = p99.against("ceiling", &p99_us(&of_ceiling));
        bench.found(if *store == Store::Redis { p99.goal(P99_GOAL) } else { p99 });
    }
    Ok(())
}

fn p99_us(loads: &[Load]) -> Samples {
    Samples::of(loads, |load| load.p99_us)
}
