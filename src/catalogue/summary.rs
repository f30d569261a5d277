//! One pass over all anomalies for a summary: their number of each kind.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use super::{
    query::SummaryQuery,
    verdicts::Verdicts,
    visited::{Pass, Visited},
};
use crate::domain::{EscalationLevel, LevelSet, TextId, Texts, Timestamp, WindowCounts};

/// The number of anomalies, and of their occurrences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The number of anomalies.
    pub anomalies: u64,
    /// The sums of their events.
    pub occurrences: WindowCounts,
    /// Their number by level, in the order of [`LevelSet::EACH`].
    pub levels: [u64; 4],
    /// The number of those with a mark of a permanent fix.
    pub fixed: u64,
    /// The number of those that have occurred again after it.
    pub regressed: u64,
    /// The number of those with an alert that fires.
    pub firing: u64,
    /// For each requested field: its values with the most anomalies, and then the rest.
    pub by: Vec<(usize, Vec<Group>)>,
}

/// The anomalies with one value of a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The value; `None` for the rest, and for anomalies without a known one.
    pub value: Option<Arc<str>>,
    /// Their number.
    pub anomalies: u64,
    /// The sum of their events of 24 hours.
    pub count_24h: u64,
    /// Their number by level.
    pub levels: [u64; 4],
}

/// The pass of one query.
#[derive(Debug)]
pub(super) struct SummaryPass<'q> {
    query: &'q SummaryQuery,
    now: Timestamp,
    looks_at_state: bool,
    verdicts: Verdicts<'q>,
    summary: Summary,
    by: Vec<Groups>,
}

/// The groups of one field.
#[derive(Debug)]
struct Groups {
    field: usize,
    /// The sums by the number of the text.
    sums: Vec<Sums>,
    /// The texts by their numbers, of which sums have begun.
    values: Vec<Option<Arc<str>>>,
    /// Groups whose number was assigned to another text in the course of the pass.
    replaced: Vec<Group>,
    unknown: Sums,
}

/// The sums of a group. They are small, because a pass over a million anomalies adds to them in no
/// order, and those of some thousand texts fit in a cache.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    count_24h: u64,
    anomalies: u32,
    levels: [u32; 4],
    /// The version of the text's number; 0 where none have begun.
    version: u32,
}

const _: () = assert!(size_of::<Sums>() == 32);

impl Group {
    fn merge(&mut self, other: &Self) {
        self.anomalies += other.anomalies;
        self.count_24h += other.count_24h;
        for (count, others) in self.levels.iter_mut().zip(other.levels) {
            *count += others;
        }
    }
}

impl Sums {
    fn add(&mut self, count_24h: u64, level: Option<Option<EscalationLevel>>) {
        self.anomalies += 1;
        self.count_24h += count_24h;
        if let Some(level) = level {
            self.levels[LevelSet::index(level)] += 1;
        }
    }

    fn of(self, value: Option<Arc<str>>) -> Group {
        Group {
            value,
            anomalies: self.anomalies.into(),
            count_24h: self.count_24h,
            levels: self.levels.map(u64::from),
        }
    }
}

impl Groups {
    fn new(field: usize) -> Self {
        Self {
            field,
            sums: Vec::new(),
            values: Vec::new(),
            replaced: Vec::new(),
            unknown: Sums::default(),
        }
    }

    /// Returns the sums of the text with this number, if it is known.
    #[inline]
    fn sums_of(&mut self, texts: &Texts, id: Option<TextId>) -> &mut Sums {
        let Some(id) = id else { return &mut self.unknown };
        let (index, version) = (id.index(), texts.version(id));
        if self.sums.get(index).is_none_or(|sums| sums.version != version) {
            self.begin(index, version, texts.get(id).cloned());
        }
        &mut self.sums[index]
    }

    /// Begins the sums of a text whose number had none, or those of another text.
    fn begin(&mut self, index: usize, version: u32, value: Option<Arc<str>>) {
        if self.sums.len() <= index {
            self.sums.resize(index + 1, Sums::default());
            self.values.resize(index + 1, None);
        }
        let sums = Sums { version, ..Sums::default() };
        let ended = std::mem::replace(&mut self.sums[index], sums);
        let its_value = std::mem::replace(&mut self.values[index], value);
        if ended.anomalies > 0 {
            self.replaced.push(ended.of(its_value));
        }
    }

    /// Returns the largest groups, and the rest as one if there is any.
    fn finish(self, top: usize) -> (usize, Vec<Group>) {
        let Self { field, sums, values, replaced, unknown } = self;
        let mut by_value = HashMap::<Option<Arc<str>>, Group>::new();
        let groups = sums.into_iter().zip(values).map(|(sums, value)| sums.of(value));
        for group in groups.chain(replaced).filter(|group| group.anomalies > 0) {
            let new = || Group { value: group.value.clone(), ..Group::default() };
            by_value.entry(group.value.clone()).or_insert_with(new).merge(&group);
        }
        let mut rest = unknown.of(None);
        if let Some(without_text) = by_value.remove(&None) {
            rest.merge(&without_text);
        }
        let mut groups: Vec<_> = by_value.into_values().collect();
        groups.sort_by(|one, other| {
            let order = |group: &Group| Reverse(group.anomalies);
            order(one).cmp(&order(other)).then_with(|| one.value.cmp(&other.value))
        });
        for group in groups.drain(top.min(groups.len())..) {
            rest.merge(&group);
        }
        if rest.anomalies > 0 {
            groups.push(rest);
        }
        (field, groups)
    }
}

impl<'q> SummaryPass<'q> {
    pub(super) fn new(query: &'q SummaryQuery, now: Timestamp) -> Self {
        Self {
            query,
            now,
            looks_at_state: query.selection.looks_at_state(),
            verdicts: Verdicts::new(&query.selection),
            summary: Summary::default(),
            by: query.by.iter().map(|field| Groups::new(*field)).collect(),
        }
    }

    pub(super) fn finish(self) -> Summary {
        let Self { query, mut summary, by, .. } = self;
        summary.by = by.into_iter().map(|groups| groups.finish(query.top)).collect();
        summary
    }
}

impl Pass for SummaryPass<'_> {
    fn visit(&mut self, anomaly: &impl Visited) {
        if !self.verdicts.are_met(anomaly)
            || self.looks_at_state && !self.query.selection.meets_state(self.now, anomaly, false)
        {
            return;
        }
        let Summary { anomalies, occurrences, levels, fixed, regressed, firing, .. } =
            &mut self.summary;
        let (counts, level) = (anomaly.counts(), anomaly.level());
        *anomalies += 1;
        occurrences.hour += counts.hour;
        occurrences.day += counts.day;
        occurrences.week += counts.week;
        occurrences.month += counts.month;
        if let Some(level) = level {
            levels[LevelSet::index(level)] += 1;
        }
        *fixed += u64::from(anomaly.is_fixed() == Some(true));
        *regressed += u64::from(anomaly.has_regressed() == Some(true));
        *firing += u64::from(anomaly.is_firing() == Some(true));
        for groups in &mut self.by {
            let id = anomaly.fields().map(|fields| fields[groups.field]);
            groups.sums_of(anomaly.texts(), id).add(counts.day, level);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::domain::Signature;

    proptest! {
        /// In one pass, between two parts of which anomalies go and others come.
        #[test]
        fn groups_are_those_of_texts_also_where_a_number_comes_to_stand_for_another(
            anomalies in vec(("[a-d]", any::<bool>()), 0..40),
        ) {
            let (mut texts, mut groups) = (Texts::default(), Groups::new(0));
            let mut expected = BTreeMap::<String, u64>::new();
            for (name, is_removed) in anomalies {
                let find = |field: &str| (field == "alert_name").then_some(Ok(&*name));
                let fields = texts.add(&Signature::from_lookup(find).unwrap()).unwrap();
                groups.sums_of(&texts, Some(fields[0])).add(2, Some(None));
                *expected.entry(name).or_default() += 1;
                if is_removed {
                    texts.remove(fields);
                }
            }
            let (_, groups) = groups.finish(10);
            prop_assert_eq!(groups.len(), expected.len());
            for group in groups {
                let anomalies = expected[group.value.as_deref().unwrap()];
                prop_assert_eq!(group.anomalies, anomalies);
                prop_assert_eq!(group.count_24h, 2 * anomalies);
                prop_assert_eq!(group.levels, [anomalies, 0, 0, 0]);
            }
        }
    }
}
