//! The level steps that were reported in this outage, by anomaly. Writes that have waited are
//! judged again by the counts that come back when they are applied: only a step that nobody has
//! heard of is reported then. Bounded in number.

use std::num::NonZeroUsize;

use lru::LruCache;

use crate::{
    domain::{AnomalyKey, EscalationLevel, Thresholds},
    store::{RecordOutcome, Recorded},
};

/// Why an occurrence is applied again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// It has waited in the spool.
    Replay,
    /// The store had acknowledged it, and may have forgotten it.
    Resend,
}

/// The highest level that was reported of each anomaly.
#[derive(Debug)]
pub(crate) struct ReportedSteps {
    levels: LruCache<AnomalyKey, Reported>,
    limit: NonZeroUsize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Reported {
    level: Option<EscalationLevel>,
    /// Nothing was known of the anomaly when its writes began to be sent again, as after a restart:
    /// another process has answered them, and reported their steps.
    is_blind: bool,
}

impl ReportedSteps {
    pub(crate) fn new(limit: NonZeroUsize) -> Self {
        Self { levels: LruCache::unbounded(), limit }
    }

    /// Notes that a level was reported, or was known before.
    pub(crate) fn note(&mut self, key: AnomalyKey, level: Option<EscalationLevel>) {
        if level.is_some() {
            let reported = self.entry(key);
            reported.level = reported.level.max(level);
        }
    }

    fn entry(&mut self, key: AnomalyKey) -> &mut Reported {
        if self.levels.len() >= self.limit.get() && !self.levels.contains(&key) {
            self.levels.pop_lru();
        }
        self.levels.get_or_insert_mut(key, Reported::default)
    }

    /// Judges an occurrence that was applied again. Returns the level that it has reached, if
    /// nobody has heard of that. `known_count_24h` is the count of 24 hours that a caller got last.
    pub(crate) fn judge(
        &mut self,
        source: Source,
        thresholds: Thresholds,
        key: AnomalyKey,
        known_count_24h: Option<u64>,
        recorded: &Recorded,
    ) -> Option<EscalationLevel> {
        let known = known_count_24h.and_then(|count| thresholds.level(count));
        if source == Source::Resend {
            // Its step was in the answer to its first copy.
            let reported = self.entry(key);
            reported.is_blind |= known_count_24h.is_none();
            reported.level = reported.level.max(known);
            if reported.is_blind {
                let answered = thresholds.level(recorded.stats.counts.day);
                reported.level = reported.level.max(answered);
            }
        }
        let previous = match recorded.outcome {
            RecordOutcome::Counted => thresholds.level(recorded.previous_count_24h),
            // Counted by a call whose answer was lost, and with it the count before.
            RecordOutcome::Duplicate => {
                match (known_count_24h, self.levels.get(&key).and_then(|reported| reported.level)) {
                    (None, None) => return None,
                    _ => known,
                }
            }
            RecordOutcome::TooOld | RecordOutcome::Unrecognisable => return None,
        };
        let level = thresholds.level(recorded.stats.counts.day)?;
        let reported = self.levels.get(&key).and_then(|reported| reported.level);
        let is_news = Some(level) > previous && Some(level) > reported;
        self.note(key, Some(level));
        is_news.then_some(level)
    }

    /// Forgets all of them, because the outage is over.
    pub(crate) fn clear(&mut self) {
        self.levels.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AnomalyStats, WindowCounts};

    const KEY: AnomalyKey = AnomalyKey::from_bits(7);

    fn steps() -> ReportedSteps {
        ReportedSteps::new(NonZeroUsize::new(10).unwrap())
    }

    fn recorded(outcome: RecordOutcome, previous: u64, day: u64) -> Recorded {
        let counts = WindowCounts { hour: day, day, week: day, month: day };
        let stats = AnomalyStats { counts, ..AnomalyStats::default() };
        Recorded { outcome, previous_count_24h: previous, stats }
    }

    fn judge(
        steps: &mut ReportedSteps,
        source: Source,
        known: Option<u64>,
        recorded: &Recorded,
    ) -> Option<EscalationLevel> {
        let thresholds = Thresholds::new(3, 5, 10).unwrap();
        steps.judge(source, thresholds, KEY, known, recorded)
    }

    #[test]
    fn a_step_that_an_estimate_has_reported_is_not_reported_by_the_replay() {
        let mut steps = steps();
        steps.note(KEY, Some(EscalationLevel::Repeat));
        let counted = |day| recorded(RecordOutcome::Counted, day - 1, day);
        assert_eq!(judge(&mut steps, Source::Replay, None, &counted(3)), None);
        let escalated = judge(&mut steps, Source::Replay, None, &counted(5));
        assert_eq!(escalated, Some(EscalationLevel::Escalate));
        assert_eq!(judge(&mut steps, Source::Replay, None, &counted(5)), None, "only once");
    }

    #[test]
    fn what_is_sent_again_reports_no_level_that_callers_had_got_before() {
        let mut steps = steps();
        for day in 1..=7 {
            let counted = recorded(RecordOutcome::Counted, day - 1, day);
            // The count that callers got last falls with the first reply of the new server.
            let known = if day == 1 { 7 } else { day - 1 };
            assert_eq!(judge(&mut steps, Source::Resend, Some(known), &counted), None, "{day}");
        }
        let mut restarted = self::steps();
        for day in 1..=12 {
            let counted = recorded(RecordOutcome::Counted, day - 1, day);
            let known = (day > 2).then(|| day - 1);
            assert_eq!(judge(&mut restarted, Source::Resend, known, &counted), None, "{day}");
        }
        let counted = recorded(RecordOutcome::Counted, 9, 10);
        let reached = judge(&mut steps, Source::Resend, Some(9), &counted);
        assert_eq!(reached, Some(EscalationLevel::PermanentFix));
    }

    #[test]
    fn a_duplicate_whose_first_answer_was_lost_reports_the_step_of_its_first_copy() {
        let duplicate = recorded(RecordOutcome::Duplicate, 3, 3);
        let reached = judge(&mut steps(), Source::Replay, Some(2), &duplicate);
        assert_eq!(reached, Some(EscalationLevel::Repeat));
        assert_eq!(judge(&mut steps(), Source::Replay, Some(3), &duplicate), None, "known");
        assert_eq!(judge(&mut steps(), Source::Replay, None, &duplicate), None, "unknown before");
    }
}
