//! The cost of the next record and read of a key by its number of occurrences, and its memory in
//! Redis.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anomaly_counter::{counter::SystemClock, domain::Timestamp};

use super::row;
use crate::{
    Outcome,
    bench::{Bench, Contestant, DepthPoint},
    http::{Connection, get, post},
    load::fill,
    markdown::grouped,
    redis::{Client, RedisServer},
    service::{Service, Store},
    stats::{Samples, median},
    table::{Goal, Line},
    workload::{Anomaly, array},
};

/// Numbers of occurrences of a key. The first is the reference of the others.
const DEPTHS: [u64; 4] = [10, 10_000, 1_000_000, 10_000_000];
/// The number of calls that a round times, one after the other, and of those before the first
/// round. Each shallow key is recorded only once, because it would not stay shallow.
const CALLS: usize = 300;
const ARRAY_LENGTH: u64 = 1_000;
/// Time over which the occurrences of a key are spread.
const SPREAD_SECONDS: u64 = 29 * 86_400;

const TIME_GOAL: Goal = Goal::RatioAtMost(1.3);
const MEMORY_GOAL_BYTES: Goal = Goal::AtMost(1_500_000.0);
const SMALL_MEMORY_GOAL: Goal = Goal::RatioAtMost(1.0);

/// Median times of single calls, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Cost {
    record_us: f64,
    read_us: f64,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {:.0} µs, read {:.0} µs", self.record_us, self.read_us)
    }
}

pub(crate) fn run(bench: &mut Bench, stores: &[Store]) -> Outcome<()> {
    for store in stores {
        let service = Service::on(*store)?;
        depths(bench, *store, &service)?;
        if *store == Store::Redis {
            memory(bench, &service)?;
        }
    }
    Ok(())
}

/// Keys of the same depth. Each call takes the next one.
struct Depth {
    events: u64,
    keys: Vec<Anomaly>,
    calls: usize,
}

impl Depth {
    fn new(events: u64, rounds: u64) -> Self {
        // A few more occurrences do not change a deep key, so one is enough.
        let keys = if events <= DEPTHS[0] { CALLS * (rounds as usize + 1) } else { 1 };
        let keys = (0..keys).map(|number| Anomaly::new(format!("deep-{events}-{number}")));
        Self { events, keys: keys.collect(), calls: 0 }
    }

    fn name(&self) -> String {
        format!("{} events", grouped(self.events as f64))
    }

    /// Gives each key its occurrences, in ascending order of time.
    fn fill(&self, bench: &Bench, port: u16) -> Outcome<()> {
        let total = self.events * self.keys.len() as u64;
        let start = SystemClock.now().minus_seconds(SPREAD_SECONDS as i64);
        let occurrence = |number: u64| {
            let keys = self.keys.len() as u64;
            let offset = SPREAD_SECONDS * 1_000_000 / self.events * (number / keys);
            let at = Timestamp::from_micros(start.as_micros() + offset as i64);
            self.keys[(number % keys) as usize].body_at(at)
        };
        let array_of = |number: u64| {
            let first = number * ARRAY_LENGTH;
            array((first..total.min(first + ARRAY_LENGTH)).map(occurrence))
        };
        let size = (total.div_ceil(ARRAY_LENGTH), ARRAY_LENGTH);
        fill(bench, &format!("keys of {}", self.name()), port, size, array_of)
    }

    /// Times calls for its keys.
    fn cost(&mut self, connection: &mut Connection) -> Outcome<Cost> {
        let (mut record_us, mut read_us) = (Vec::new(), Vec::new());
        for _ in 0..CALLS {
            let key = &self.keys[self.calls % self.keys.len()];
            self.calls += 1;
            let (record, read) = (post("/anomalies", &key.body()), get(&key.frequency_path()));
            record_us.push(timed_us(connection, &record)?);
            read_us.push(timed_us(connection, &read)?);
        }
        Ok(Cost { record_us: median(&record_us), read_us: median(&read_us) })
    }
}

fn timed_us(connection: &mut Connection, request: &[u8]) -> Outcome<f64> {
    let begun = Instant::now();
    connection.call(request)?;
    Ok(begun.elapsed().as_secs_f64() * 1e6)
}

fn depths(bench: &mut Bench, store: Store, service: &Service) -> Outcome<()> {
    let within = DEPTHS.into_iter().filter(|depth| *depth <= bench.settings.max_depth);
    let mut depths: Vec<Depth> =
        within.map(|events| Depth::new(events, bench.settings.rounds)).collect();
    for depth in &depths {
        depth.fill(bench, service.port())?;
        service.must_have_counted(&depth.keys, depth.events * depth.keys.len() as u64)?;
    }
    let names: Vec<String> = depths.iter().map(Depth::name).collect();

    let mut contestants = Vec::new();
    for depth in &mut depths {
        let mut connection = Connection::open(service.port())?;
        let name = format!("{}, {}", store.name(), depth.name());
        contestants.push(Contestant::new(name, move |_| depth.cost(&mut connection)));
    }
    let costs = bench.take_turns(Duration::ZERO, contestants)?;

    let record_us = |costs: &[Cost]| Samples::of(costs, |cost| cost.record_us);
    let read_us = |costs: &[Cost]| Samples::of(costs, |cost| cost.read_us);
    for (depth, costs) in depths.iter().zip(&costs) {
        bench.draw_depth(DepthPoint {
            store: store.name(),
            events: depth.events,
            record_us: record_us(costs),
            read_us: read_us(costs),
        });
    }
    let name = row("key-depth", store);
    for (depth, of_depth) in names.iter().zip(&costs).skip(1) {
        for (what, us) in [("record", record_us as fn(&[Cost]) -> Samples), ("read", read_us)] {
            let line = Line::new(&name, format!("next {what} of {depth}"), "µs", us(of_depth));
            bench.found(line.against(&names[0], &us(&costs[0])).goal(TIME_GOAL));
        }
    }
    if let Some(deepest) = depths.last().filter(|_| store == Store::Redis) {
        let bytes = service.redis()?.client()?.memory_bytes(&all_of(&deepest.keys[0]))?;
        let what = format!("Redis memory of {}", deepest.name());
        let line = Line::new(name, what, "bytes", Samples::new(vec![bytes as f64]));
        bench.found(line.goal(MEMORY_GOAL_BYTES));
    }
    Ok(())
}

/// Compares the memory of an anomaly with three events to that in the layout of the older Python
/// service.
fn memory(bench: &mut Bench, service: &Service) -> Outcome<()> {
    let (own, older) = (Anomaly::new("three-own"), Anomaly::new("three-old"));
    let mut connection = Connection::open(service.port())?;
    for _ in 0..3 {
        connection.call(&post("/anomalies", &own.body()))?;
    }
    let redis: &RedisServer = service.redis()?;
    let mut client = redis.client()?;
    record_as_older_service(&mut client, &older)?;
    let mut bytes = |anomaly| client.memory_bytes(&all_of(anomaly));
    let (own, older) = (bytes(&own)? as f64, bytes(&older)? as f64);
    bench.found(
        Line::new("key-depth-redis", "Redis memory of 3 events", "bytes", Samples::new(vec![own]))
            .against("older layout", &Samples::new(vec![older]))
            .goal(SMALL_MEMORY_GOAL),
    );
    Ok(())
}

/// Writes three events as that service does: members are times as text, and times have no zone.
fn record_as_older_service(client: &mut Client, anomaly: &Anomaly) -> Outcome<()> {
    const TTL_SECONDS: &str = "3024000";
    let timeline = format!("anomaly:timeline:{}", anomaly.key());
    for time in ["1774799738.123456", "1774799798.234567", "1774799858.345678"] {
        client.run(&["ZADD", &timeline, time, time])?;
    }
    client.run(&["EXPIRE", &timeline, TTL_SECONDS])?;
    let metadata = format!("anomaly:metadata:{}", anomaly.key());
    let first_seen = "2026-03-29T15:55:38.123456";
    client.run(&["HSET", &metadata, "signature", &anomaly.body(), "first_seen", first_seen])?;
    client.run(&["EXPIRE", &metadata, TTL_SECONDS])?;
    Ok(())
}

/// Returns a pattern that matches all Redis keys of an anomaly.
fn all_of(anomaly: &Anomaly) -> String {
    format!("*{}*", anomaly.key())
}
