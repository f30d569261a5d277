//! Records occurrences: by `record_known.lua` those of anomalies whose oldest event is known here,
//! and the others, among them what that script leaves to it, by `record.lua`.

use std::collections::HashSet;

use futures_util::future::join;

use super::{
    RedisStore,
    asks::{Asks, window_lengths},
    known_timelines::OldestEvent,
    reply::{self, Reply},
};
use crate::{
    domain::{AnomalyKey, AnomalyStats, Moment, Occurrence, RETENTION, RuleRef, Window},
    store::{RecordOutcome, Recorded, StoreError},
};

/// The outcome of an occurrence; `None` if it must be recorded in another way.
type Attempt = Result<Option<Recorded>, StoreError>;

impl RedisStore {
    pub(super) async fn record_occurrences(
        &self,
        moment: Moment,
        occurrences: &[Occurrence],
        may_be_copies: bool,
    ) -> Vec<Result<Recorded, StoreError>> {
        let (known, others) = self.divide(moment, occurrences, may_be_copies);
        let (of_known, of_others) =
            join(self.try_known(moment, &known), self.try_record(moment, &others, may_be_copies))
                .await;
        let mut attempts: Vec<Attempt> = vec![Ok(None); occurrences.len()];
        for (index, attempt) in of_known.chain(of_others) {
            attempts[index] = attempt;
        }
        // The timelines of some anomalies are not as they were known.
        let left: Vec<_> = known
            .into_iter()
            .filter(|Known { index, .. }| matches!(attempts[*index], Ok(None)))
            .map(|Known { index, occurrence, is_due, .. }| Other { index, occurrence, is_due })
            .collect();
        for (index, attempt) in self.try_record(moment, &left, false).await {
            attempts[index] = attempt;
        }
        // Another program has deleted their keys within the last minute, so they must be renewed
        // after all.
        let wanted = occurrences.iter().enumerate();
        let wanted = wanted.filter(|(index, _)| matches!(attempts[*index], Ok(None)));
        let wanted: Vec<_> =
            wanted.map(|(index, occurrence)| Other { index, occurrence, is_due: true }).collect();
        wanted.iter().for_each(|other| self.renewals.remove(moment.now, other.occurrence.key));
        for (index, attempt) in self.try_record(moment, &wanted, may_be_copies).await {
            attempts[index] = attempt;
        }
        let nothing = || Err(reply::unexpected("wanted"));
        attempts.into_iter().map(|done| done.and_then(|r| r.map_or_else(nothing, Ok))).collect()
    }

    /// Divides occurrences into those for `record_known.lua` and the others. All occurrences of one
    /// anomaly stay together, and therefore in order.
    fn divide<'a>(
        &self,
        moment: Moment,
        occurrences: &'a [Occurrence],
        may_be_copies: bool,
    ) -> (Vec<Known<'a>>, Vec<Other<'a>>) {
        let due = self.renewals.due(moment.now, occurrences);
        let oldest = self.timelines.oldest(occurrences.iter().map(|occurrence| occurrence.key));
        let start = RETENTION.start(moment.now);
        let takes = |occurrence: &Occurrence, oldest: &OldestEvent| {
            !may_be_copies
                && occurrence.episode.is_none()
                && oldest.at >= start
                && oldest.at <= occurrence.at
                && window_lengths(occurrence.rule.as_ref())
                    .eq(window_lengths(occurrences[0].rule.as_ref()))
        };
        let (mut known, mut others) = (Vec::with_capacity(occurrences.len()), Vec::new());
        let elements = occurrences.iter().zip(due).zip(oldest).enumerate();
        for (index, ((occurrence, is_due), oldest)) in elements {
            match oldest.filter(|oldest| takes(occurrence, oldest)) {
                Some(oldest) => known.push(Known { index, occurrence, oldest, is_due }),
                None => others.push(Other { index, occurrence, is_due }),
            }
        }
        if !others.is_empty() {
            let keys: HashSet<AnomalyKey> = others.iter().map(|o| o.occurrence.key).collect();
            let with_others = known.extract_if(.., |known| keys.contains(&known.occurrence.key));
            others.extend(with_others.map(|Known { index, occurrence, is_due, .. }| Other {
                index,
                occurrence,
                is_due,
            }));
            others.sort_unstable_by_key(|other| other.index);
        }
        (known, others)
    }

    /// Records occurrences by `record_known.lua`.
    async fn try_known(
        &self,
        moment: Moment,
        known: &[Known<'_>],
    ) -> impl Iterator<Item = (usize, Attempt)> {
        let begin = |elements: &[&Known<'_>]| {
            self.calls.record_known(moment.now, elements.iter().map(|known| known.occurrence))
        };
        let add = |call: &mut _, Known { occurrence, oldest, is_due, .. }: &Known<'_>| {
            self.calls.add_known_occurrence(call, moment.now, occurrence, oldest, *is_due);
        };
        let read = move |Known { occurrence, oldest, is_due, .. }: &Known<'_>, mut reply: Reply| {
            match reply.tag()? {
                "counted" => {}
                "more" => return Ok(None),
                other => return Err(reply::unexpected(other)),
            }
            let rule = occurrence.rule.as_ref();
            let stats = reply.stats(moment.now, rule, Some(oldest.at), Some(occurrence.at))?;
            if *is_due {
                self.renewals.add(moment.now, occurrence.key);
            }
            if !self.may_stay_known(&stats) {
                self.timelines.set(occurrence.key, None);
            }
            recorded(moment, occurrence, RecordOutcome::Counted, stats, &mut reply).map(Some)
        };
        let replies = self.run_by_slot(known, |known| known.occurrence.key, begin, add).await;
        replies.into_iter().map(move |(index, reply)| {
            let known = &known[index];
            (known.index, reply.and_then(|reply| read(known, reply)))
        })
    }

    /// Records occurrences by `record.lua`, or `alerts.lua` if there are alerts.
    async fn try_record(
        &self,
        moment: Moment,
        others: &[Other<'_>],
        may_be_copies: bool,
    ) -> impl Iterator<Item = (usize, Attempt)> {
        let asks = Asks::of(others.iter().map(|other| other.occurrence), moment.now);
        let begin = |elements: &[&Other<'_>]| {
            let has_alerts = elements.iter().any(|other| other.occurrence.episode.is_some());
            self.calls.record(moment, may_be_copies, has_alerts, asks.of_most())
        };
        let add = |call: &mut _, Other { occurrence, is_due, .. }: &Other<'_>| {
            self.calls.add_occurrence(call, occurrence, *is_due, asks.of_one(occurrence));
        };
        let read = move |occurrence: &Occurrence, mut reply: Reply| {
            let outcome = match reply.tag()? {
                "counted" => RecordOutcome::Counted,
                "duplicate" => RecordOutcome::Duplicate,
                "too_old" => RecordOutcome::TooOld,
                "unrecognisable" => RecordOutcome::Unrecognisable,
                "ongoing" => RecordOutcome::Ongoing,
                "same_incident" => RecordOutcome::SameIncident,
                "resolved" => RecordOutcome::Resolved,
                "stale" => RecordOutcome::Stale,
                "wanted" => return Ok(None),
                other => return Err(reply::unexpected(other)),
            };
            let stats = reply.stats(moment.now, occurrence.rule.as_ref(), None, None)?;
            if outcome == RecordOutcome::Counted {
                self.renewals.add(moment.now, occurrence.key);
                let oldest = reply.oldest_event().filter(|_| self.may_stay_known(&stats));
                let oldest = oldest.map(|OldestEvent { id, at }| {
                    let is_own = occurrence.id.is_made_up() && *id == *occurrence.id.as_str();
                    OldestEvent { id: if is_own { id.unique() } else { id }, at }
                });
                self.timelines.set(occurrence.key, oldest);
            }
            recorded(moment, occurrence, outcome, stats, &mut reply).map(Some)
        };
        let replies = self.run_by_slot(others, |other| other.occurrence.key, begin, add).await;
        replies.into_iter().map(move |(index, reply)| {
            let other = &others[index];
            (other.index, reply.and_then(|reply| read(other.occurrence, reply)))
        })
    }

    /// Returns true if the next write will not roll up a timeline, which only `record.lua` does.
    pub(super) fn may_stay_known(&self, stats: &AnomalyStats) -> bool {
        stats.counts.month < self.calls.recording.timeline.exact_events() as u64
    }
}

/// An occurrence that is recorded by `record_known.lua`.
struct Known<'a> {
    index: usize,
    occurrence: &'a Occurrence,
    oldest: OldestEvent,
    /// True if it renews the TTLs of its anomaly's keys.
    is_due: bool,
}

/// An occurrence that is recorded by `record.lua` or `alerts.lua`.
struct Other<'a> {
    index: usize,
    occurrence: &'a Occurrence,
    /// True if it renews the TTLs of its anomaly's keys.
    is_due: bool,
}

/// Returns the store's answer to an occurrence.
fn recorded(
    moment: Moment,
    occurrence: &Occurrence,
    outcome: RecordOutcome,
    stats: AnomalyStats,
    reply: &mut Reply,
) -> Result<Recorded, StoreError> {
    let is_one_more =
        outcome == RecordOutcome::Counted && occurrence.at >= Window::Day.start(moment.now);
    let wanted = occurrence.rule.as_ref().map_or(0, RuleRef::newest_wanted);
    Ok(Recorded {
        outcome,
        now: moment.now,
        previous_count_24h: stats.counts.day - u64::from(is_one_more),
        previous_last_seen: reply.previous_last_seen()?,
        stats,
        newest: reply.newest_times(wanted)?,
    })
}
