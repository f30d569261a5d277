//! `GET /anomalies/{key}/frequency`, as dashboards call it.

use super::{ANOMALIES, beside_ceiling, per_second, row, services, storm};
use crate::{
    Outcome,
    bench::Bench,
    load::fill,
    service::{Ceiling, Store},
    table::{Goal, Line},
    workload::{Anomaly, random_arrays},
    wrk::Requests,
};

/// Number of arrays that are recorded before the reads: about a hundred occurrences of each
/// anomaly.
const ARRAYS: usize = 1_000;
const ARRAY_LENGTH: usize = 100;

fn goal(store: Store) -> Goal {
    match store {
        Store::Redis => Goal::RatioAtLeast(0.52),
        Store::Embedded => Goal::RatioAtLeast(0.9),
    }
}

pub(crate) fn run(bench: &mut Bench, stores: &[Store]) -> Outcome<()> {
    let anomalies = Anomaly::many(ANOMALIES);
    let requests = Requests::get(anomalies.iter().map(Anomaly::frequency_path))?;
    let (ceiling, services) = (Ceiling::start()?, services(stores)?);
    let arrays = random_arrays(&anomalies, ARRAYS, ARRAY_LENGTH);
    let size = (ARRAYS as u64, ARRAY_LENGTH as u64);
    for service in &services {
        let array = |number| arrays[number as usize].clone();
        fill(bench, "what is read", service.port(), size, array)?;
        service.must_have_counted(&anomalies, size.0 * size.1)?;
    }

    let mut loads = storm(bench, &requests, beside_ceiling(&ceiling, stores, &services))?;
    let of_ceiling = loads.remove(0);
    for (store, loads) in stores.iter().zip(&loads) {
        bench.found(
            Line::new(row("read", *store), "rate", "requests/s", per_second(loads))
                .against("ceiling", &per_second(&of_ceiling))
                .goal(goal(*store)),
        );
    }
    Ok(())
}
