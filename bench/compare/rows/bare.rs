//! A bare server on Redis, which does no more than any such server must, between the ceiling and
//! the service: how much of the distance is Redis, and how much the service.

use super::{ANOMALIES, per_second, row, storm};
use crate::{
    Outcome,
    bench::Bench,
    service::{Ceiling, Service, Store},
    table::Line,
    workload::Anomaly,
    wrk::Requests,
};

pub(crate) fn run(bench: &mut Bench, stores: &[Store]) -> Outcome<()> {
    let anomalies = Anomaly::many(ANOMALIES);
    let posts = Requests::post(anomalies.iter().map(Anomaly::body))?;
    // Reads what was recorded just before.
    let reads = Requests::get(anomalies.iter().map(Anomaly::frequency_path))?;
    for store in stores {
        let ceiling = Ceiling::start()?;
        let (bare, service) = (Ceiling::on_redis()?, Service::on(*store)?);
        for (name, requests) in [("POST", &posts), ("GET", &reads)] {
            let servers = [
                ("ceiling", ceiling.port()),
                ("bare", bare.port()),
                (store.name(), service.port()),
            ];
            let servers = servers.map(|(name, port)| (name.to_owned(), port)).to_vec();
            let loads = storm(bench, requests, servers)?;
            let [of_ceiling, of_bare, of_service] =
                [0, 1, 2].map(|index| per_second(&loads[index]));
            let line = |whose, rates| {
                Line::new(
                    row("bare", *store),
                    format!("{name} of the {whose}"),
                    "requests/s",
                    rates,
                )
            };
            bench.found(line("bare server", of_bare.clone()).against("ceiling", &of_ceiling));
            bench.found(line("service", of_service).against("bare", &of_bare));
        }
    }
    Ok(())
}
