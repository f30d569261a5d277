//! Fills a store before it is measured, with arrays over a few concurrent connections.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Outcome,
    bench::Bench,
    http::{Connection, post},
    markdown::grouped,
};

/// Number of connections: enough that the service always has a next batch. More would only compete
/// with it.
const CONNECTIONS: usize = 4;
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Posts `count` arrays of `length` occurrences, made by `array`, roughly in order.
pub(crate) fn fill(
    bench: &Bench,
    what: &str,
    port: u16,
    (count, length): (u64, u64),
    array: impl Fn(u64) -> String + Sync,
) -> Outcome<()> {
    let (begun, next) = (Instant::now(), AtomicU64::new(0));
    let post_all = || -> Outcome<()> {
        let mut connection = Connection::open(port)?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            connection.call(&post("/anomalies", &array(number)))?;
        }
    };
    thread::scope(|scope| {
        let loaders: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(post_all)).collect();
        let mut reported_at = Instant::now();
        while !loaders.iter().all(|loader| loader.is_finished()) {
            thread::sleep(Duration::from_millis(10));
            if reported_at.elapsed() > PROGRESS_INTERVAL {
                reported_at = Instant::now();
                let share = next.load(Ordering::Relaxed).min(count) * 100 / count;
                bench.report(format!("loading {what}: {share} %"));
            }
        }
        loaders.into_iter().try_for_each(|loader| match loader.join() {
            Ok(loaded) => loaded,
            Err(_) => Err("a loader has panicked".into()),
        })
    })?;
    let (seconds, events) = (begun.elapsed().as_secs_f64(), (count * length) as f64);
    let (total, rate) = (grouped(events), grouped(events / seconds));
    bench.report(format!("loaded {what}: {total} in {seconds:.1} s, {rate}/s"));
    Ok(())
}
