//! One client with one request at a time: the latency for a pipeline that shares no batch.

use std::{fmt, time::Duration};

use super::{ANOMALIES, row, services};
use crate::{
    Outcome,
    bench::{Bench, Contestant},
    redis::RedisServer,
    service::{Ceiling, Store},
    stats::Samples,
    table::{Goal, Line},
    workload::Anomaly,
    wrk::Requests,
};

const WINDOW: Duration = Duration::from_secs(2);
const GOAL: Goal = Goal::RatioAtMost(1.5);

/// A median, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Latency(f64);

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:.0} µs", self.0)
    }
}

pub(crate) fn run(bench: &mut Bench, stores: &[Store]) -> Outcome<()> {
    let anomalies = Anomaly::many(ANOMALIES);
    let requests = Requests::post(anomalies.iter().map(Anomaly::body))?;
    let (ceiling, redis, services) = (Ceiling::start()?, RedisServer::start()?, services(stores)?);

    let mut client = redis.client()?;
    let post = |name: &'static str, port| {
        let requests = &requests;
        let measure = move |window| Ok(Latency(requests.send(port, 1, window)?.p50_us));
        Contestant::new(name, measure)
    };
    let mut contestants = vec![
        Contestant::new("PING", |window| client.ping_us(window).map(Latency)),
        post("ceiling", ceiling.port()),
    ];
    let served = stores.iter().zip(&services);
    contestants.extend(served.map(|(store, service)| post(store.name(), service.port())));

    let found = bench.take_turns(WINDOW.min(bench.settings.window), contestants)?;
    let us = |latencies: &[Latency]| Samples::of(latencies, |latency| latency.0);
    // The minimum is two round trips: that of the request and that of the command.
    let least = us(&found[0]).plus(&us(&found[1]));
    for (store, latencies) in stores.iter().zip(&found[2..]) {
        let line = Line::new(row("one-client", *store), "p50", "µs", us(latencies));
        let line = line.against("PING + ceiling", &least);
        bench.found(if *store == Store::Redis { line.goal(GOAL) } else { line });
    }
    Ok(())
}
