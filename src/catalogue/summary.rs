//! One pass over all anomalies for a summary: their number of each kind.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use super::{
    query::SummaryQuery,
    verdicts::Verdicts,
    visited::{Pass, Visited},
};
use crate::domain::{EscalationLevel, LevelSet, TextId, Texts, Timestamp, Window, WindowCounts};

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
    /// By the number of the text, each with the version of the number.
    by_text: Vec<Option<(u32, Group)>>,
    /// Groups whose number has come to stand for another text in the course of the pass.
    replaced: Vec<Group>,
    unknown: Group,
}

impl Group {
    fn add(&mut self, count_24h: u64, level: Option<Option<EscalationLevel>>) {
        self.anomalies += 1;
        self.count_24h += count_24h;
        if let Some(level) = level {
            self.levels[LevelSet::index(level)] += 1;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.anomalies += other.anomalies;
        self.count_24h += other.count_24h;
        for (count, others) in self.levels.iter_mut().zip(other.levels) {
            *count += others;
        }
    }
}

impl Groups {
    fn new(field: usize) -> Self {
        Self { field, by_text: Vec::new(), replaced: Vec::new(), unknown: Group::default() }
    }

    fn of(&mut self, texts: &Texts, id: Option<TextId>) -> &mut Group {
        let Some(id) = id else { return &mut self.unknown };
        if self.by_text.len() <= id.index() {
            self.by_text.resize(id.index() + 1, None);
        }
        let version = texts.version(id);
        let slot = &mut self.by_text[id.index()];
        if let Some((_, replaced)) = slot.take_if(|(of, _)| *of != version) {
            self.replaced.push(replaced);
        }
        let new = || (version, Group { value: texts.get(id).cloned(), ..Group::default() });
        &mut slot.get_or_insert_with(new).1
    }

    /// Returns the largest groups, and the rest as one if there is any.
    fn finish(self, top: usize) -> (usize, Vec<Group>) {
        let Self { field, by_text, replaced, unknown: mut rest } = self;
        let mut by_value = HashMap::<Option<Arc<str>>, Group>::new();
        let groups = by_text.into_iter().flatten().map(|(_, group)| group);
        for group in groups.chain(replaced) {
            let new = || Group { value: group.value.clone(), ..Group::default() };
            by_value.entry(group.value.clone()).or_insert_with(new).merge(&group);
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
        let (day, level) = (anomaly.count(Window::Day), anomaly.level());
        *anomalies += 1;
        occurrences.hour += anomaly.count(Window::Hour);
        occurrences.day += day;
        occurrences.week += anomaly.count(Window::Week);
        occurrences.month += anomaly.count(Window::Month);
        if let Some(level) = level {
            levels[LevelSet::index(level)] += 1;
        }
        *fixed += u64::from(anomaly.is_fixed() == Some(true));
        *regressed += u64::from(anomaly.has_regressed() == Some(true));
        *firing += u64::from(anomaly.is_firing() == Some(true));
        for groups in &mut self.by {
            let id = anomaly.fields().map(|fields| fields[groups.field]);
            groups.of(anomaly.texts(), id).add(day, level);
        }
    }
}
