//! Throughput against latency: the same storm of POSTs from one connection to many. No goal, but the
//! plot that shows where the others' goals lie.

use std::time::Duration;

use super::{ANOMALIES, beside_ceiling, services};
use crate::{
    Outcome,
    bench::{Bench, Contestant, CurvePoint},
    service::{Ceiling, Store},
    stats::Samples,
    workload::Anomaly,
    wrk::Requests,
};

const CONNECTIONS: [u16; 5] = [1, 4, 16, 64, 256];
/// Short, since there are fifteen of them; a plot forgives some noise.
const WINDOW: Duration = Duration::from_secs(1);

pub(crate) fn run(bench: &mut Bench, stores: &[Store]) -> Outcome<()> {
    let anomalies = Anomaly::many(ANOMALIES);
    let requests = Requests::post(anomalies.iter().map(Anomaly::body))?;
    let (ceiling, services) = (Ceiling::start()?, services(stores)?);

    let mut places = Vec::new();
    for (name, port) in beside_ceiling(&ceiling, stores, &services) {
        places.extend(CONNECTIONS.map(|connections| (name.clone(), port, connections)));
    }
    let contestant = |(name, port, connections): &(String, u16, u16)| {
        let (port, connections, requests) = (*port, *connections, &requests);
        Contestant::new(format!("{name}, {connections} connections"), move |window| {
            requests.send(port, connections, window)
        })
    };
    let contestants = places.iter().map(contestant).collect();
    let found = bench.take_turns(WINDOW, contestants)?;
    for ((server, _, connections), loads) in places.into_iter().zip(&found) {
        bench.draw_curve(CurvePoint {
            server,
            connections,
            per_second: Samples::of(loads, |load| load.per_second()),
            p50_us: Samples::of(loads, |load| load.p50_us),
            p99_us: Samples::of(loads, |load| load.p99_us),
        });
    }
    Ok(())
}
