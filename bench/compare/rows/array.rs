//! `POST /anomalies` with arrays, as collectors send them, against the most that Redis can do.

use std::fmt;

use super::{ANOMALIES, CONNECTIONS, row, services};
use crate::{
    Outcome,
    bench::{Bench, Contestant},
    markdown::grouped,
    redis::RedisServer,
    service::Store,
    stats::Samples,
    table::{Goal, Line},
    workload::{Anomaly, random_arrays},
    wrk::Requests,
};

const ARRAYS: usize = 300;
const ARRAY_LENGTH: usize = 100;
/// Assumed number of ZADDs a second, until the first window has measured it.
const FIRST_GUESS: f64 = 100_000.0;

fn goal(store: Store) -> Goal {
    match store {
        Store::Redis => Goal::RatioAtLeast(0.55),
        Store::Embedded => Goal::RatioAtLeast(0.8),
    }
}

/// Occurrences, or ZADDs, in a window.
#[derive(Clone, Copy, Debug)]
struct Events {
    count: u64,
    per_second: f64,
}

impl fmt::Display for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events/s", grouped(self.per_second))
    }
}

pub(crate) fn run(bench: &mut Bench, stores: &[Store]) -> Outcome<()> {
    let anomalies = Anomaly::many(ANOMALIES);
    let requests = Requests::post(random_arrays(&anomalies, ARRAYS, ARRAY_LENGTH))?;
    let (raw, services) = (RedisServer::start()?, services(stores)?);

    let mut per_second = FIRST_GUESS;
    let mut contestants = vec![Contestant::new("raw ZADD", |window| {
        let count = (per_second * window.as_secs_f64()) as u64;
        per_second = raw.raw_zadd_per_second(count)?;
        Ok(Events { count, per_second })
    })];
    for (store, service) in stores.iter().zip(&services) {
        let (requests, port) = (&requests, service.port());
        contestants.push(Contestant::new(store.name(), move |window| {
            let load = requests.send(port, CONNECTIONS, window)?;
            let length = ARRAY_LENGTH as u64;
            let per_second = load.per_second() * length as f64;
            Ok(Events { count: load.requests * length, per_second })
        }));
    }

    let rates = |events: &[Events]| Samples::of(events, |events| events.per_second);
    let mut found = bench.take_turns(bench.settings.window, contestants)?;
    let of_raw = found.remove(0);
    for ((store, service), events) in stores.iter().zip(&services).zip(&found) {
        service.must_have_counted(&anomalies, events.iter().map(|events| events.count).sum())?;
        bench.found(
            Line::new(row("array", *store), "rate", "events/s", rates(events))
                .against("raw ZADD", &rates(&of_raw))
                .goal(goal(*store)),
        );
    }
    Ok(())
}
