//! Throughput against latency: the same storm of POSTs over one to many connections. It has no
//! goal, but its plot shows where the other goals lie.

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
/// Length of a window: short, because there are fifteen and a plot tolerates some noise.
const WINDOW: Duration = Duration::from_secs(1);

pub(crate) fn run(bench: &mut Bench, stores: &[Store]) -> Outcome<()> {
    let anomalies = Anomaly::many(ANOMALIES);
    let requests = Requests::post(anomalies.iter().map(Anomaly::body))?;
    let (ceiling, services) = (Ceiling::start()?, services(stores)?);

    let mut runs = Vec::new();
    for (name, port) in beside_ceiling(&ceiling, stores, &services) {
        runs.extend(CONNECTIONS.map(|connections| (name.clone(), port, connections)));
    }
    let contestant = |(name, port, connections): &(String, u16, u16)| {
        let (port, connections, requests) = (*port, *connections, &requests);
        Contestant::new(format!("{name}, {connections} connections"), move |window| {
            requests.send(port, connections, window)
        })
    };
    let contestants = runs.iter().map(contestant).collect();
    let found = bench.take_turns(WINDOW, contestants)?;
    for ((server, _, connections), loads) in runs.into_iter().zip(&found) {
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
