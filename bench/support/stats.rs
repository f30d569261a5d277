//! Statistics of several rounds of the same measurement.

use serde::{Serialize, Serializer, ser::SerializeStruct as _};

/// One value a round, in the order of the rounds; at least one.
#[derive(Clone, Debug)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn new(rounds: Vec<f64>) -> Self {
        assert!(!rounds.is_empty(), "a measurement has a round");
        Self(rounds)
    }

    /// Takes one value of each of `rounds`.
    pub(crate) fn of<T>(rounds: &[T], figure: impl Fn(&T) -> f64) -> Self {
        Self::new(rounds.iter().map(figure).collect())
    }

    pub(crate) fn are_many(&self) -> bool {
        self.0.len() > 1
    }

    pub(crate) fn median(&self) -> f64 {
        median(&self.0)
    }

    pub(crate) fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// Returns the ratios by round: a disturbance of the machine is in both values, and cancels
    /// out.
    pub(crate) fn ratio_to(&self, other: &Self) -> Self {
        Self::new(self.0.iter().zip(&other.0).map(|(own, other)| own / other).collect())
    }

    /// Returns the sums by round.
    pub(crate) fn plus(&self, other: &Self) -> Self {
        Self::new(self.0.iter().zip(&other.0).map(|(own, other)| own + other).collect())
    }
}

impl Serialize for Samples {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut samples = serializer.serialize_struct("Samples", 4)?;
        samples.serialize_field("median", &self.median())?;
        samples.serialize_field("min", &self.min())?;
        samples.serialize_field("max", &self.max())?;
        samples.serialize_field("rounds", &self.0)?;
        samples.end()
    }
}

/// Returns the middle value, or the mean of the two in the middle; NaN without values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len() % 2, sorted.len() / 2) {
        (_, 0) => sorted.first().copied().unwrap_or(f64::NAN),
        (0, middle) => (sorted[middle - 1] + sorted[middle]) / 2.0,
        (_, middle) => sorted[middle],
    }
}
