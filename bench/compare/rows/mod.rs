//! The rows: one file each, in the order in which they run.

mod array;
mod bare;
mod curve;
mod key_depth;
mod many_keys;
mod one_client;
mod post;
mod read;
mod rules;
mod start;
mod two_instances;

use std::fmt::Write as _;

use crate::{
    Outcome,
    bench::{Bench, Contestant},
    service::{
        Ceiling, Service,
        Store::{self, Embedded, Redis},
    },
    stats::Samples,
    workload::Anomaly,
    wrk::{Load, Requests},
};

/// Number of connections of alert pipelines in a storm.
const CONNECTIONS: u16 = 64;
/// The default number of anomalies that are recorded and read.
const ANOMALIES: usize = 1_000;
const RESTARTS: usize = 5;

/// Rows of one kind, which have the same reference.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    about: &'static str,
    stores: &'static [Store],
    /// Approximate time with the default settings.
    pub(crate) seconds: u64,
    pub(crate) run: fn(&mut Bench, &[Store]) -> Outcome<()>,
}

const GROUPS: [Group; 13] = [
    Group {
        name: "post",
        about: "POST /anomalies, 64 connections, 1,000 keys, against the HTTP ceiling",
        stores: &[Redis, Embedded],
        seconds: 70,
        run: post::run,
    },
    Group {
        name: "post-ids",
        about: "the same with an event_id and occurred_at in each body",
        stores: &[Redis, Embedded],
        seconds: 70,
        run: post::run_with_ids,
    },
    Group {
        name: "post-aged",
        about: "the same with anomalies that are days old, some with repairs or a mark",
        stores: &[Redis, Embedded],
        seconds: 75,
        run: post::run_aged,
    },
    Group {
        name: "array",
        about: "POST of arrays of 100, against pipelined raw ZADD by redis-benchmark",
        stores: &[Redis, Embedded],
        seconds: 70,
        run: array::run,
    },
    Group {
        name: "read",
        about: "GET of a frequency, 64 connections, 1,000 keys, against the HTTP ceiling",
        stores: &[Redis, Embedded],
        seconds: 70,
        run: read::run,
    },
    Group {
        name: "bare",
        about: "POST and GET of a bare server on Redis against the ceiling, and of the service",
        stores: &[Redis],
        seconds: 140,
        run: bare::run,
    },
    Group {
        name: "one-client",
        about: "POST, one request at a time, against a PING of Redis and one of the ceiling",
        stores: &[Redis, Embedded],
        seconds: 50,
        run: one_client::run,
    },
    Group {
        name: "two-instances",
        about: "POST to two instances on one Redis, against one instance",
        stores: &[Redis],
        seconds: 50,
        run: two_instances::run,
    },
    Group {
        name: "rules",
        about: "POST with 50 rules, the last of which matches, against none",
        stores: &[Redis, Embedded],
        seconds: 100,
        run: rules::run,
    },
    Group {
        name: "start",
        about: "start until ready: empty, and with a million events on the embedded store",
        stores: &[Redis, Embedded],
        seconds: 40,
        run: start::run,
    },
    Group {
        name: "many-keys",
        about: "a million keys: record and read, memory of a quiet key, restart",
        stores: &[Redis, Embedded],
        seconds: 150,
        run: many_keys::run,
    },
    Group {
        name: "key-depth",
        about: "a key with ten to ten million occurrences: next record and read, memory in Redis",
        stores: &[Redis, Embedded],
        seconds: 285,
        run: key_depth::run,
    },
    Group {
        name: "curve",
        about: "throughput against latency at 1 to 256 connections, for the plot",
        stores: &[Redis, Embedded],
        seconds: 100,
        run: curve::run,
    },
];

/// Selected rows: a group, on some of its stores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selection {
    pub(crate) group: &'static Group,
    pub(crate) stores: &'static [Store],
}

/// Every row.
pub(crate) fn all() -> Vec<Selection> {
    GROUPS.iter().map(|group| Selection { group, stores: group.stores }).collect()
}

/// The rows with a name such as `post` or `post-redis`.
pub(crate) fn parse(name: &str) -> Result<Selection, String> {
    for group in &GROUPS {
        if name == group.name {
            return Ok(Selection { group, stores: group.stores });
        }
        for store in group.stores.chunks(1) {
            if name == row(group.name, store[0]) {
                return Ok(Selection { group, stores: store });
            }
        }
    }
    Err(format!("the row does not exist. {}", list()))
}

/// The names of all rows, as help.
pub(crate) fn list() -> String {
    let mut text = "Rows:\n".to_owned();
    for group in &GROUPS {
        let names: Vec<String> = group.stores.iter().map(|store| row(group.name, *store)).collect();
        // Writing to a String can't fail.
        let _ = writeln!(text, "  {}\n      {}", names.join(", "), group.about);
    }
    text
}

/// The name of a group's row on a store.
fn row(group: &str, store: Store) -> String {
    format!("{group}-{}", store.name())
}

fn per_second(rounds: &[Load]) -> Samples {
    Samples::of(rounds, Load::per_second)
}

/// Sends the same storm of requests to servers in turns.
fn storm(
    bench: &Bench,
    requests: &Requests,
    servers: Vec<(String, u16)>,
) -> Outcome<Vec<Vec<Load>>> {
    let contestant = |(name, port)| {
        Contestant::new(name, move |window| requests.send(port, CONNECTIONS, window))
    };
    let contestants = servers.into_iter().map(contestant).collect();
    bench.take_turns(bench.settings.window, contestants)
}

/// Fails if one of `services` is degraded, or has counted fewer occurrences than it acknowledged in
/// its storm of posts.
fn must_have_counted(
    services: &[Service],
    anomalies: &[Anomaly],
    posts: &[Vec<Load>],
) -> Outcome<()> {
    for (service, loads) in services.iter().zip(posts) {
        service.must_have_counted(anomalies, loads.iter().map(|load| load.requests).sum())?;
    }
    Ok(())
}

/// Restarts the service several times, and returns the times until it is ready.
fn restart_seconds(bench: &Bench, service: &mut Service) -> Outcome<Samples> {
    let mut seconds = Vec::new();
    for _ in 0..RESTARTS {
        let took = service.restart()?.as_secs_f64();
        bench.report(format!("ready again after {took:.2} s"));
        seconds.push(took);
    }
    Ok(Samples::new(seconds))
}

/// The service on each of `stores`.
fn services(stores: &[Store]) -> Outcome<Vec<Service>> {
    stores.iter().map(|store| Service::on(*store)).collect()
}

/// The ceiling, and the service on each of `stores`, by name and port.
fn beside_ceiling(ceiling: &Ceiling, stores: &[Store], services: &[Service]) -> Vec<(String, u16)> {
    let mut servers = vec![("ceiling".to_owned(), ceiling.port())];
    let named = |(store, service): (&Store, &Service)| (store.name().to_owned(), service.port());
    servers.extend(stores.iter().zip(services).map(named));
    servers
}
