//! All anomalies in memory. A call is checked first (duplicate? too old? unknown?), and what has an
//! effect becomes a [`Change`], which is applied here and written to the journal by the writer.
//! Replaying the journal goes through the same [`State::apply`].

use std::{collections::BTreeMap, num::NonZeroUsize, ops::Bound, sync::Arc};

use parking_lot::RwLock;

use super::{
    anomaly::Anomaly,
    journal::{Audit, Change},
};
use crate::{
    domain::{
        AnomalyKey, AnomalyStats, AuditEntry, FixMark, FixRemoval, Insertion, Occurrence,
        PermanentFix, RETENTION, RepairAttempt, RepairHistory, TimelineConfig, Timestamp,
    },
    store::{AnomalyDetails, RecordOutcome, Recorded, RepairRecorded, StoreError, StoreSize},
};

/// The state, shared by the writer and the readers.
pub(super) type SharedState = RwLock<State>;

#[derive(Debug)]
pub(super) struct State {
    timeline: TimelineConfig,
    max_anomalies: NonZeroUsize,
    anomalies: BTreeMap<AnomalyKey, Anomaly>,
    /// Changes since [`State::take_changes`].
    changes: Vec<Change>,
    /// Their entries for the audit.
    audit: Audit,
}

impl State {
    pub(super) fn new(timeline: TimelineConfig, max_anomalies: NonZeroUsize) -> Self {
        Self {
            timeline,
            max_anomalies,
            anomalies: BTreeMap::new(),
            changes: Vec::new(),
            audit: Audit::new(),
        }
    }

    /// Returns a state with the same limits and no anomalies.
    pub(super) fn emptied(&self) -> Self {
        Self::new(self.timeline, self.max_anomalies)
    }

    pub(super) fn size(&self) -> StoreSize {
        StoreSize { anomalies: self.anomalies.len(), max_anomalies: self.max_anomalies.get() }
    }

    /// Inserts an anomaly that was read from the file.
    pub(super) fn restore(&mut self, key: AnomalyKey, anomaly: Anomaly) {
        self.anomalies.insert(key, anomaly);
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

    /// Returns the changes since the last call, in order.
    pub(super) fn take_changes(&mut self) -> (Vec<Change>, Audit) {
        (std::mem::take(&mut self.changes), std::mem::take(&mut self.audit))
    }

    pub(super) fn stats(&self, now: Timestamp, key: AnomalyKey) -> Option<AnomalyStats> {
        self.known(now, key).map(|anomaly| anomaly.stats(now))
    }

    pub(super) fn details(&self, now: Timestamp, key: AnomalyKey) -> Option<AnomalyDetails> {
        self.known(now, key).map(|anomaly| anomaly.details(now))
    }

    pub(super) fn repairs(&self, now: Timestamp, key: AnomalyKey) -> Option<RepairHistory> {
        self.known(now, key).map(|anomaly| anomaly.repairs(now))
    }

    /// Records an occurrence, unless it would make one anomaly more than is permitted known.
    pub(super) fn record(
        &mut self,
        now: Timestamp,
        occurrence: &Occurrence,
    ) -> Result<Recorded, StoreError> {
        let key = occurrence.key;
        let known = self.known(now, key);
        let previous_count_24h = known.map_or(0, |anomaly| anomaly.count_24h(now));
        let signature_json = known.is_none().then(|| occurrence.signature_json.to_stored());

        let outcome = if occurrence.at < RETENTION.start(now) {
            RecordOutcome::TooOld
        } else if self.is_full() && !self.anomalies.contains_key(&key) {
            return Err(StoreError::full(self.max_anomalies.get()));
        } else {
            let (at, id) = (occurrence.at, occurrence.id.digest());
            // A duplicate also removes expired events, which a clock that goes back would show.
            let prunes = known.is_some_and(|anomaly| anomaly.has_expired_events(now));
            let change = Change::Occurred { key, at, id, signature_json };
            let counts = self.apply(now, &change);
            if counts || prunes {
                self.changes.push(change);
            }
            if counts { RecordOutcome::Counted } else { RecordOutcome::Duplicate }
        };
        let stats = self.stats(now, key).unwrap_or_default();
        Ok(Recorded { outcome, previous_count_24h, stats })
    }

    pub(super) fn record_repair(
        &mut self,
        now: Timestamp,
        attempt: &RepairAttempt,
    ) -> Option<RepairRecorded> {
        let key = attempt.key;
        self.known(now, key)?;
        let id = attempt.id.digest();
        let change = Change::RepairAttempted { key, id, attempt: attempt.into() };
        let counted = self.commit(now, change);
        if counted {
            self.audit.push((key, attempt.into()));
        }
        let history = self.known(now, key)?.repairs(now);
        Some(RepairRecorded { counted, history })
    }

    pub(super) fn mark_fixed(&mut self, now: Timestamp, mark: FixMark) -> Option<PermanentFix> {
        let (key, id) = (mark.key, mark.id.digest());
        self.known(now, key)?;
        let entry = AuditEntry::from(&mark);
        let fix = PermanentFix::from(mark);
        if self.commit(now, Change::MarkedFixed { key, id, fix: fix.clone() }) {
            self.audit.push((key, entry));
        }
        Some(fix)
    }

    pub(super) fn unmark_fixed(&mut self, now: Timestamp, removal: &FixRemoval) -> Option<bool> {
        let FixRemoval { key, id, .. } = removal;
        self.known(now, *key)?;
        let removed = self.commit(now, Change::UnmarkedFixed { key: *key, id: id.digest() });
        if removed {
            self.audit.push((*key, removal.into()));
        }
        Some(removed)
    }

    /// Applies a change. Returns true if it had an effect.
    pub(super) fn apply(&mut self, now: Timestamp, change: &Change) -> bool {
        let (key, config) = (change.key(), self.timeline);
        match change {
            Change::Occurred { at, id, signature_json, .. } => {
                if let Some(signature_json) = signature_json {
                    // Also in place of one that has expired: it begins again.
                    self.anomalies.insert(key, Anomaly::new(Arc::clone(signature_json), *at));
                }
                self.change(key, |anomaly| {
                    anomaly.occur(now, *at, *id, config) == Insertion::Inserted
                })
            }
            Change::RepairAttempted { id, attempt, .. } => self
                .change(key, |anomaly| anomaly.attempt_repair(now, *id, attempt.clone(), config)),
            Change::MarkedFixed { id, fix, .. } => {
                self.change(key, |anomaly| anomaly.mark_fixed(now, *id, fix.clone(), config))
            }
            Change::UnmarkedFixed { id, .. } => {
                self.change(key, |anomaly| anomaly.unmark_fixed(now, *id, config))
            }
        }
    }

    /// Looks at up to `max_seen` anomalies after `cursor`, and removes up to `max_removed` that
    /// have expired, and expired events of the others. Returns the removed anomalies, and the
    /// cursor to go on from; `None` at the end.
    pub(super) fn remove_expired(
        &mut self,
        now: Timestamp,
        cursor: Option<AnomalyKey>,
        max_seen: usize,
        max_removed: usize,
    ) -> (Vec<AnomalyKey>, Option<AnomalyKey>) {
        let after = cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let mut seen = 0;
        let mut last = None;
        let mut expired = Vec::new();
        for (key, anomaly) in self.anomalies.range_mut((after, Bound::Unbounded)) {
            if seen == max_seen || expired.len() == max_removed {
                break;
            }
            seen += 1;
            last = Some(*key);
            if anomaly.is_kept(now) {
                anomaly.forget_expired_events(now);
            } else {
                expired.push(*key);
            }
        }
        for key in &expired {
            self.anomalies.remove(key);
        }
        let has_stopped = seen == max_seen || expired.len() == max_removed;
        (expired, last.filter(|_| has_stopped))
    }

    fn commit(&mut self, now: Timestamp, change: Change) -> bool {
        let effective = self.apply(now, &change);
        if effective {
            self.changes.push(change);
        }
        effective
    }

    fn is_full(&self) -> bool {
        self.anomalies.len() >= self.max_anomalies.get()
    }

    fn known(&self, now: Timestamp, key: AnomalyKey) -> Option<&Anomaly> {
        self.anomalies.get(&key).filter(|anomaly| anomaly.is_kept(now))
    }

    fn change(&mut self, key: AnomalyKey, change: impl FnOnce(&mut Anomaly) -> bool) -> bool {
        self.anomalies.get_mut(&key).is_some_and(change)
    }
}
