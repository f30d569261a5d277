//! Tests that compare the list with a naive filter and sort over a model, and check the promise of
//! the cursor with writes between the pages.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::domain::{AnomalyKey, EscalationLevel, Timestamp, Window, WindowCounts};

/// The state of an anomaly.
#[derive(Clone, Debug)]
struct Candidate {
    key: AnomalyKey,
    counts: WindowCounts,
    first_seen: Option<Timestamp>,
    last_seen: Option<Timestamp>,
    level: Option<Option<EscalationLevel>>,
    rule: &'static str,
    firing: Option<bool>,
    fixed: Option<bool>,
    regressed: Option<bool>,
    repaired: Option<bool>,
}

impl Listable for Candidate {
    fn key(&self) -> AnomalyKey {
        self.key
    }

    fn count(&self, window: Window) -> u64 {
        self.counts.of(window)
    }

    fn first_seen(&self) -> Option<Timestamp> {
        self.first_seen
    }

    fn last_seen(&self) -> Option<Timestamp> {
        self.last_seen
    }

    fn level(&self) -> Option<Option<EscalationLevel>> {
        self.level
    }

    fn rule_name(&self) -> &str {
        self.rule
    }

    fn is_firing(&self) -> Option<bool> {
        self.firing
    }

    fn is_fixed(&self) -> Option<bool> {
        self.fixed
    }

    fn has_regressed(&self) -> Option<bool> {
        self.regressed
    }

    fn was_repaired(&self) -> Option<bool> {
        self.repaired
    }
}

/// An anomaly of the model.
#[derive(Clone, Debug)]
struct Modelled {
    candidate: Candidate,
    texts: Option<[String; 4]>,
}

fn now() -> Timestamp {
    Timestamp::from_micros(1_774_799_738_000_000)
}

fn any_level() -> impl Strategy<Value = Option<EscalationLevel>> {
    prop::sample::select(LevelSet::EACH.to_vec())
}

fn any_rule() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["default", "batch", "dev"])
}

fn any_anomaly() -> impl Strategy<Value = Modelled> {
    let counts = (0..3_u64, 0..3_u64, 0..3_u64, 0..3_u64);
    let times = option::weighted(0.8, (0..50_i64, 0..50_i64));
    let texts = option::weighted(0.9, ["[ab]{0,2}", "[ab]{0,2}", "[ab]{0,2}", "[ab]{0,2}"]);
    let flag = || option::of(any::<bool>());
    let flags = (flag(), flag(), flag(), flag());
    let judged = (any_rule(), option::of(any_level()));
    (0..40_u64, counts, times, judged, flags, texts).prop_map(
        |(key, (hour, day, week, month), times, (rule, level), flags, texts)| {
            let (fixed, regressed, repaired, firing) = flags;
            let ago = |hours: i64| now().minus_seconds(hours * 3_600);
            let candidate = Candidate {
                // Keys with different first digits.
                key: AnomalyKey::from_bits(key << 56 | key),
                counts: WindowCounts { hour, day, week, month },
                first_seen: times.map(|(last, before)| ago(last + before)),
                last_seen: times.map(|(last, _)| ago(last)),
                level,
                rule,
                firing,
                fixed,
                regressed,
                repaired,
            };
            Modelled { candidate, texts }
        },
    )
}

fn any_limit() -> impl Strategy<Value = TimeLimit> {
    (0..50_u32, any::<bool>()).prop_map(|(hours, is_age)| match is_age {
        true => TimeLimit::Age(hours * 3_600),
        false => TimeLimit::At(now().minus_seconds(i64::from(hours) * 3_600)),
    })
}

fn any_selection() -> impl Strategy<Value = Selection> {
    let rarely = 0.15;
    let patterns = || vec("[ab*?]{0,2}", 0..2);
    let fields = [patterns(), patterns(), patterns(), patterns()];
    let flag = || option::weighted(rarely, any::<bool>());
    let range = || {
        let limit = || option::weighted(rarely, any_limit());
        (limit(), limit()).prop_map(|(after, before)| TimeRange { after, before })
    };
    let fields = prop_oneof![3 => Just(None), 1 => fields.prop_map(Some)];
    let words =
        prop_oneof![3 => Just(String::new()), 1 => "[ab]{1,2}( [ab]{1,2})?", 1 => "0[0-4]000"];
    let levels = option::weighted(rarely, vec(any_level(), 1..3));
    let min_counts = option::weighted(rarely, (0..2_u64, 0..2_u64, 0..2_u64, 0..2_u64));
    let min_level = option::weighted(rarely, prop::sample::select(LevelSet::EACH[1..].to_vec()));
    let rules = option::weighted(rarely, vec(any_rule(), 1..3));
    let states = (levels, min_level, rules, [flag(), flag(), flag(), flag()], min_counts);
    (fields, words, states, range(), range()).prop_map(
        |(fields, words, states, last_seen, first_seen)| {
            let (levels, min_level, rules, flags, min_counts) = states;
            let [fixed, regressed, repaired, firing] = flags;
            let rule_name = |name: &str| RuleName::try_from(name.to_owned()).unwrap();
            let pattern = |text: String| TextPattern::parse(&text).unwrap();
            let (hour, day, week, month) = min_counts.unwrap_or_default();
            Selection {
                fields: fields
                    .map(|fields| fields.map(|texts| texts.into_iter().map(pattern).collect()))
                    .unwrap_or_default(),
                words: SearchWords::parse(&words).unwrap(),
                levels: levels.map(|levels| {
                    levels.into_iter().fold(LevelSet::default(), |mut set, level| {
                        set.insert(level);
                        set
                    })
                }),
                min_level: min_level.flatten(),
                rules: rules.into_iter().flatten().map(rule_name).collect(),
                firing,
                fixed,
                regressed,
                repaired,
                last_seen,
                first_seen,
                min_counts: WindowCounts { hour, day, week, month },
            }
        },
    )
}

fn any_ranking() -> impl Strategy<Value = Ranking> {
    let pairs = Sort::ALL.into_iter().flat_map(|sort| Order::ALL.map(|order| (sort, order)));
    let rankings = pairs.filter_map(|(sort, order)| Ranking::new(sort, Some(order)).ok());
    prop::sample::select(rankings.collect::<Vec<_>>())
}

/// The definition of each criterion.
fn matches_by_definition(selection: &Selection, anomaly: &Modelled) -> bool {
    let Modelled { candidate, texts } = anomaly;
    let time_is_in = |range: TimeRange, time: Option<Timestamp>| {
        let after =
            range.after.is_none_or(|limit| time.is_some_and(|time| time >= limit.at(now())));
        let before =
            range.before.is_none_or(|limit| time.is_some_and(|time| time < limit.at(now())));
        after && before
    };
    let fields_match = (0..4).all(|field| {
        let patterns = &selection.fields[field];
        patterns.is_empty()
            || texts
                .as_ref()
                .is_some_and(|texts| patterns.iter().any(|pattern| pattern.matches(&texts[field])))
    });
    let words_match = selection.words.folded().all(|word| {
        let in_text = texts.as_ref().is_some_and(|texts| texts.iter().any(|t| t.contains(word)));
        let is_key = word.len() >= 4 && candidate.key.to_string().starts_with(word);
        in_text || is_key
    });
    let counts = candidate.counts;
    let min = selection.min_counts;
    let counts_match = [
        (counts.hour, min.hour),
        (counts.day, min.day),
        (counts.week, min.week),
        (counts.month, min.month),
    ]
    .into_iter()
    .all(|(count, min)| count >= min);
    let level_matches = selection.levels.is_none_or(|levels| {
        LevelSet::EACH.into_iter().any(|one| levels.contains(one) && candidate.level == Some(one))
    }) && selection
        .min_level
        .is_none_or(|min| candidate.level.flatten().is_some_and(|level| level >= min));
    let flags_match = selection.fixed.is_none_or(|flag| candidate.fixed == Some(flag))
        && selection.regressed.is_none_or(|flag| candidate.regressed == Some(flag))
        && selection.repaired.is_none_or(|flag| candidate.repaired == Some(flag))
        && selection.firing.is_none_or(|flag| candidate.firing == Some(flag));
    let rules = &selection.rules;
    let rule_matches = rules.is_empty() || rules.iter().any(|r| r.as_str() == candidate.rule);
    fields_match
        && words_match
        && counts_match
        && level_matches
        && flags_match
        && rule_matches
        && time_is_in(selection.last_seen, candidate.last_seen)
        && time_is_in(selection.first_seen, candidate.first_seen)
}

/// Compares by the names of the parameters. An anomaly without the value comes last.
fn compare_by_definition(ranking: Ranking, one: &Candidate, other: &Candidate) -> Ordering {
    let count = |candidate: &Candidate| match ranking.sort() {
        Sort::Count1h => candidate.counts.hour,
        Sort::Count24h => candidate.counts.day,
        Sort::Count7d => candidate.counts.week,
        _ => candidate.counts.month,
    };
    let time = |candidate: &Candidate| match ranking.sort() {
        Sort::LastSeen => candidate.last_seen,
        _ => candidate.first_seen,
    };
    let by_value = match (ranking.sort(), ranking.order()) {
        (Sort::Key, Order::Ascending) => one.key.cmp(&other.key),
        (Sort::Key, Order::Descending) => other.key.cmp(&one.key),
        (Sort::LastSeen | Sort::FirstSeen, order) => match (time(one), time(other), order) {
            (Some(a), Some(b), Order::Ascending) => a.cmp(&b),
            (Some(a), Some(b), Order::Descending) => b.cmp(&a),
            (a, b, _) => b.is_some().cmp(&a.is_some()),
        },
        (_, _) => count(other).cmp(&count(one)),
    };
    by_value.then(one.key.cmp(&other.key))
}

type Model = BTreeMap<AnomalyKey, Modelled>;

/// Returns a page as a list makes it, and the cursor of the next page.
fn page(
    model: &Model,
    selection: &Selection,
    ranking: Ranking,
    limit: usize,
    cursor: Option<Cursor>,
) -> (Vec<AnomalyKey>, Option<Cursor>) {
    let after = cursor.map(|cursor| cursor.position(ranking, selection).unwrap());
    let mut top = Top::new(limit, after);
    // In another order than that of any list.
    for anomaly in model.values().rev() {
        let Modelled { candidate, texts } = anomaly;
        let texts = texts.as_ref();
        let verdicts = texts.map(|texts| texts.each_ref().map(|text| selection.judge_text(text)));
        if selection.meets_texts(candidate.key, verdicts)
            && selection.meets_state(now(), candidate, false)
        {
            top.offer(ranking.position(candidate), || candidate.key);
        }
    }
    let (members, has_more) = top.into_sorted();
    let last = members.last().filter(|_| has_more).map(|(position, _)| *position);
    let next = last.map(|last| Cursor::new(ranking, selection, last));
    // Parsed, as when it comes back from a caller.
    let next = next.map(|cursor| cursor.to_string().parse().unwrap());
    (members.into_iter().map(|(_, key)| key).collect(), next)
}

fn model_of(anomalies: Vec<Modelled>) -> Model {
    anomalies.into_iter().map(|anomaly| (anomaly.candidate.key, anomaly)).collect()
}

/// A write between two pages: an anomaly is replaced, or removed.
fn any_write() -> impl Strategy<Value = (Modelled, bool)> {
    (any_anomaly(), prop::bool::weighted(0.3))
}

proptest! {
    #[test]
    fn pages_in_a_row_are_the_filtered_and_sorted_list(
        anomalies in vec(any_anomaly(), 0..60),
        selection in any_selection(),
        ranking in any_ranking(),
        limit in 1..8_usize,
    ) {
        let model = model_of(anomalies);
        let mut expected: Vec<_> =
            model.values().filter(|one| matches_by_definition(&selection, one)).collect();
        expected.sort_by(|one, other| {
            compare_by_definition(ranking, &one.candidate, &other.candidate)
        });
        let expected: Vec<_> = expected.into_iter().map(|one| one.candidate.key).collect();

        let (mut listed, mut cursor) = (Vec::new(), None);
        loop {
            let (keys, next) = page(&model, &selection, ranking, limit, cursor);
            prop_assert!(keys.len() == limit || next.is_none(), "only the last page is short");
            listed.extend(keys);
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        prop_assert_eq!(listed, expected);
    }

    /// "An anomaly whose sort value does not change between two pages is listed exactly once; one
    /// that moves may be listed twice or not at all; the key never changes, so that going through
    /// all of them by it misses none that was there throughout."
    #[test]
    fn the_cursor_keeps_its_promise_while_anomalies_are_written(
        anomalies in vec(any_anomaly(), 0..60),
        selection in any_selection(),
        ranking in any_ranking(),
        limit in 1..8_usize,
        writes in vec(vec(any_write(), 0..6), 1..12),
    ) {
        let mut model = model_of(anomalies);
        let position = |one: &Modelled| ranking.position(&one.candidate);
        let listable = |model: &Model| -> BTreeMap<AnomalyKey, Position> {
            let matching = model.values().filter(|one| matches_by_definition(&selection, one));
            matching.map(|one| (one.candidate.key, position(one))).collect()
        };
        // Anomalies that match throughout with the same sort value.
        let mut unmoved = listable(&model);
        let mut ever = unmoved.keys().copied().collect::<BTreeSet<_>>();
        let mut listed = HashMap::<AnomalyKey, usize>::new();
        let (mut cursor, mut writes) = (None, writes.into_iter());
        loop {
            let (keys, next) = page(&model, &selection, ranking, limit, cursor);
            keys.into_iter().for_each(|key| *listed.entry(key).or_default() += 1);
            cursor = next;
            if cursor.is_none() {
                break;
            }
            for (written, is_removed) in writes.next().unwrap_or_default() {
                let key = written.candidate.key;
                match is_removed {
                    true => drop(model.remove(&key)),
                    false => drop(model.insert(key, written)),
                }
            }
            let after = listable(&model);
            unmoved.retain(|key, position| after.get(key) == Some(position));
            ever.extend(after.keys());
        }
        for key in unmoved.keys() {
            prop_assert_eq!(listed.get(key), Some(&1), "{} has not moved", key);
        }
        for (key, times) in listed {
            prop_assert!(ever.contains(&key), "{} never matched", key);
            prop_assert!(ranking.sort() != Sort::Key || times == 1, "{} twice by its key", key);
        }
    }

    /// A read can reveal a lower level, and whether an alert fires.
    #[test]
    fn what_may_match_once_it_is_read_is_taken_to_match(
        anomaly in any_anomaly(),
        selection in any_selection(),
    ) {
        let mut read = anomaly.clone();
        let levels = LevelSet::EACH.into_iter().filter(|level| {
            anomaly.candidate.level.is_some_and(|at_most| *level <= at_most)
        });
        let firing = anomaly.candidate.firing;
        let firing = firing.map_or_else(|| vec![true, false], |firing| vec![firing]);
        let texts = anomaly.texts.as_ref();
        let verdicts = texts.map(|texts| texts.each_ref().map(|text| selection.judge_text(text)));
        let may_match = selection.meets_texts(anomaly.candidate.key, verdicts)
            && selection.meets_state(now(), &anomaly.candidate, true);
        for level in levels {
            for firing in &firing {
                read.candidate.level = Some(level);
                read.candidate.firing = Some(*firing);
                prop_assert!(may_match || !matches_by_definition(&selection, &read));
            }
        }
    }

    #[test]
    fn a_place_is_known_by_its_value_and_its_key(
        ranking in any_ranking(),
        anomaly in any_anomaly(),
    ) {
        let position = ranking.position(&anomaly.candidate);
        let (value, key) = ranking.value_at(position);
        prop_assert_eq!(key, anomaly.candidate.key);
        prop_assert_eq!(ranking.position_of(value, key), position);
    }
}
