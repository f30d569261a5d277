//! The results as one table, each line has its ratio to its reference, and its goal.

use std::fmt;

use serde::Serialize;

use crate::{
    markdown::{self, grouped},
    stats::Samples,
};

/// A measurement beside another one, and their goal.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    row: String,
    what: String,
    unit: &'static str,
    measured: Samples,
    /// The other measurement, in the same unit.
    against: Option<(String, Samples)>,
    goal: Option<Goal>,
    /// The ratios or values whose median is compared with the goal.
    judged: Option<Samples>,
    met: Option<bool>,
}

/// A goal for a measurement.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) enum Goal {
    /// The minimum of the ratio to the other measurement.
    RatioAtLeast(f64),
    RatioAtMost(f64),
    /// The maximum of the value itself.
    AtMost(f64),
}

impl Goal {
    fn is_met_by(self, judged: f64) -> bool {
        match self {
            Self::RatioAtLeast(least) => judged >= least,
            Self::RatioAtMost(most) | Self::AtMost(most) => judged <= most,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RatioAtLeast(least) => write!(f, "≥ {least:.2} ×"),
            Self::RatioAtMost(most) => write!(f, "≤ {most:.2} ×"),
            Self::AtMost(most) => write!(f, "≤ {}", grouped(*most)),
        }
    }
}

impl Line {
    pub(crate) fn new(
        row: impl Into<String>,
        what: impl Into<String>,
        unit: &'static str,
        measured: Samples,
    ) -> Self {
        let (row, what) = (row.into(), what.into());
        Self { row, what, unit, measured, against: None, goal: None, judged: None, met: None }
    }

    /// Adds the measurement `other`, named `name`, as the reference.
    pub(crate) fn against(mut self, name: impl Into<String>, other: &Samples) -> Self {
        self.judged = Some(self.measured.ratio_to(other));
        self.against = Some((name.into(), other.clone()));
        self
    }

    pub(crate) fn goal(mut self, goal: Goal) -> Self {
        if let Goal::AtMost(_) = goal {
            self.judged = Some(self.measured.clone());
        }
        self.met = self.judged.as_ref().map(|judged| goal.is_met_by(judged.median()));
        self.goal = Some(goal);
        self
    }

    /// Returns its cells, in the order of [`HEADINGS`].
    fn cells(&self) -> [String; 7] {
        let Self { row, what, unit, measured, against, goal, judged, met } = self;
        let ratio = judged.as_ref().filter(|_| against.is_some());
        let verdict = met.map(|met| if met { "met" } else { "MISSED" });
        [
            row.clone(),
            format!("{what}, {unit}"),
            with_spread(measured, grouped),
            against.as_ref().map_or_else(String::new, |(name, other)| {
                format!("{name} {}", grouped(other.median()))
            }),
            ratio.map_or_else(String::new, |ratio| with_spread(ratio, |x| format!("{x:.2}"))),
            goal.map_or_else(String::new, |goal| goal.to_string()),
            verdict.unwrap_or_default().to_owned(),
        ]
    }
}

/// Formats the median, and the range if there were several rounds.
fn with_spread(samples: &Samples, written: impl Fn(f64) -> String) -> String {
    let [median, min, max] = [samples.median(), samples.min(), samples.max()].map(written);
    if samples.are_many() { format!("{median} ({min}–{max})") } else { median }
}

const HEADINGS: [&str; 7] =
    ["row", "what", "median (min–max)", "against", "ratio (min–max)", "goal", ""];

/// Formats all lines as a table in Markdown.
pub(crate) fn render(lines: &[Line]) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(lines.iter().map(Line::cells));
    markdown::table(&rows)
}
