//! `POST /anomalies` with one occurrence a request, the storm for which the service is built:
//! plain, with an id and a time in each body, and about anomalies with a history.

use super::{ANOMALIES, beside_ceiling, must_have_counted, per_second, row, services, storm};
use crate::{
    Outcome,
    bench::Bench,
    http::{Connection, post, send},
    load::fill,
    service::{Ceiling, Service, Store},
    stats::Samples,
    table::{Goal, Line},
    workload::{Anomaly, array, hours_ago},
    wrk::{Load, Requests},
};

const P99_GOAL: Goal = Goal::RatioAtMost(4.0);
/// The ages of the occurrences that an anomaly has before it is measured: each window begins
/// between two of them.
const HOURS: [i64; 5] = [20 * 24, 5 * 24, 20, 2, 0];
/// One in this many anomalies has a repair, and another one has a mark.
const EVERY: usize = 5;

fn plain_goal(store: Store) -> Goal {
    match store {
        Store::Redis => Goal::RatioAtLeast(0.6),
        Store::Embedded => Goal::RatioAtLeast(0.62),
    }
}

fn harder_goal(_: Store) -> Goal {
    Goal::RatioAtLeast(0.5)
}

pub(crate) fn run(bench: &mut Bench, stores: &[Store]) -> Outcome<()> {
    let anomalies = Anomaly::many(ANOMALIES);
    let requests = Requests::post(anomalies.iter().map(Anomaly::body))?;
    let services = services(stores)?;
    let measured = measure(bench, &requests, stores, &services, &anomalies)?;
    measured.found(bench, "post", plain_goal);
    for (store, loads) in stores.iter().zip(&measured.of_services) {
        let p99 = Line::new(row("post", *store), "p99", "µs", p99_us(loads));
        let p99 = p99.against("ceiling", &p99_us(&measured.of_ceiling));
        bench.found(if *store == Store::Redis { p99.goal(P99_GOAL) } else { p99 });
    }
    Ok(())
}

/// Measures bodies with an `event_id` of their own and the time at which they are sent.
pub(crate) fn run_with_ids(bench: &mut Bench, stores: &[Store]) -> Outcome<()> {
    let anomalies = Anomaly::many(ANOMALIES);
    let requests = Requests::post(anomalies.iter().map(Anomaly::body_with_id))?;
    let services = services(stores)?;
    let measured = measure(bench, &requests, stores, &services, &anomalies)?;
    measured.found(bench, "post-ids", harder_goal);
    Ok(())
}

/// Measures anomalies with occurrences in each window, some of which also have repairs or a mark.
pub(crate) fn run_aged(bench: &mut Bench, stores: &[Store]) -> Outcome<()> {
    let anomalies = Anomaly::many(ANOMALIES);
    let requests = Requests::post(anomalies.iter().map(Anomaly::body))?;
    let services = services(stores)?;
    services.iter().try_for_each(|service| age(bench, service, &anomalies))?;
    let measured = measure(bench, &requests, stores, &services, &anomalies)?;
    measured.found(bench, "post-aged", harder_goal);
    Ok(())
}

/// The loads of the ceiling, and of the service on each store.
struct Measured<'a> {
    stores: &'a [Store],
    of_ceiling: Vec<Load>,
    of_services: Vec<Vec<Load>>,
}

impl Measured<'_> {
    fn found(&self, bench: &mut Bench, group: &str, goal: fn(Store) -> Goal) {
        for (store, loads) in self.stores.iter().zip(&self.of_services) {
            let line = Line::new(row(group, *store), "rate", "requests/s", per_second(loads));
            let line = line.against("ceiling", &per_second(&self.of_ceiling));
            bench.found(line.goal(goal(*store)));
        }
    }
}

fn measure<'a>(
    bench: &Bench,
    requests: &Requests,
    stores: &'a [Store],
    services: &[Service],
    anomalies: &[Anomaly],
) -> Outcome<Measured<'a>> {
    let ceiling = Ceiling::start()?;
    let mut loads = storm(bench, requests, beside_ceiling(&ceiling, stores, services))?;
    let of_ceiling = loads.remove(0);
    must_have_counted(services, anomalies, &loads)?;
    Ok(Measured { stores, of_ceiling, of_services: loads })
}

/// Gives anomalies a history.
fn age(bench: &Bench, service: &Service, anomalies: &[Anomaly]) -> Outcome<()> {
    let size = (HOURS.len() as u64, anomalies.len() as u64);
    fill(bench, "a history", service.port(), size, |number| {
        let at = hours_ago(HOURS[number as usize]);
        array(anomalies.iter().map(|anomaly| anomaly.body_at(at)))
    })?;
    let mut connection = Connection::open(service.port())?;
    for (number, key) in anomalies.iter().map(Anomaly::key).enumerate() {
        if number % EVERY == 0 {
            let repair =
                format!(r#"{{"anomaly_key":"{key}","action":"restart_pod","success":false}}"#);
            connection.call(&post("/repairs", &repair))?;
        } else if number % EVERY == 1 {
            let mark = format!(r#"{{"anomaly_key":"{key}","fix_description":"raised the limit"}}"#);
            connection.call(&send("PUT", "/permanent-fix", &mark))?;
        }
    }
    Ok(())
}

fn p99_us(loads: &[Load]) -> Samples {
    Samples::of(loads, |load| load.p99_us)
}
