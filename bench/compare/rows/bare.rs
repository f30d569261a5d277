//! A bare server on Redis, which does no more than any such server must, between the ceiling and
//! the service: how much of the distance is Redis, and how much the service.

use super::{ANOMALIES, beside_ceiling, must_have_counted, per_second, row, services, storm};
use crate::{
    Outcome,
    bench::Bench,
    service::{Ceiling, Store},
    table::Line,
    workload::Anomaly,
    wrk::{Load, Requests},
};

pub(crate) fn run(bench: &mut Bench, stores: &[Store]) -> Outcome<()> {
    let anomalies = Anomaly::many(ANOMALIES);
    let posts = Requests::post(anomalies.iter().map(Anomaly::body))?;
    let reads = Requests::get(anomalies.iter().map(Anomaly::frequency_path))?;
    let (ceiling, bare, services) = (Ceiling::start()?, Ceiling::on_redis()?, services(stores)?);
    let mut servers = beside_ceiling(&ceiling, stores, &services);
    servers.insert(1, ("bare".to_owned(), bare.port()));

    let of_posts = storm(bench, &posts, servers.clone())?;
    must_have_counted(&services, &anomalies, &of_posts[2..])?;
    // Reads what was recorded just before.
    let of_reads = storm(bench, &reads, servers)?;
    found(bench, "POST", stores, &of_posts);
    found(bench, "GET", stores, &of_reads);
    Ok(())
}

/// Reports the loads of the ceiling, of the bare server, and of the service on each store.
fn found(bench: &mut Bench, method: &str, stores: &[Store], loads: &[Vec<Load>]) {
    let (of_ceiling, of_bare) = (per_second(&loads[0]), per_second(&loads[1]));
    for (store, of_service) in stores.iter().zip(&loads[2..]) {
        let line = |whose, rates| {
            let what = format!("{method} of the {whose}");
            Line::new(row("bare", *store), what, "requests/s", rates)
        };
        bench.found(line("bare server", of_bare.clone()).against("ceiling", &of_ceiling));
        bench.found(line("service", per_second(of_service)).against("bare", &of_bare));
    }
}
