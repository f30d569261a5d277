//! A run: its settings, whose turn it is, and what has been found so far.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{Outcome, stats::Samples, table::Line};

/// How long a contestant runs before it is measured: connections, caches and scripts are then there.
const WARM_UP: Duration = Duration::from_secs(1);

/// What the command line says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) rounds: u64,
    pub(crate) window: Duration,
    pub(crate) max_depth: u64,
    pub(crate) many_keys: u64,
}

/// All that was found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Findings {
    pub(crate) lines: Vec<Line>,
    pub(crate) curve: Vec<CurvePoint>,
    pub(crate) depths: Vec<DepthPoint>,
}

/// How a server does under so many connections.
#[derive(Debug, Serialize)]
pub(crate) struct CurvePoint {
    pub(crate) server: String,
    pub(crate) connections: u16,
    pub(crate) per_second: Samples,
    pub(crate) p50_us: Samples,
    pub(crate) p99_us: Samples,
}

/// What a key that has so many events costs.
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
    /// Which row it is at, for whoever watches.
    place: String,
}

/// One of those that take turns.
pub(crate) struct Contestant<'a, T> {
    name: String,
    measure: Box<dyn FnMut(Duration) -> Outcome<T> + 'a>,
}

impl<'a, T> Contestant<'a, T> {
    /// `measure` is given how long it may take.
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
        let (findings, begun, place) = (Findings::default(), Instant::now(), String::new());
        Self { settings, findings, begun, estimated, place }
    }

    pub(crate) fn begin(&mut self, place: String) {
        self.place = place;
        self.tell("begins");
    }

    /// Tells whoever watches where the run is.
    pub(crate) fn tell(&self, what: impl Display) {
        let minutes =
            |time: Duration| format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60);
        let (elapsed, estimated) = (minutes(self.begun.elapsed()), minutes(self.estimated));
        println!("[{elapsed} of about {estimated}] {}: {what}", self.place);
    }

    /// Lets contestants take turns: A B C, A B C… Gives each one's figures, in the order of the rounds.
    pub(crate) fn take_turns<T: Display>(
        &self,
        window: Duration,
        mut contestants: Vec<Contestant<'_, T>>,
    ) -> Outcome<Vec<Vec<T>>> {
        for Contestant { name, measure } in &mut contestants {
            let figures = measure(WARM_UP)?;
            self.tell(format!("warm-up, {name}: {figures}"));
        }
        let rounds = self.settings.rounds;
        let mut found: Vec<Vec<T>> = contestants.iter().map(|_| Vec::new()).collect();
        for round in 1..=rounds {
            for (Contestant { name, measure }, found) in contestants.iter_mut().zip(&mut found) {
                let figures = measure(window)?;
                self.tell(format!("round {round} of {rounds}, {name}: {figures}"));
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
