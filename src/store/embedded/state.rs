//! All anomalies in memory. A call is checked first (is it a duplicate, too old, or unknown?). If
//! it has an effect, it becomes a [`Change`], which is applied here and written to the journal by
//! the writer. Replaying the journal uses the same [`State::apply`].

use std::{collections::BTreeMap, num::NonZeroUsize, ops::Bound, sync::Arc};

use parking_lot::RwLock;

use super::{
    anomaly::Anomaly,
    journal::{Audit, Change},
};
use crate::{
    domain::{
        AlertCounted, AlertEpisode, AlertPolicy, AlertVerdict, AnomalyKey, AnomalyStats,
        AuditEntry, FixMark, FixRemoval, Insertion, Moment, Occurrence, PermanentFix, RETENTION,
        RepairAttempt, RepairHistory, Signature, Texts, TimelineConfig, Timestamp,
    },
    store::{
        AnomalyDetails, AnomalyHistory, Judged, RecordOutcome, Recorded, RecordingConfig,
        RepairRecorded, Scanned, StoreError, StoreSize,
    },
};

/// Number of anomalies whose events a scan asks the memory for at the same time.
const READ_AHEAD: usize = 32;

/// The state, shared by the writer and the readers.
pub(super) type SharedState = RwLock<State>;

#[derive(Debug)]
pub(super) struct State {
    timeline: TimelineConfig,
    alerts: AlertPolicy,
    max_anomalies: NonZeroUsize,
    anomalies: BTreeMap<AnomalyKey, Anomaly>,
    /// The identifying fields of all anomalies.
    texts: Texts,
    /// Changes since [`State::take_changes`].
    changes: Vec<Change>,
    /// The audit entries of the changes.
    audit: Audit,
}

impl State {
    pub(super) fn new(recording: RecordingConfig, max_anomalies: NonZeroUsize) -> Self {
        let RecordingConfig { timeline, alerts } = recording;
        Self {
            timeline,
            alerts,
            max_anomalies,
            anomalies: BTreeMap::new(),
            texts: Texts::default(),
            changes: Vec::new(),
            audit: Audit::new(),
        }
    }

    /// Returns a state with the same limits and without anomalies.
    pub(super) fn emptied(&self) -> Self {
        let recording = RecordingConfig { timeline: self.timeline, alerts: self.alerts };
        Self::new(recording, self.max_anomalies)
    }

    pub(super) fn limits(&self) -> TimelineConfig {
        self.timeline
    }

    /// Sets the limits of the next changes.
    pub(super) fn set_limits(&mut self, limits: TimelineConfig) {
        self.timeline = limits;
    }

    pub(super) fn size(&self) -> StoreSize {
        StoreSize { anomalies: self.anomalies.len(), max_anomalies: self.max_anomalies.get() }
    }

    /// Inserts an anomaly that was read from the file.
    pub(super) fn restore(&mut self, key: AnomalyKey, anomaly: Anomaly) {
        self.anomalies.insert(key, anomaly);
    }

    /// Sets the identifying fields of an anomaly that was read from the file, from its signature.
    pub(super) fn restore_fields(&mut self, key: AnomalyKey, signature_json: &str) {
        if let Some(anomaly) = self.anomalies.get_mut(&key)
            && anomaly.fields().is_none()
        {
            let signature = Signature::from_stored(signature_json);
            anomaly.set_fields(signature.and_then(|signature| self.texts.add(&signature)));
        }
    }

    /// Calls `visit` with up to `max_seen` anomalies after `cursor`, in the order of their keys.
    /// Returns the cursor to continue from; `None` at the end.
    pub(super) fn scan(
        &self,
        moment: Moment,
        cursor: Option<AnomalyKey>,
        max_seen: usize,
        visit: &mut dyn FnMut(&Scanned<'_>),
    ) -> Option<AnomalyKey> {
        let after = cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let mut anomalies = self.anomalies.range((after, Bound::Unbounded));
        let (mut last, mut slice) = (None, anomalies.by_ref().take(max_seen));
        let mut some = Vec::with_capacity(READ_AHEAD);
        loop {
            some.clear();
            some.extend(slice.by_ref().take(READ_AHEAD));
            let Some((key, _)) = some.last() else { break };
            last = Some(**key);
            // Among a million none is in a cache. One after the other each would be waited for; of
            // many that are asked for at once the processor waits for the first.
            some.iter().for_each(|(_, anomaly)| anomaly.read_ahead());
            for (key, anomaly) in some.iter().filter(|(_, anomaly)| anomaly.is_kept(moment)) {
                visit(&Scanned {
                    key: **key,
                    fields: anomaly.fields(),
                    texts: &self.texts,
                    stats: &|rule| anomaly.stats(moment.now, Some(rule)).into(),
                    firing: &|| anomaly.firing(moment.now, self.alerts),
                });
            }
        }
        last.filter(|_| anomalies.next().is_some())
    }

    /// Returns the number of an anomaly's events in consecutive intervals.
    pub(super) fn series(
        &self,
        moment: Moment,
        key: AnomalyKey,
        step_seconds: i64,
        buckets: u16,
    ) -> Option<Vec<u64>> {
        let known = self.known(moment, key)?;
        Some(known.series(moment.now, step_seconds, buckets))
    }

    /// Returns all anomalies, in the order of their keys.
    pub(super) fn anomalies(&self) -> impl Iterator<Item = (AnomalyKey, &Anomaly)> {
        self.anomalies.iter().map(|(key, anomaly)| (*key, anomaly))
    }

    pub(super) fn anomaly(&self, key: AnomalyKey) -> Option<&Anomaly> {
        self.anomalies.get(&key)
    }

    /// Frees the memory of signatures that are on disk.
    pub(super) fn signatures_are_written(&mut self, keys: impl Iterator<Item = AnomalyKey>) {
        for key in keys {
            if let Some(anomaly) = self.anomalies.get_mut(&key) {
                anomaly.signature_is_written();
            }
        }
    }

    /// Removes and returns the changes since the last call, in order.
    pub(super) fn take_changes(&mut self) -> (Vec<Change>, Audit) {
        (std::mem::take(&mut self.changes), std::mem::take(&mut self.audit))
    }

    pub(super) fn is_known(&self, moment: Moment, key: AnomalyKey) -> bool {
        self.known(moment, key).is_some()
    }

    pub(super) fn stats(&self, moment: Moment, anomaly: &Judged) -> Option<AnomalyStats> {
        let known = self.known(moment, anomaly.key)?;
        Some(known.stats(moment.now, anomaly.rule.as_ref()))
    }

    pub(super) fn details(&self, moment: Moment, anomaly: &Judged) -> Option<AnomalyDetails> {
        let known = self.known(moment, anomaly.key)?;
        Some(known.details(moment.now, anomaly.rule.as_ref(), self.alerts))
    }

    pub(super) fn repairs(&self, moment: Moment, key: AnomalyKey) -> Option<RepairHistory> {
        self.known(moment, key).map(|anomaly| anomaly.repairs(moment.now))
    }

    /// Returns the history of an anomaly without its audit, which is in the file.
    pub(super) fn history(
        &self,
        moment: Moment,
        key: AnomalyKey,
        times: &[Timestamp],
    ) -> Option<AnomalyHistory> {
        self.known(moment, key).map(|anomaly| anomaly.history(moment.now, times))
    }

    /// Records an occurrence or an alert, unless it would make a new anomaly known above the
    /// permitted number.
    pub(super) fn record(
        &mut self,
        moment: Moment,
        occurrence: &Occurrence,
    ) -> Result<Recorded, StoreError> {
        if let Some(alert) = &occurrence.episode {
            return self.hear(moment, occurrence, alert);
        }
        let key = occurrence.key;
        let known = self.known(moment, key);
        let previous_count_24h = known.map_or(0, |anomaly| anomaly.count_24h(moment.now));
        let previous_last_seen = known.and_then(|known| known.last_seen_of_marked(moment.now));
        let signature_json = known.is_none().then(|| occurrence.signature_json.to_stored());

        // A duplicate also removes expired events, which would otherwise stay in the file.
        let prunes = known.is_some_and(|anomaly| anomaly.has_expired_events(moment));
        let has_room = !self.is_full() || self.anomalies.contains_key(&key);
        let (at, id) = (occurrence.at, occurrence.id.digest());
        let change = Change::Occurred { key, at, id, signature_json };

        let outcome = if is_too_old(moment, at) {
            if has_room {
                self.commit(moment, change);
            }
            RecordOutcome::TooOld
        } else if !has_room {
            return Err(StoreError::full(self.max_anomalies.get()));
        } else {
            let counts = self.apply(moment, &change);
            if counts || prunes {
                self.changes.push(change);
            }
            if counts { RecordOutcome::Counted } else { RecordOutcome::Duplicate }
        };
        let before = (previous_count_24h, previous_last_seen);
        Ok(self.recorded(moment, occurrence, outcome, before))
    }

    /// Returns the outcome of an occurrence, with the 24-hour count before it and, for a marked
    /// anomaly, the newest event before it.
    fn recorded(
        &self,
        moment: Moment,
        occurrence: &Occurrence,
        outcome: RecordOutcome,
        (previous_count_24h, previous_last_seen): (u64, Option<Timestamp>),
    ) -> Recorded {
        let (now, rule) = (moment.now, occurrence.rule.as_ref());
        let known = self.known(moment, occurrence.key);
        let stats = known.map(|anomaly| anomaly.stats(now, rule)).unwrap_or_default();
        let newest = match (known, rule) {
            (Some(anomaly), Some(rule)) if outcome == RecordOutcome::Counted => {
                anomaly.newest(&stats, rule)
            }
            _ => Vec::new(),
        };
        Recorded { outcome, now, previous_count_24h, previous_last_seen, stats, newest }
    }

    /// Applies an alert, and records an occurrence if the alert is one.
    fn hear(
        &mut self,
        moment: Moment,
        occurrence: &Occurrence,
        alert: &AlertEpisode,
    ) -> Result<Recorded, StoreError> {
        let (key, at) = (occurrence.key, occurrence.at);
        let known = self.known(moment, key);
        let previous_count_24h = known.map_or(0, |anomaly| anomaly.count_24h(moment.now));
        let previous_last_seen = known.and_then(|known| known.last_seen_of_marked(moment.now));
        let signature_json = known.is_none().then(|| occurrence.signature_json.to_stored());
        let decision = Anomaly::decide(known, moment.now, alert, self.alerts);
        let has_room = !self.is_full() || self.anomalies.contains_key(&key);

        let counts = decision.verdict == AlertVerdict::Count;
        if counts && !has_room && !is_too_old(moment, at) {
            return Err(StoreError::full(self.max_anomalies.get()));
        }
        let is_change = counts || !decision.change.is_empty();
        let id = occurrence.id.digest();
        let incidents = decision.change;
        let change = Change::Alerted { key, at, id, counts, signature_json, incidents };
        let mut is_new = false;
        if is_change && has_room {
            is_new = self.apply(moment, &change);
            self.changes.push(change);
        }
        let outcome = match decision.verdict {
            AlertVerdict::Count if is_too_old(moment, at) => RecordOutcome::TooOld,
            AlertVerdict::Count if is_new => RecordOutcome::Counted,
            AlertVerdict::Count => RecordOutcome::Duplicate,
            AlertVerdict::Ongoing => RecordOutcome::Ongoing,
            AlertVerdict::SameIncident => RecordOutcome::SameIncident,
            AlertVerdict::Resolved => RecordOutcome::Resolved,
            AlertVerdict::Stale => RecordOutcome::Stale,
        };
        let before = (previous_count_24h, previous_last_seen);
        Ok(self.recorded(moment, occurrence, outcome, before))
    }

    pub(super) fn record_repair(
        &mut self,
        moment: Moment,
        attempt: &RepairAttempt,
    ) -> Option<RepairRecorded> {
        let key = attempt.key;
        self.known(moment, key)?;
        let id = attempt.id.digest();
        let change = Change::RepairAttempted { key, id, attempt: attempt.into() };
        let counted = self.commit(moment, change);
        if counted {
            self.audit.push((key, attempt.into()));
        }
        let history = self.known(moment, key)?.repairs(moment.now);
        Some(RepairRecorded { counted, history })
    }

    pub(super) fn mark_fixed(&mut self, moment: Moment, mark: FixMark) -> Option<PermanentFix> {
        let (key, id) = (mark.key, mark.id.digest());
        self.known(moment, key)?;
        let entry = AuditEntry::from(&mark);
        let fix = PermanentFix::from(mark);
        if self.commit(moment, Change::MarkedFixed { key, id, fix: fix.clone() }) {
            self.audit.push((key, entry));
        }
        Some(fix)
    }

    pub(super) fn unmark_fixed(&mut self, moment: Moment, removal: &FixRemoval) -> Option<bool> {
        let FixRemoval { key, id, .. } = removal;
        self.known(moment, *key)?;
        let removed = self.commit(moment, Change::UnmarkedFixed { key: *key, id: id.digest() });
        if removed {
            self.audit.push((*key, removal.into()));
        }
        Some(removed)
    }

    /// Forgets an anomaly. Returns true if it was known.
    pub(super) fn forget(&mut self, moment: Moment, key: AnomalyKey) -> bool {
        self.known(moment, key).is_some() && self.commit(moment, Change::Forgotten { key })
    }

    /// Applies a change. Returns true if it had an effect.
    pub(super) fn apply(&mut self, moment: Moment, change: &Change) -> bool {
        let (key, config) = (change.key(), self.timeline);
        match change {
            Change::Occurred { at, id, signature_json, .. } => {
                if let Some(signature_json) = signature_json {
                    self.begin(key, signature_json, *at);
                }
                self.change(key, |anomaly| {
                    if is_too_old(moment, *at) {
                        anomaly.keep_without_event(moment);
                        return true;
                    }
                    anomaly.occur(moment, *at, *id, config) == Insertion::Inserted
                })
            }
            Change::RepairAttempted { id, attempt, .. } => self.change(key, |anomaly| {
                anomaly.attempt_repair(moment, *id, attempt.clone(), config)
            }),
            Change::MarkedFixed { id, fix, .. } => {
                self.change(key, |anomaly| anomaly.mark_fixed(moment, *id, fix.clone(), config))
            }
            Change::UnmarkedFixed { id, .. } => {
                self.change(key, |anomaly| anomaly.unmark_fixed(moment, *id, config))
            }
            Change::EventsExpired { .. } => {
                self.change(key, |anomaly| anomaly.forget_expired_events(moment))
            }
            Change::Forgotten { .. } => self.remove(key),
            Change::Alerted { at, id, counts, signature_json, incidents, .. } => {
                if let Some(signature_json) = signature_json {
                    self.begin(key, signature_json, *at);
                }
                self.change(key, |anomaly| {
                    anomaly.keep_without_event(moment);
                    let counted = if !counts {
                        AlertCounted::No
                    } else if is_too_old(moment, *at) {
                        AlertCounted::Now
                    } else {
                        match anomaly.occur(moment, *at, *id, config) {
                            Insertion::Inserted => AlertCounted::Now,
                            Insertion::Duplicate => AlertCounted::Before,
                        }
                    };
                    anomaly.change_incidents(incidents, counted);
                    counted == AlertCounted::Now
                })
            }
        }
    }

    /// Checks up to `max_seen` anomalies after `cursor`, and forgets up to `max_forgotten` expired
    /// ones. If all events of another anomaly have expired, removes these events with one change
    /// (removing them one by one would be a change for every event). Returns the cursor to continue
    /// from; `None` at the end.
    pub(super) fn forget_expired(
        &mut self,
        moment: Moment,
        cursor: Option<AnomalyKey>,
        max_seen: usize,
        max_forgotten: usize,
    ) -> Option<AnomalyKey> {
        let after = cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let mut seen = 0;
        let mut last = None;
        let (mut expired, mut quiet) = (Vec::new(), Vec::new());
        for (key, anomaly) in self.anomalies.range((after, Bound::Unbounded)) {
            if seen == max_seen || expired.len() == max_forgotten {
                break;
            }
            seen += 1;
            last = Some(*key);
            if !anomaly.is_kept(moment) {
                expired.push(*key);
            } else if anomaly.has_only_expired_events(moment) {
                quiet.push(*key);
            }
        }
        let has_stopped = seen == max_seen || expired.len() == max_forgotten;
        // Changes, because a replay of the journal would bring back what is only removed.
        for key in expired {
            self.commit(moment, Change::Forgotten { key });
        }
        for key in quiet {
            self.commit(moment, Change::EventsExpired { key });
        }
        last.filter(|_| has_stopped)
    }

    fn commit(&mut self, moment: Moment, change: Change) -> bool {
        let effective = self.apply(moment, &change);
        if effective {
            self.changes.push(change);
        }
        effective
    }

    /// Makes an anomaly known, even in place of an expired one, which starts again.
    fn begin(&mut self, key: AnomalyKey, signature_json: &Arc<str>, at: Timestamp) {
        let signature = Signature::from_stored(signature_json);
        let fields = signature.and_then(|signature| self.texts.add(&signature));
        let anomaly = Anomaly::new(Arc::clone(signature_json), fields, at);
        if let Some(replaced) = self.anomalies.insert(key, anomaly) {
            self.release(&replaced);
        }
    }

    /// Removes an anomaly. Returns true if there was one.
    fn remove(&mut self, key: AnomalyKey) -> bool {
        let removed = self.anomalies.remove(&key);
        if let Some(anomaly) = &removed {
            self.release(anomaly);
        }
        removed.is_some()
    }

    /// Releases the texts of a removed anomaly.
    fn release(&mut self, anomaly: &Anomaly) {
        if let Some(fields) = anomaly.fields() {
            self.texts.remove(fields);
        }
    }

    fn is_full(&self) -> bool {
        self.anomalies.len() >= self.max_anomalies.get()
    }

    fn known(&self, moment: Moment, key: AnomalyKey) -> Option<&Anomaly> {
        self.anomalies.get(&key).filter(|anomaly| anomaly.is_kept(moment))
    }

    fn change(&mut self, key: AnomalyKey, change: impl FnOnce(&mut Anomaly) -> bool) -> bool {
        self.anomalies.get_mut(&key).is_some_and(change)
    }
}

/// Returns true if an occurrence makes its anomaly known but is not kept itself.
fn is_too_old(moment: Moment, at: Timestamp) -> bool {
    at < RETENTION.start(moment.horizon)
}
