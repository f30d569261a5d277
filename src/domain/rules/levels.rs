//! The conditions of each level.

use std::{collections::BTreeMap, fmt};

use super::{
    condition::{Condition, Term},
    counts::{Counts, ExtraWindow, MAX_EXTRA_WINDOWS},
    error::{RuleError, quoted},
    source::SourceValue,
};
use crate::domain::{Band, EscalationLevel, Thresholds, WindowCounts};

/// Maximum number of conditions of a rule.
const MAX_CONDITIONS: usize = 8;

/// The conditions of each level. Any one of them is enough, and a level without a condition is
/// never reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    /// Lowest level first.
    by_level: [Vec<Condition>; 3],
    /// For each level and each of the four windows, the largest count that does not reach the level
    /// by itself. A list judges a million anomalies, and most rules have no other conditions.
    too_few: [[u64; 4]; 3],
    /// The largest count that reaches no level in any of the four windows by itself.
    too_few_anywhere: u64,
    /// True if there are conditions of several terms, or with windows of their own.
    has_others: bool,
}

impl From<Thresholds> for Levels {
    fn from(thresholds: Thresholds) -> Self {
        Self::of(thresholds.counts().map(|count| vec![Condition::of(Term::in_24h(count))]))
    }
}

/// Never reaches a level.
impl Default for Levels {
    fn default() -> Self {
        Self::of(Default::default())
    }
}

impl Levels {
    /// Creates the levels with these conditions, lowest level first.
    fn of(by_level: [Vec<Condition>; 3]) -> Self {
        let mut too_few = [[u64::MAX; 4]; 3];
        let mut has_others = false;
        for (too_few, conditions) in too_few.iter_mut().zip(&by_level) {
            for condition in conditions {
                match condition.as_count_of_window() {
                    Some((window, count)) => {
                        let too_few = &mut too_few[window as usize];
                        *too_few = (count - 1).min(*too_few);
                    }
                    None => has_others = true,
                }
            }
        }
        let too_few_anywhere = too_few.iter().flatten().copied().min().unwrap_or(u64::MAX);
        Self { by_level, too_few, too_few_anywhere, has_others }
    }

    /// Reads the levels of a rule; `None` if they are those of the rule `default`.
    ///
    /// # Errors
    /// The error says what is wrong, and in which level.
    pub(super) fn parse(source: Option<&SourceValue>) -> Result<Option<Self>, RuleError> {
        let shape = "write a table with REPEAT, ESCALATE or PERMANENT_FIX, or levels = \"none\"";
        let refused = |what: &str| RuleError::new("levels", what);
        match source {
            None => Ok(None),
            Some(SourceValue::Text(text)) if text == "none" => Ok(Some(Self::default())),
            Some(SourceValue::Table(table)) if !table.is_empty() => Self::read(table).map(Some),
            Some(_) => Err(refused(shape)),
        }
    }

    fn read(table: &BTreeMap<String, SourceValue>) -> Result<Self, RuleError> {
        let mut by_level: [Vec<Condition>; 3] = Default::default();
        for (name, value) in table {
            let Some(level) = EscalationLevel::ALL.iter().position(|l| l.as_str() == name) else {
                let what = format!(
                    "{} is not a level: the levels are REPEAT, ESCALATE and PERMANENT_FIX",
                    quoted(name)
                );
                return Err(RuleError::new("levels", what));
            };
            by_level[level] = read_conditions(name, value)?;
        }
        let levels = Self::of(by_level);
        let conditions = levels.by_level.iter().map(Vec::len).sum::<usize>();
        if conditions > MAX_CONDITIONS {
            let what = format!("there are {conditions} conditions: write at most {MAX_CONDITIONS}");
            return Err(RuleError::new("levels", what));
        }
        levels.check_order()?;
        levels.check_windows()?;
        Ok(levels)
    }

    /// Rejects a condition that could never be the reason of a level, because a higher level is
    /// reached whenever it holds.
    fn check_order(&self) -> Result<(), RuleError> {
        for (high, level) in EscalationLevel::ALL.iter().enumerate() {
            for (low, hidden_level) in EscalationLevel::ALL[..high].iter().enumerate() {
                for condition in &self.by_level[high] {
                    let hides = |lower: &&Condition| condition.follows_from(lower);
                    if let Some(hidden) = self.by_level[low].iter().find(hides) {
                        let (level, hidden_level) = (level.as_str(), hidden_level.as_str());
                        let what = format!(
                            "{hidden_level} \"{hidden}\" can never be the level: write a larger \
                             count here than there"
                        );
                        return Err(RuleError::new(format!("{level} \"{condition}\""), what));
                    }
                }
            }
        }
        Ok(())
    }

    fn check_windows(&self) -> Result<(), RuleError> {
        let windows = self.extra_windows();
        if windows.len() <= MAX_EXTRA_WINDOWS {
            return Ok(());
        }
        let what = format!(
            "there are {} windows other than 1h, 24h, 7d and 30d: write at most \
             {MAX_EXTRA_WINDOWS}",
            windows.len()
        );
        Err(RuleError::new("levels", what))
    }

    /// Returns the additional windows that the conditions count in.
    pub(super) fn extra_windows(&self) -> Vec<ExtraWindow> {
        let mut windows = Vec::<ExtraWindow>::new();
        for term in self.terms().filter(|term| !term.window.is_standard()) {
            let (seconds, count) = (term.window.seconds(), term.count);
            match windows.iter_mut().find(|window| window.seconds == seconds) {
                Some(window) => {
                    window.least = window.least.min(count);
                    window.most = window.most.max(count);
                }
                None => windows.push(ExtraWindow { seconds, least: count, most: count }),
            }
        }
        windows
    }

    /// Returns the conditions of a level, in the order in which they are written.
    pub fn conditions(&self, level: EscalationLevel) -> &[Condition] {
        &self.by_level[level as usize]
    }

    /// Returns the conditions of all levels, lowest level first.
    pub fn bands(&self) -> Vec<Band> {
        let of_level = |level: EscalationLevel| {
            let band =
                move |condition: &Condition| Band { level, condition: condition.to_string() };
            self.conditions(level).iter().map(band)
        };
        EscalationLevel::ALL.into_iter().flat_map(of_level).collect()
    }

    /// Returns the conditions of a level and of those above it.
    pub(super) fn conditions_from(
        &self,
        level: EscalationLevel,
    ) -> impl Iterator<Item = &Condition> {
        self.by_level[level as usize..].iter().flatten()
    }

    pub(super) fn terms(&self) -> impl Iterator<Item = &Term> {
        self.by_level.iter().flatten().flat_map(Condition::terms)
    }

    /// Returns true if no level is ever reached.
    pub fn is_none(&self) -> bool {
        self.by_level.iter().all(Vec::is_empty)
    }

    /// Returns true if these counts are too low for any level: most anomalies are rare. False says
    /// nothing.
    #[inline]
    pub(super) fn are_out_of_reach(&self, counts: WindowCounts) -> bool {
        // No count is larger than all of them joined bit by bit.
        let WindowCounts { hour, day, week, month } = counts;
        !self.has_others && (hour | day | week | month) <= self.too_few_anywhere
    }

    /// Returns the highest level with a condition that holds.
    pub(super) fn reached(&self, counts: Counts<'_>) -> Option<EscalationLevel> {
        // Everything is compared, because a mispredicted branch takes longer.
        let in_windows = counts.windows.by_length();
        let by_one_count = EscalationLevel::ALL.into_iter().zip(&self.too_few).fold(
            None,
            |reached, (level, too_few)| {
                let is_reached = (0..4).fold(false, |any, i| any | (in_windows[i] > too_few[i]));
                if is_reached { Some(level) } else { reached }
            },
        );
        if !self.has_others {
            return by_one_count;
        }
        let holds = |level: &EscalationLevel| {
            self.conditions(*level).iter().any(|condition| condition.holds(counts))
        };
        let higher = EscalationLevel::ALL.into_iter().rev();
        higher.take_while(|level| Some(*level) > by_one_count).find(holds).or(by_one_count)
    }
}

fn read_conditions(level: &str, value: &SourceValue) -> Result<Vec<Condition>, RuleError> {
    let shape = || RuleError::new(level, "write a list of conditions, such as [\"5 in 24h\"]");
    let SourceValue::List(elements) = value else { return Err(shape()) };
    if elements.is_empty() {
        return Err(RuleError::new(level, "write a condition, or leave the level out"));
    }
    let read = |element: &SourceValue| {
        let SourceValue::Text(text) = element else { return Err(shape()) };
        Condition::parse(text)
            .map_err(|what| RuleError::new(format!("{level} {}", quoted(text)), what))
    };
    elements.iter().map(read).collect()
}

/// Writes the levels with their conditions: `REPEAT: 3 in 24h; ESCALATE: 5 in 24h, 4 in 1h`.
impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("none");
        }
        let listed = |level: &EscalationLevel| {
            let conditions = self.conditions(*level).iter().map(ToString::to_string);
            let conditions: Vec<String> = conditions.collect();
            (!conditions.is_empty())
                .then(|| format!("{}: {}", level.as_str(), conditions.join(", ")))
        };
        let levels: Vec<String> = EscalationLevel::ALL.iter().filter_map(listed).collect();
        f.write_str(&levels.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::domain::rules::ExtraCount;

    fn any_condition() -> impl Strategy<Value = Condition> {
        let term = (1..9_u64, prop_oneof!["1h", "24h", "7d", "30d", "6h", "2d"])
            .prop_map(|(count, window)| format!("{count} in {window}"));
        vec(term, 1..3).prop_map(|terms| Condition::parse(&terms.join(" and ")).unwrap())
    }

    proptest! {
        /// Conditions of one count and others are judged apart.
        #[test]
        fn the_level_is_the_highest_with_a_condition_that_holds(
            by_level in prop::array::uniform3(vec(any_condition(), 0..3)),
            (hour, day, week) in (0..9_u64, 0..9_u64, 0..9_u64),
            month in prop_oneof![0..9_u64, Just(u64::MAX)],
            count in 0..9_u64,
        ) {
            let extra = [ExtraCount { seconds: 6 * 3_600, count, is_approximate: false }];
            let windows = WindowCounts { hour, day, week, month };
            let counts = Counts { windows, extra: &extra, is_approximate: false };
            let holds = |level: &EscalationLevel| {
                by_level[*level as usize].iter().any(|condition| condition.holds(counts))
            };
            let expected = EscalationLevel::ALL.into_iter().rev().find(holds);
            let levels = Levels::of(by_level.clone());
            prop_assert_eq!(levels.reached(counts), expected);
            prop_assert!(expected.is_none() || !levels.are_out_of_reach(windows));
        }
    }
}
