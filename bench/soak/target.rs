//! One service under load: its anomalies, the acknowledged occurrences of each, and latencies.

use std::{
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    Outcome,
    http::{Connection, get, post},
    markdown::grouped,
    workload::{Anomaly, array},
};

/// The number of anomalies that are compared at the end, evenly chosen, beside the hot one.
const COMPARED: usize = 2_000;
const READY_PATIENCE: Duration = Duration::from_secs(30);

/// A service and the ledger of the occurrences that it has acknowledged.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) port: u16,
    /// The acknowledged occurrences of each anomaly.
    ledger: Vec<AtomicU32>,
    /// The number of anomalies, from the first one, that the service knows once it is filled.
    known: AtomicUsize,
    hot: AtomicU64,
    /// Occurrences of anomalies that were known before, without those of the hot one.
    spread: AtomicU64,
    calls: AtomicU64,
    /// Answers 202: Redis did not accept the write in time.
    degraded: AtomicU64,
    failures: AtomicU64,
    first_failure: Mutex<Option<String>>,
    /// Latencies of single calls since the last sample, in microseconds.
    latencies: Mutex<Vec<u32>>,
    pub(crate) must_end: AtomicBool,
}

/// Occurrences to record: anomalies by their number, or the hot one this many times.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Occurrences<'a> {
    First(&'a [usize]),
    Spread(&'a [usize]),
    Hot(usize),
}

impl Target {
    pub(crate) fn new(port: u16, keys: usize) -> Self {
        Self {
            port,
            ledger: (0..keys).map(|_| AtomicU32::new(0)).collect(),
            known: AtomicUsize::new(0),
            hot: AtomicU64::new(0),
            spread: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            degraded: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            first_failure: Mutex::default(),
            latencies: Mutex::default(),
            must_end: AtomicBool::new(false),
        }
    }

    /// Takes numbers of anomalies that are not recorded yet; none if there are enough.
    pub(crate) fn take_unknown(&self, count: usize) -> Vec<usize> {
        let first = self.known.fetch_add(count, Relaxed);
        (first..(first + count).min(self.ledger.len())).collect()
    }

    pub(crate) fn known(&self) -> usize {
        self.known.load(Relaxed).min(self.ledger.len())
    }

    /// Posts occurrences, a single one as an object, and adds the acknowledged ones to the ledger.
    pub(crate) fn record(&self, caller: &mut Caller<'_>, occurrences: Occurrences<'_>) {
        let (numbers, hot) = match occurrences {
            Occurrences::First(numbers) | Occurrences::Spread(numbers) => (numbers, 0),
            Occurrences::Hot(count) => (&[][..], count),
        };
        let mut bodies: Vec<String> =
            numbers.iter().map(|number| anomaly(*number).body()).collect();
        bodies.extend((0..hot).map(|_| hot_anomaly().body()));
        let count = bodies.len();
        let body = if count == 1 { bodies.remove(0) } else { array(bodies) };
        let Some(answer) = caller.call(&post("/anomalies", &body), count == 1) else { return };
        // Each element of an array has its own answer.
        let counted = answer.matches(r#""counted":true"#).count();
        if counted < count {
            self.failed(format!("{counted} of {count} occurrences are counted: {answer}"));
            return;
        }
        for number in numbers {
            self.ledger[*number].fetch_add(1, Relaxed);
        }
        self.hot.fetch_add(hot as u64, Relaxed);
        if let Occurrences::Spread(numbers) = occurrences {
            self.spread.fetch_add(numbers.len() as u64, Relaxed);
        }
    }

    pub(crate) fn failed(&self, why: String) {
        self.failures.fetch_add(1, Relaxed);
        locked(&self.first_failure).get_or_insert(why);
    }

    pub(crate) fn first_failure(&self) -> Option<String> {
        locked(&self.first_failure).clone()
    }

    /// Takes the latencies of single calls since the last time, in microseconds.
    pub(crate) fn take_latencies(&self) -> Vec<u32> {
        std::mem::take(&mut locked(&self.latencies))
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    pub(crate) fn spread(&self) -> u64 {
        self.spread.load(Relaxed)
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    pub(crate) fn degraded(&self) -> u64 {
        self.degraded.load(Relaxed)
    }

    /// Reads some anomalies and the hot one, whose acknowledged occurrences must all be counted
    /// once. Returns the number of anomalies.
    pub(crate) fn compare(&self) -> Outcome<usize> {
        let known = self.known();
        let step = known.div_ceil(COMPARED).max(1);
        let mut expected: Vec<(Anomaly, u64)> = (0..known)
            .step_by(step)
            .map(|number| (anomaly(number), self.ledger[number].load(Relaxed).into()))
            .collect();
        let hot = self.hot.load(Relaxed);
        if hot > 0 {
            expected.push((hot_anomaly(), hot));
        }
        let mut connection = Connection::open(self.port)?;
        wait_until_ready(&mut connection)?;
        for (anomaly, acknowledged) in &expected {
            let frequency = connection.ask(&get(&anomaly.frequency_path()))?;
            if frequency["count_30d"] != *acknowledged {
                let wrong = format!("{acknowledged} acknowledged, but the answer is {frequency}");
                return Err(wrong.into());
            }
        }
        Ok(expected.len())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [calls, known, spread, hot] =
            [self.calls(), self.known() as u64, self.spread(), self.hot.load(Relaxed)]
                .map(|figure| grouped(figure as f64));
        let (failures, degraded) = (self.failures(), self.degraded());
        write!(
            f,
            "{calls} calls, {known} anomalies, {spread} more occurrences of them and {hot} of the \
             hot one, {degraded} answers degraded, {failures} calls failed"
        )
    }
}

/// A connection to a target.
#[derive(Debug)]
pub(crate) struct Caller<'a> {
    target: &'a Target,
    /// None after a failure: the next call opens another.
    connection: Option<Connection>,
}

impl<'a> Caller<'a> {
    pub(crate) fn new(target: &'a Target) -> Self {
        Self { target, connection: None }
    }

    /// Returns a good answer. Single calls are timed.
    pub(crate) fn call(&mut self, request: &[u8], is_single: bool) -> Option<String> {
        let target = self.target;
        let begun = Instant::now();
        let answered = self.exchange(request);
        if is_single {
            let took_us = u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX);
            locked(&target.latencies).push(took_us);
        }
        target.calls.fetch_add(1, Relaxed);
        match answered {
            Ok((200, answer)) => Some(answer),
            // The write waits in the spool, and is counted at the end.
            Ok((202, answer)) => {
                target.degraded.fetch_add(1, Relaxed);
                Some(answer)
            }
            Ok((status, answer)) => {
                target.failed(format!("answered {status} {answer}"));
                None
            }
            Err(error) => {
                self.connection = None;
                target.failed(format!("not answered: {error}"));
                None
            }
        }
    }

    fn exchange(&mut self, request: &[u8]) -> Outcome<(u16, String)> {
        if self.connection.is_none() {
            self.connection = Some(Connection::open(self.target.port)?);
        }
        let connection = self.connection.as_mut().ok_or("no connection")?;
        let (status, answer) = connection.exchange(request)?;
        Ok((status, str::from_utf8(answer)?.to_owned()))
    }
}

/// Waits until the spool is replayed.
fn wait_until_ready(connection: &mut Connection) -> Outcome<()> {
    let deadline = Instant::now() + READY_PATIENCE;
    loop {
        let ready = connection.ask(&get("/readyz"))?;
        if ready["status"] == "ready" {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("the service does not become ready: {ready}").into());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn anomaly(number: usize) -> Anomaly {
    Anomaly::new(format!("quiet-{number}"))
}

fn hot_anomaly() -> Anomaly {
    Anomaly::new("hot")
}

/// Locks a mutex, also after a panic: none leaves anything half-done under these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
