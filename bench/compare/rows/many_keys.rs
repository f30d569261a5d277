//! A million anomalies: the speed of calls among many, the memory of a quiet one, and the time that
//! the embedded store takes to read them all at its start.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{CONNECTIONS, per_second, restart_seconds, row};
use crate::{
    Outcome,
    bench::{Bench, Contestant},
    http::{Connection, get},
    load::fill,
    markdown::grouped,
    service::{Service, Store},
    stats::Samples,
    table::{Goal, Line},
    workload::{Anomaly, array},
    wrk::Requests,
};

const FEW: u64 = 1_000;
const ARRAY_LENGTH: u64 = 1_000;
/// The number of keys that are recorded and read, evenly chosen: rendering requests for all of them
/// takes the load generator longer than the window.
const SAMPLE: u64 = 50_000;
const WINDOW: Duration = Duration::from_secs(2);
/// Pause in which the service catches up with deferred work.
const REST: Duration = Duration::from_secs(3);

/// Number of alert names. Every service has an anomaly of each.
const NAMES: u64 = 500;
/// Number of requests for each list.
const LISTS: usize = 10;

/// Goal of a rate: at most a fifth slower.
const RATE_GOAL: Goal = Goal::RatioAtLeast(1.0 / 1.2);
const MEMORY_GOAL_BYTES: Goal = Goal::AtMost(300.0);
/// Goals of a list, by store: the embedded store is scanned; on Redis, the catalogue has a row for
/// each anomaly.
const LIST_GOAL_MS: [Goal; 2] = [Goal::AtMost(250.0), Goal::AtMost(20.0)];
const RESTART_GOAL_SECONDS: Goal = Goal::AtMost(5.0);

pub(crate) fn run(bench: &mut Bench, stores: &[Store]) -> Outcome<()> {
    for store in stores {
        let few = Service::on(*store)?;
        record_each(bench, FEW, few.port())?;
        let mut many = Service::on(*store)?;
        let count = bench.settings.many_keys;
        // The first array also causes allocations that belong to no key, so it is not measured.
        record_each(bench, ARRAY_LENGTH, many.port())?;
        let before = many.resident_bytes()?;
        record_each(bench, count, many.port())?;
        thread::sleep(REST);
        let grown = many.resident_bytes()?.saturating_sub(before);
        let sample: Vec<Anomaly> =
            (0..SAMPLE).map(|number| anomaly(number * count / SAMPLE)).collect();
        many.must_have_counted(&sample[..1_000], 1_000)?;

        if *store == Store::Embedded {
            let each = Samples::new(vec![grown as f64 / count as f64]);
            let line = Line::new(row("many-keys", *store), "memory a quiet key", "bytes", each);
            bench.found(line.goal(MEMORY_GOAL_BYTES));
        }
        lists(bench, *store, &many)?;
        rates(bench, *store, (&few, &many), &sample)?;
        if *store == Store::Embedded {
            restarts(bench, &mut many, &sample)?;
        }
    }
    Ok(())
}

fn anomaly(number: u64) -> Anomaly {
    Anomaly::named(format!("Alert{}", number % NAMES), format!("quiet-{}", number / NAMES))
}

/// Records one occurrence of each of `count` anomalies.
fn record_each(bench: &Bench, count: u64, port: u16) -> Outcome<()> {
    let array_of = |number: u64| {
        let first = number * ARRAY_LENGTH;
        array((first..count.min(first + ARRAY_LENGTH)).map(|number| anomaly(number).body()))
    };
    let size = (count.div_ceil(ARRAY_LENGTH), ARRAY_LENGTH);
    fill(bench, &format!("{} keys", grouped(count as f64)), port, size, array_of)
}

/// Measures the time of a list and of a summary, one after the other.
fn lists(bench: &mut Bench, store: Store, service: &Service) -> Outcome<()> {
    let mut connection = Connection::open(service.port())?;
    let keys = format!("{} keys", grouped(bench.settings.many_keys as f64));
    let history = format!("/anomalies/{}/history?window=7d", anomaly(0).key());
    for (what, path) in [
        ("list", "/anomalies"),
        ("list by patterns", "/anomalies?alert_name=*7&service=quiet-1*"),
        ("list with series", "/anomalies?series=24h"),
        ("summary", "/summary?by=service"),
        ("history of 7 days", &history),
    ] {
        let request = get(path);
        let mut times = Vec::with_capacity(LISTS);
        for _ in 0..LISTS {
            let begun = Instant::now();
            connection.call(&request)?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        let [embedded, redis] = LIST_GOAL_MS;
        let goal = if store == Store::Embedded { embedded } else { redis };
        let what = format!("{what}, {keys}");
        let line = Line::new(row("many-keys", store), what, "ms", Samples::new(times));
        bench.found(line.goal(goal));
    }
    Ok(())
}

/// Compares records and reads among many keys with the same among few.
fn rates(
    bench: &mut Bench,
    store: Store,
    (few, many): (&Service, &Service),
    sample: &[Anomaly],
) -> Outcome<()> {
    let of_few: Vec<Anomaly> = (0..FEW).map(anomaly).collect();
    let records = |anomalies: &[Anomaly]| Requests::post(anomalies.iter().map(Anomaly::body));
    let reads =
        |anomalies: &[Anomaly]| Requests::get(anomalies.iter().map(Anomaly::frequency_path));
    let (few_name, many_name) = (
        format!("{} keys", grouped(FEW as f64)),
        format!("{} keys", grouped(bench.settings.many_keys as f64)),
    );
    let runs = [
        ("record", &few_name, few.port(), records(&of_few)?),
        ("record", &many_name, many.port(), records(sample)?),
        ("read", &few_name, few.port(), reads(&of_few)?),
        ("read", &many_name, many.port(), reads(sample)?),
    ];
    let contestants = runs
        .iter()
        .map(|(what, keys, port, requests)| {
            let name = format!("{}, {what} among {keys}", store.name());
            Contestant::new(name, |window| requests.send(*port, CONNECTIONS, window))
        })
        .collect();
    let found = bench.take_turns(WINDOW.min(bench.settings.window), contestants)?;
    for (what, pair) in ["record", "read"].into_iter().zip(found.chunks(2)) {
        let what = format!("{what}, {many_name}");
        bench.found(
            Line::new(row("many-keys", store), what, "requests/s", per_second(&pair[1]))
                .against(&few_name, &per_second(&pair[0]))
                .goal(RATE_GOAL),
        );
    }
    Ok(())
}

fn restarts(bench: &mut Bench, service: &mut Service, sample: &[Anomaly]) -> Outcome<()> {
    let seconds = restart_seconds(bench, service)?;
    service.must_have_counted(&sample[..1_000], 1_000)?;
    let what = format!("restart with {} keys", grouped(bench.settings.many_keys as f64));
    let line = Line::new(row("many-keys", Store::Embedded), what, "seconds", seconds);
    bench.found(line.goal(RESTART_GOAL_SECONDS));
    Ok(())
}
