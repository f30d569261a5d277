//! One anomaly as the embedded store keeps it, and the effect of each change on it. Pure: the same
//! changes in the same order give the same anomaly, which the journal relies on.

use std::{hint::black_box, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    domain::{
        AlertCounted, AlertEpisode, AlertPolicy, AnomalyStats, Decision, EventDigest, ExtraCount,
        FieldIds, Firing, IncidentChange, Incidents, Insertion, Moment, PermanentFix,
        RecentAttempt, RecentIds, RepairHistory, RuleRef, Timeline, TimelineConfig, Timestamp,
    },
    store::{AnomalyDetails, AnomalyHistory, KEPT_SECONDS},
};

/// Everything that is kept about one anomaly, except its signature when that is on disk. Most
/// anomalies are quiet, and there may be a million of them, so rare parts are boxed. The order of
/// the fields is part of the file format.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Anomaly {
    known_since: Timestamp,
    kept_until: Timestamp,
    timeline: Timeline,
    remediation: Option<Box<Remediation>>,
    incidents: Option<Box<Incidents>>,
    /// Present until a checkpoint has written it to the file. Boxed, because most anomalies have
    /// none.
    #[serde(skip)]
    new_signature_json: Option<Box<Arc<str>>>,
    /// The identifying fields, which lists use; absent if they are not known.
    #[serde(skip)]
    fields: Option<FieldIds>,
}

/// The repairs of an anomaly and the mark of its permanent fix.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Remediation {
    repairs: RepairHistory,
    repairs_kept_until: Timestamp,
    fix: Option<PermanentFix>,
    /// The ids of repairs, marks and removals, with the time at which each arrived.
    #[serde(with = "operation_ids")]
    operation_ids: RecentIds,
}

/// An anomaly in rows before version 4, without alerts.
#[derive(Debug, Deserialize)]
pub(super) struct AnomalyV2 {
    known_since: Timestamp,
    kept_until: Timestamp,
    timeline: Timeline,
    remediation: Option<Box<Remediation>>,
}

impl From<AnomalyV2> for Anomaly {
    fn from(old: AnomalyV2) -> Self {
        let AnomalyV2 { known_since, kept_until, timeline, remediation } = old;
        Self {
            known_since,
            kept_until,
            timeline,
            remediation,
            incidents: None,
            new_signature_json: None,
            fields: None,
        }
    }
}

/// The stored form of the ids of operations: pairs of an id and its time.
mod operation_ids {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use crate::domain::{EventDigest, RecentIds, Timestamp};

    pub(super) fn serialize<S: Serializer>(
        ids: &RecentIds,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let pairs: Vec<_> = ids.list().map(|(at, id)| (id, at)).collect();
        pairs.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<RecentIds, D::Error> {
        let pairs = Vec::<(EventDigest, Timestamp)>::deserialize(deserializer)?;
        let mut ids: Vec<_> = pairs.into_iter().map(|(id, at)| (at, id)).collect();
        // They may have been written in any order.
        ids.sort_by_key(|(at, _)| *at);
        Ok(RecentIds::from(std::collections::VecDeque::from(ids)))
    }
}

impl Default for Remediation {
    fn default() -> Self {
        Self {
            repairs: RepairHistory::default(),
            repairs_kept_until: Timestamp::MIN,
            fix: None,
            operation_ids: RecentIds::default(),
        }
    }
}

impl Remediation {
    /// Remembers an id as one of the last `limit`, and forgets expired ones. Returns false and
    /// changes nothing if the id is known.
    fn remember_id(&mut self, moment: Moment, id: EventDigest, limit: usize) -> bool {
        let start = moment.horizon.minus_seconds(KEPT_SECONDS);
        if self.operation_ids.time_of(id).is_some_and(|at| at > start) {
            return false;
        }
        self.operation_ids.drop_until(start);
        self.operation_ids.add(moment.now, id, limit);
        true
    }

    /// Returns the mark if it holds at a time.
    fn fix(&self, time: Timestamp) -> Option<&PermanentFix> {
        self.fix.as_ref().filter(|fix| time < fix.expires_at())
    }
}

impl Anomaly {
    pub(super) fn new(
        signature_json: Arc<str>,
        fields: Option<FieldIds>,
        known_since: Timestamp,
    ) -> Self {
        Self {
            known_since,
            kept_until: Timestamp::MIN,
            timeline: Timeline::default(),
            remediation: None,
            incidents: None,
            new_signature_json: Some(Box::new(signature_json)),
            fields,
        }
    }

    pub(super) fn fields(&self) -> Option<FieldIds> {
        self.fields
    }

    pub(super) fn set_fields(&mut self, fields: Option<FieldIds>) {
        self.fields = fields;
    }

    /// Returns the number of events in each of `buckets` consecutive intervals of `step_seconds`,
    /// oldest first. The last one ends now, and includes events that lie ahead.
    pub(super) fn series(&self, now: Timestamp, step_seconds: i64, buckets: u16) -> Vec<u64> {
        let since = |ago: i64| self.timeline.count_since(now.minus_seconds(ago * step_seconds));
        let counts: Vec<u64> = (1..=i64::from(buckets)).rev().map(since).chain([0]).collect();
        counts.windows(2).map(|pair| pair[0].saturating_sub(pair[1])).collect()
    }

    pub(super) fn is_kept(&self, moment: Moment) -> bool {
        moment.horizon < self.kept_until
    }

    /// Adds an occurrence that has not expired.
    pub(super) fn occur(
        &mut self,
        moment: Moment,
        at: Timestamp,
        id: EventDigest,
        config: TimelineConfig,
    ) -> Insertion {
        self.timeline.forget_expired(moment.horizon);
        let insertion = self.timeline.insert(moment.horizon, at, id, config);
        if insertion == Insertion::Inserted {
            // The time of an event may be right even if the clock is behind.
            self.keep_for(moment.now.max(at), KEPT_SECONDS);
        }
        insertion
    }

    /// Extends the time for which the anomaly is kept as an occurrence does, without an event.
    pub(super) fn keep_without_event(&mut self, moment: Moment) {
        self.keep_for(moment.now, KEPT_SECONDS);
    }

    /// Decides about an alert of an anomaly that may be unknown.
    pub(super) fn decide(
        known: Option<&Self>,
        now: Timestamp,
        alert: &AlertEpisode,
        policy: AlertPolicy,
    ) -> Decision {
        let fixed_at = known.and_then(|known| known.fix(now)).map(|fix| fix.marked_at);
        match known.and_then(|known| known.incidents.as_deref()) {
            Some(incidents) => incidents.decide(now, alert, fixed_at, policy),
            None => Incidents::default().decide(now, alert, fixed_at, policy),
        }
    }

    /// Applies the effect of an alert.
    pub(super) fn change_incidents(&mut self, change: &IncidentChange, counted: AlertCounted) {
        self.incidents.get_or_insert_default().apply(change, counted);
    }

    /// Adds a repair attempt. Returns false if its id is known.
    pub(super) fn attempt_repair(
        &mut self,
        moment: Moment,
        id: EventDigest,
        attempt: RecentAttempt,
        config: TimelineConfig,
    ) -> bool {
        let Moment { now, horizon, .. } = moment;
        let remediation = self.remediation();
        if !remediation.remember_id(moment, id, config.operation_ids()) {
            return false;
        }
        if horizon >= remediation.repairs_kept_until {
            remediation.repairs = RepairHistory::default();
        }
        // Those that had expired when a process was new, and so were not forgotten then.
        remediation.repairs.forget_expired(horizon, KEPT_SECONDS);
        remediation.repairs.push(attempt);
        remediation.repairs_kept_until = now.plus_seconds(KEPT_SECONDS);
        self.keep_for(now, KEPT_SECONDS);
        true
    }

    /// Sets the mark. Returns false if its id is known.
    pub(super) fn mark_fixed(
        &mut self,
        moment: Moment,
        id: EventDigest,
        fix: PermanentFix,
        config: TimelineConfig,
    ) -> bool {
        if !self.remediation().remember_id(moment, id, config.operation_ids()) {
            return false;
        }
        self.kept_until = self.kept_until.max(fix.expires_at());
        self.keep_for(moment.now, KEPT_SECONDS);
        self.remediation().fix = Some(fix);
        true
    }

    /// Removes the mark. Returns false if there is none or the id is known.
    pub(super) fn unmark_fixed(
        &mut self,
        moment: Moment,
        id: EventDigest,
        config: TimelineConfig,
    ) -> bool {
        if self.fix(moment.horizon).is_none()
            || !self.remediation().remember_id(moment, id, config.operation_ids())
        {
            return false;
        }
        self.remediation().fix = None;
        true
    }

    /// Asks the memory for the events, which are not beside the anomaly.
    pub(super) fn read_ahead(&self) {
        black_box(self.timeline.oldest_exact());
    }

    pub(super) fn count_24h(&self, now: Timestamp) -> u64 {
        self.timeline.counts(now).day
    }

    /// Returns the stats, with the counts that a rule needs.
    pub(super) fn stats(&self, now: Timestamp, rule: Option<&RuleRef>) -> AnomalyStats {
        let span = self.timeline.span(now);
        let mut stats = AnomalyStats {
            counts: self.timeline.counts(now),
            extra: Vec::new(),
            is_approximate: self.timeline.is_approximate(now),
            first_seen: span.map(|(first, _)| first),
            last_seen: span.map(|(_, last)| last),
            repair_attempts: self
                .kept_repairs(now)
                .map_or(0, |repairs| repairs.total_at(now, KEPT_SECONDS)),
            fixed_at: self.fix(now).map(|fix| fix.marked_at),
        };
        let windows = rule.map(RuleRef::extra_windows).unwrap_or_default();
        stats.set_extra(now, windows, |_, window| {
            let start = window.start(now);
            let (count, seconds) = (self.timeline.count_since(start), window.seconds);
            let is_approximate = self.timeline.cuts_bucket(start);
            Some(ExtraCount { seconds, count, is_approximate })
        });
        stats
    }

    /// Returns the times of the newest events that a rule needs, if `stats` may be those of a step.
    pub(super) fn newest(&self, stats: &AnomalyStats, rule: &RuleRef) -> Vec<Timestamp> {
        if !rule.rule().may_step(stats.as_counts()) {
            return Vec::new();
        }
        self.timeline.newest(rule.newest_wanted())
    }

    /// Returns the newest event if a mark holds.
    pub(super) fn last_seen_of_marked(&self, now: Timestamp) -> Option<Timestamp> {
        self.fix(now)?;
        self.timeline.span(now).map(|(_, last)| last)
    }

    /// Returns all details, without the signature if that is on disk.
    pub(super) fn details(
        &self,
        now: Timestamp,
        rule: Option<&RuleRef>,
        policy: AlertPolicy,
    ) -> AnomalyDetails {
        AnomalyDetails {
            signature_json: self.new_signature_json().map(str::to_owned),
            known_since: Some(self.known_since),
            stats: self.stats(now, rule),
            fix: self.fix(now).cloned(),
            repairs: self.repairs(now),
            firing: self.firing(now, policy),
        }
    }

    /// Returns the history, without the audit.
    pub(super) fn history(&self, now: Timestamp, times: &[Timestamp]) -> AnomalyHistory {
        AnomalyHistory {
            known_since: Some(self.known_since),
            counts: self.timeline.counts_since(now, times),
            audit: Vec::new(),
        }
    }

    /// Returns the firing alerts.
    pub(super) fn firing(&self, now: Timestamp, policy: AlertPolicy) -> Option<Firing> {
        self.incidents.as_ref()?.firing(now, policy)
    }

    pub(super) fn repairs(&self, now: Timestamp) -> RepairHistory {
        let kept = self.kept_repairs(now);
        kept.map(|repairs| repairs.at(now, KEPT_SECONDS)).unwrap_or_default()
    }

    /// Returns the signature if it is not on disk yet.
    pub(super) fn new_signature_json(&self) -> Option<&str> {
        self.new_signature_json.as_ref().map(|json| &***json)
    }

    /// Frees the memory of a signature that is on disk.
    pub(super) fn signature_is_written(&mut self) {
        self.new_signature_json = None;
    }

    pub(super) fn has_expired_events(&self, moment: Moment) -> bool {
        self.timeline.has_expired(moment.horizon)
    }

    /// Returns true if it has events and all of them have expired.
    pub(super) fn has_only_expired_events(&self, moment: Moment) -> bool {
        self.timeline.has_only_expired(moment.horizon)
    }

    /// Removes expired events. Returns true if there were any.
    pub(super) fn forget_expired_events(&mut self, moment: Moment) -> bool {
        let had_any = self.timeline.has_only_expired(moment.horizon);
        self.timeline.forget_expired(moment.horizon) || had_any
    }

    fn fix(&self, now: Timestamp) -> Option<&PermanentFix> {
        self.remediation.as_ref()?.fix(now)
    }

    fn kept_repairs(&self, now: Timestamp) -> Option<&RepairHistory> {
        let remediation = self.remediation.as_ref()?;
        (now < remediation.repairs_kept_until).then_some(&remediation.repairs)
    }

    fn remediation(&mut self) -> &mut Remediation {
        self.remediation.get_or_insert_default()
    }

    fn keep_for(&mut self, now: Timestamp, seconds: i64) {
        self.kept_until = self.kept_until.max(now.plus_seconds(seconds));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::EventId;

    #[test]
    fn a_series_has_the_events_of_each_hour_and_adds_up_to_the_count() {
        let now = Timestamp::from_micros(1_774_799_738_000_000);
        let mut anomaly = Anomaly::new("{}".into(), None, now);
        let one = std::num::NonZeroU32::MIN;
        let config = TimelineConfig { exact_events: one.saturating_add(9), operation_ids: one };
        for (seconds, name) in [(0, "a"), (10, "b"), (3_600, "c"), (86_400, "d"), (86_401, "e")] {
            let id = EventId::parse(name).unwrap().digest();
            anomaly.occur(now.into(), now.minus_seconds(seconds), id, config);
        }
        let series = anomaly.series(now, 3_600, 24);
        assert_eq!(series.len(), 24);
        assert_eq!(series.iter().sum::<u64>(), anomaly.count_24h(now));
        assert_eq!(series[0], 1);
        assert_eq!(series[23], 3, "both ends of an hour are inside the later one");
    }
}
