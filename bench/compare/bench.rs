//! A run: its settings, the turns of contestants, and the findings so far.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{Outcome, stats::Samples, table::Line};

/// Time for which a contestant runs before it is measured, so that its connections are open, its
/// caches full and its scripts loaded.
const WARM_UP: Duration = Duration::from_secs(1);

/// The options of the command line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) rounds: u64,
    pub(crate) window: Duration,
    pub(crate) max_depth: u64,
    pub(crate) many_keys: u64,
}

/// The results of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Findings {
    pub(crate) lines: Vec<Line>,
    pub(crate) curve: Vec<CurvePoint>,
    pub(crate) depths: Vec<DepthPoint>,
}

/// The speed of a server with a number of connections.
#[derive(Debug, Serialize)]
pub(crate) struct CurvePoint {
    pub(crate) server: String,
    pub(crate) connections: u16,
    pub(crate) per_second: Samples,
    pub(crate) p50_us: Samples,
    pub(crate) p99_us: Samples,
}

/// The cost of calls for a key with this many events.
#[derive(Debug, Serialize)]
pub(crate) struct DepthPoint {
    pub(crate) store: &'static str,
    pub(crate) events: u64,
    pub(crate) record_us: Samples,
    pub(crate) read_us: Samples,
}

/// A run under way.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) settings: Settings,
    findings: Findings,
    begun: Instant,
    estimated: Duration,
    /// The current row, for lines of progress.
    row: String,
}

/// A server or setting that takes turns with others.
pub(crate) struct Contestant<'a, T> {
    name: String,
    measure: Box<dyn FnMut(Duration) -> Outcome<T> + 'a>,
}

impl<'a, T> Contestant<'a, T> {
    /// Creates a contestant. `measure` receives the time that it may take.
    pub(crate) fn new(
        name: impl Into<String>,
        measure: impl FnMut(Duration) -> Outcome<T> + 'a,
    ) -> Self {
        Self { name: name.into(), measure: Box::new(measure) }
    }
}

impl Bench {
    pub(crate) fn new(settings: Settings, estimated_seconds: u64) -> Self {
        let estimated = Duration::from_secs(estimated_seconds);
        let (findings, begun, row) = (Findings::default(), Instant::now(), String::new());
        Self { settings, findings, begun, estimated, row }
    }

    pub(crate) fn begin(&mut self, row: String) {
        self.row = row;
        self.report("begins");
    }

    /// Prints a line of progress.
    pub(crate) fn report(&self, what: impl Display) {
        let minutes =
            |time: Duration| format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60);
        let (elapsed, estimated) = (minutes(self.begun.elapsed()), minutes(self.estimated));
        println!("[{elapsed} of about {estimated}] {}: {what}", self.row);
    }

    /// Lets contestants take turns: A B C, A B C… Returns the results of each one by round.
    pub(crate) fn take_turns<T: Display>(
        &self,
        window: Duration,
        mut contestants: Vec<Contestant<'_, T>>,
    ) -> Outcome<Vec<Vec<T>>> {
        for Contestant { name, measure } in &mut contestants {
            let figures = measure(WARM_UP)?;
            self.report(format!("warm-up, {name}: {figures}"));
        }
        let rounds = self.settings.rounds;
        let mut found: Vec<Vec<T>> = contestants.iter().map(|_| Vec::new()).collect();
        for round in 1..=rounds {
            for (Contestant { name, measure }, found) in contestants.iter_mut().zip(&mut found) {
                let figures = measure(window)?;
                self.report(format!("round {round} of {rounds}, {name}: {figures}"));
                found.push(figures);
            }
        }
        Ok(found)
    }

    pub(crate) fn found(&mut self, line: Line) {
        self.findings.lines.push(line);
    }

    pub(crate) fn draw_curve(&mut self, point: CurvePoint) {
        self.findings.curve.push(point);
    }

    pub(crate) fn draw_depth(&mut self, point: DepthPoint) {
        self.findings.depths.push(point);
    }

    pub(crate) fn into_findings(self) -> Findings {
        self.findings
    }
}
