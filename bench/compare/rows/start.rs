//! The time from the start of the service until it is ready: on a store that is nearly empty, and
//! on an embedded store with a million events.

use super::{restart_seconds, row};
use crate::{
    Outcome,
    bench::Bench,
    load::fill,
    markdown::grouped,
    service::{Service, Store},
    table::{Goal, Line},
    workload::{Anomaly, array},
};

const EVENTS: u64 = 1_000_000;
/// Number of keys, of 200 events each: as many as a large deployment has at a time.
const KEYS: u64 = 5_000;
const ARRAY_LENGTH: u64 = 1_000;

const EMPTY_GOAL_SECONDS: Goal = Goal::AtMost(0.2);
const FULL_GOAL_SECONDS: Goal = Goal::AtMost(5.0);

pub(crate) fn run(bench: &mut Bench, stores: &[Store]) -> Outcome<()> {
    for store in stores {
        let mut service = Service::on(*store)?;
        let seconds = restart_seconds(bench, &mut service)?;
        let line = Line::new(row("start", *store), "start, empty store", "seconds", seconds);
        bench.found(line.goal(EMPTY_GOAL_SECONDS));

        if *store == Store::Embedded {
            let anomalies: Vec<Anomaly> =
                (0..KEYS).map(|number| Anomaly::new(format!("busy-{number}"))).collect();
            let array_of = |number: u64| {
                let events = number * ARRAY_LENGTH..(number + 1) * ARRAY_LENGTH;
                array(events.map(|event| anomalies[(event % KEYS) as usize].body()))
            };
            let what = format!("{} events", grouped(EVENTS as f64));
            fill(bench, &what, service.port(), (EVENTS / ARRAY_LENGTH, ARRAY_LENGTH), array_of)?;
            let seconds = restart_seconds(bench, &mut service)?;
            service.must_have_counted(&anomalies, EVENTS)?;
            let what = format!("restart with {what}");
            let line = Line::new(row("start", *store), what, "seconds", seconds);
            bench.found(line.goal(FULL_GOAL_SECONDS));
        }
    }
    Ok(())
}
