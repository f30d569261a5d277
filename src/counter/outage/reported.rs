//! The news that were reported in this outage, by anomaly. Writes that waited are judged again by
//! the replies when they are applied; only news that were not reported before are reported then.
//! The number of anomalies is bounded.

use lru::LruCache;

use crate::{
    counter::news::News,
    domain::{
        AnomalyKey, AnomalyStats, EscalationLevel, Frequency, KnownStats, Occurrence, Timestamp,
    },
    store::{RecordOutcome, Recorded},
};

/// The reason why an occurrence is applied again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// It waited in the spool.
    Replay,
    /// The store acknowledged it, and may have forgotten it.
    Resend,
}

/// The news that were reported of each anomaly.
#[derive(Debug)]
pub(crate) struct Reported {
    entries: LruCache<AnomalyKey, Entry>,
    limit: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// The highest reported level.
    level: Option<EscalationLevel>,
    /// The time of the occurrence with the last reported regression.
    regressed_at: Option<Timestamp>,
    /// True if nothing was known of the anomaly when its writes began to be sent again, as after a
    /// restart: another process has answered them, and reported their steps.
    is_blind: bool,
}

impl Reported {
    /// Creates an empty memory for the news of the last `limit` anomalies.
    pub(crate) fn new(limit: usize) -> Self {
        Self { entries: LruCache::unbounded(), limit }
    }

    /// Notes news that were reported.
    pub(crate) fn note(&mut self, occurrence: &Occurrence, news: News) {
        let entry = self.entry(occurrence.key);
        entry.level = entry.level.max(news.reached);
        if news.has_regressed {
            entry.regressed_at = Some(occurrence.at);
        }
    }

    fn entry(&mut self, key: AnomalyKey) -> &mut Entry {
        if self.entries.len() >= self.limit && !self.entries.contains(&key) {
            self.entries.pop_lru();
        }
        self.entries.get_or_insert_mut(key, Entry::default)
    }

    /// Judges an occurrence that was applied again, given the frequency after it. Returns the news
    /// that were not reported before. `known` are the last stats that a caller got.
    pub(crate) fn judge(
        &mut self,
        source: Source,
        occurrence: &Occurrence,
        known: Option<&AnomalyStats>,
        recorded: &Recorded,
        frequency: &Frequency,
    ) -> News {
        let reached = self.judge_step(source, known, recorded.outcome, frequency);
        let has_regressed = self.judge_regression(source, occurrence, known, recorded);
        let news = News { reached, has_regressed };
        if news != News::default() {
            self.note(occurrence, news);
        }
        news
    }

    /// Returns true if it is the first occurrence after the mark, and that was not reported before.
    fn judge_regression(
        &self,
        source: Source,
        occurrence: &Occurrence,
        known: Option<&AnomalyStats>,
        recorded: &Recorded,
    ) -> bool {
        let (fixed_at, stats) = (recorded.stats.fixed_at, KnownStats::from(recorded.stats.clone()));
        // The process that received the acknowledgement has reported it.
        if source == Source::Resend || stats.regressed() != Some(true) {
            return false;
        }
        let is_first = match recorded.outcome {
            RecordOutcome::Counted => stats.has_just_regressed(recorded.previous_last_seen),
            // A call whose reply was lost has counted it. The state before it is lost too.
            RecordOutcome::Duplicate => {
                let was_known = known.is_some_and(|known| known.last_seen <= fixed_at);
                was_known && Some(occurrence.at) > fixed_at
            }
            _ => false,
        };
        let reported = self.entries.peek(&occurrence.key).and_then(|entry| entry.regressed_at);
        // News that were reported before this mark were about an earlier mark.
        is_first && reported <= fixed_at
    }

    /// Returns the level that an anomaly has reached, if it was not reported before.
    fn judge_step(
        &mut self,
        source: Source,
        known: Option<&AnomalyStats>,
        outcome: RecordOutcome,
        frequency: &Frequency,
    ) -> Option<EscalationLevel> {
        let (key, rule) = (frequency.key, frequency.rule.rule());
        let known_level = known.and_then(|known| rule.level(known.as_counts()));
        if source == Source::Resend {
            // The answer to its first copy has reported its step.
            let entry = self.entry(key);
            entry.is_blind |= known.is_none();
            entry.level = entry.level.max(known_level);
            if entry.is_blind {
                entry.level = entry.level.max(frequency.level);
            }
        }
        let is_step = match outcome {
            RecordOutcome::Counted => frequency.new_step,
            // A call whose reply was lost has counted it. The count before it is lost too.
            RecordOutcome::Duplicate => match (known, self.reported_level(key)) {
                (None, None) => return None,
                _ => frequency.level > known_level,
            },
            _ => return None,
        };
        let level = frequency.level?;
        let reported = self.reported_level(key);
        let is_news = is_step && Some(level) > reported;
        let entry = self.entry(key);
        entry.level = entry.level.max(Some(level));
        is_news.then_some(level)
    }

    fn reported_level(&mut self, key: AnomalyKey) -> Option<EscalationLevel> {
        self.entries.get(&key).and_then(|entry| entry.level)
    }

    /// Forgets which news of an anomaly were reported.
    pub(crate) fn remove(&mut self, key: AnomalyKey) {
        self.entries.pop(&key);
    }

    /// Forgets everything, because the outage is over.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        counter::judging::judge_recorded,
        domain::{EventId, RuleRef, RuleSet, Thresholds, WindowCounts},
    };

    const KEY: AnomalyKey = AnomalyKey::from_bits(7);

    fn default_rule() -> RuleRef {
        let thresholds = Thresholds::new(3, 5, 10).unwrap();
        RuleRef::of_unknown(RuleSet::parse(&[], thresholds, 86_400, None).unwrap().into())
    }

    fn reported() -> Reported {
        Reported::new(10)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(1_774_799_738_000_000).plus_seconds(second)
    }

    fn occurrence(second: i64) -> Occurrence {
        let id = EventId::parse(&format!("o{second}")).unwrap();
        let (at, signature_json) = (at(second), "{}".into());
        Occurrence { key: KEY, id, at, signature_json, episode: None, rule: None }
    }

    fn counts(day: u64) -> WindowCounts {
        WindowCounts { hour: day, day, week: day, month: day }
    }

    fn recorded(outcome: RecordOutcome, previous: u64, day: u64) -> Recorded {
        let stats = AnomalyStats { counts: counts(day), ..AnomalyStats::default() };
        Recorded {
            outcome,
            now: at(0),
            previous_count_24h: previous,
            previous_last_seen: None,
            stats,
            newest: Vec::new(),
        }
    }

    fn judge(
        reported: &mut Reported,
        source: Source,
        known: Option<u64>,
        recorded: &Recorded,
    ) -> Option<EscalationLevel> {
        let known =
            known.map(|day| AnomalyStats { counts: counts(day), ..AnomalyStats::default() });
        let frequency = judge_recorded(&occurrence(0), default_rule(), recorded);
        reported.judge(source, &occurrence(0), known.as_ref(), recorded, &frequency).reached
    }

    #[test]
    fn a_step_that_an_estimate_has_reported_is_not_reported_by_the_replay() {
        let mut reported = reported();
        let news = News { reached: Some(EscalationLevel::Repeat), ..News::default() };
        reported.note(&occurrence(0), news);
        let counted = |day| recorded(RecordOutcome::Counted, day - 1, day);
        assert_eq!(judge(&mut reported, Source::Replay, None, &counted(3)), None);
        let escalated = judge(&mut reported, Source::Replay, None, &counted(5));
        assert_eq!(escalated, Some(EscalationLevel::Escalate));
        assert_eq!(judge(&mut reported, Source::Replay, None, &counted(5)), None, "only once");
    }

    #[test]
    fn what_is_sent_again_reports_no_level_that_callers_had_got_before() {
        let mut reported = reported();
        for day in 1..=7 {
            let counted = recorded(RecordOutcome::Counted, day - 1, day);
            // The last count that callers got falls with the first reply of the new server.
            let known = if day == 1 { 7 } else { day - 1 };
            assert_eq!(judge(&mut reported, Source::Resend, Some(known), &counted), None, "{day}");
        }
        let mut restarted = self::reported();
        for day in 1..=12 {
            let counted = recorded(RecordOutcome::Counted, day - 1, day);
            let known = (day > 2).then(|| day - 1);
            assert_eq!(judge(&mut restarted, Source::Resend, known, &counted), None, "{day}");
        }
        let counted = recorded(RecordOutcome::Counted, 9, 10);
        let reached = judge(&mut reported, Source::Resend, Some(9), &counted);
        assert_eq!(reached, Some(EscalationLevel::PermanentFix));
    }

    #[test]
    fn a_duplicate_whose_first_answer_was_lost_reports_the_step_of_its_first_copy() {
        let duplicate = recorded(RecordOutcome::Duplicate, 3, 3);
        let reached = judge(&mut reported(), Source::Replay, Some(2), &duplicate);
        assert_eq!(reached, Some(EscalationLevel::Repeat));
        assert_eq!(judge(&mut reported(), Source::Replay, Some(3), &duplicate), None, "known");
        assert_eq!(
            judge(&mut reported(), Source::Replay, None, &duplicate),
            None,
            "unknown before"
        );
    }

    /// Judges an occurrence at `second` that was applied while a mark of `fixed` holds.
    fn has_regressed(
        reported: &mut Reported,
        (source, outcome): (Source, RecordOutcome),
        second: i64,
        (fixed, previous, known): (i64, Option<i64>, Option<i64>),
    ) -> bool {
        let stats = AnomalyStats {
            last_seen: Some(at(second)),
            fixed_at: Some(at(fixed)),
            ..AnomalyStats::default()
        };
        let known =
            known.map(|seen| AnomalyStats { last_seen: Some(at(seen)), ..AnomalyStats::default() });
        let previous_last_seen = previous.map(at);
        let recorded = Recorded { previous_last_seen, stats, ..recorded(outcome, 1, 1) };
        let occurrence = occurrence(second);
        let frequency = judge_recorded(&occurrence, default_rule(), &recorded);
        let news = reported.judge(source, &occurrence, known.as_ref(), &recorded, &frequency);
        news.has_regressed
    }

    #[test]
    fn a_regression_is_reported_once_for_a_mark() {
        const COUNTED: (Source, RecordOutcome) = (Source::Replay, RecordOutcome::Counted);
        const AGAIN: (Source, RecordOutcome) = (Source::Replay, RecordOutcome::Duplicate);
        let mut all = reported();
        assert!(has_regressed(&mut all, COUNTED, 20, (10, Some(5), None)));
        assert!(!has_regressed(&mut all, COUNTED, 21, (10, Some(20), None)), "the second");
        assert!(!has_regressed(&mut all, COUNTED, 20, (10, Some(5), None)), "it was reported");
        assert!(has_regressed(&mut all, COUNTED, 40, (30, Some(21), None)), "another mark");
        let resent = (Source::Resend, RecordOutcome::Counted);
        assert!(!has_regressed(&mut reported(), resent, 20, (10, Some(5), None)));
        assert!(has_regressed(&mut reported(), AGAIN, 20, (10, Some(20), Some(5))));
        assert!(!has_regressed(&mut reported(), AGAIN, 20, (10, Some(20), Some(15))), "known");
        assert!(!has_regressed(&mut reported(), AGAIN, 20, (10, Some(20), None)), "unknown");
        let mut of_estimate = reported();
        of_estimate.note(&occurrence(20), News { has_regressed: true, ..News::default() });
        assert!(!has_regressed(&mut of_estimate, COUNTED, 20, (10, Some(5), None)));
    }
}
