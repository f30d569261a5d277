//! One anomaly as the embedded store keeps it, and how each change alters it. Pure: the same
//! changes in the same order give the same anomaly, which is what the journal rests on.

use std::{collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    domain::{
        AnomalyStats, EventDigest, Insertion, PermanentFix, RecentAttempt, RepairHistory, Timeline,
        TimelineConfig, Timestamp,
    },
    store::{AnomalyDetails, KEPT_SECONDS},
};

/// Everything that is kept about one anomaly, except its signature once that is on disk. Most
/// anomalies are quiet, and there may be a million of them: what few of them have is boxed. The
/// order of the fields is part of the file format.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Anomaly {
    known_since: Timestamp,
    kept_until: Timestamp,
    timeline: Timeline,
    remediation: Option<Box<Remediation>>,
    /// Present until a checkpoint has written it to the file.
    #[serde(skip)]
    new_signature_json: Option<Arc<str>>,
}

/// The repairs of an anomaly and the mark of its permanent fix.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Remediation {
    repairs: RepairHistory,
    repairs_kept_until: Timestamp,
    fix: Option<PermanentFix>,
    /// The ids of repairs, marks and removals, and the time at which each came.
    operation_ids: HashMap<EventDigest, Timestamp>,
}

impl Default for Remediation {
    fn default() -> Self {
        Self {
            repairs: RepairHistory::default(),
            repairs_kept_until: Timestamp::MIN,
            fix: None,
            operation_ids: HashMap::new(),
        }
    }
}

impl Remediation {
    /// Remembers an id. Returns false if it is known.
    fn remember_id(&mut self, now: Timestamp, id: EventDigest) -> bool {
        self.operation_ids.retain(|_, at| at.plus_seconds(KEPT_SECONDS) > now);
        if self.operation_ids.contains_key(&id) {
            return false;
        }
        self.operation_ids.insert(id, now);
        true
    }

    fn fix(&self, now: Timestamp) -> Option<&PermanentFix> {
        self.fix.as_ref().filter(|fix| now < fix.expires_at())
    }
}

impl Anomaly {
    pub(super) fn new(signature_json: Arc<str>, known_since: Timestamp) -> Self {
        Self {
            known_since,
            kept_until: Timestamp::MIN,
            timeline: Timeline::default(),
            remediation: None,
            new_signature_json: Some(signature_json),
        }
    }

    pub(super) fn is_kept(&self, now: Timestamp) -> bool {
        now < self.kept_until
    }

    /// Adds an occurrence that lies inside 30 days.
    pub(super) fn occur(
        &mut self,
        now: Timestamp,
        at: Timestamp,
        id: EventDigest,
        config: TimelineConfig,
    ) -> Insertion {
        self.timeline.forget_expired(now);
        let insertion = self.timeline.insert(now, at, id, config);
        if insertion == Insertion::Inserted {
            self.keep_for(now, KEPT_SECONDS);
        }
        insertion
    }

    /// Adds a repair attempt. Returns false if its id is known.
    pub(super) fn attempt_repair(
        &mut self,
        now: Timestamp,
        id: EventDigest,
        attempt: RecentAttempt,
    ) -> bool {
        let remediation = self.remediation();
        if now >= remediation.repairs_kept_until {
            remediation.repairs = RepairHistory::default();
        }
        if !remediation.remember_id(now, id) {
            return false;
        }
        remediation.repairs.push(attempt);
        remediation.repairs_kept_until = now.plus_seconds(KEPT_SECONDS);
        self.keep_for(now, KEPT_SECONDS);
        true
    }

    /// Sets the mark. Returns false if its id is known.
    pub(super) fn mark_fixed(
        &mut self,
        now: Timestamp,
        id: EventDigest,
        fix: PermanentFix,
    ) -> bool {
        if !self.remediation().remember_id(now, id) {
            return false;
        }
        self.kept_until = self.kept_until.max(fix.expires_at());
        self.keep_for(now, KEPT_SECONDS);
        self.remediation().fix = Some(fix);
        true
    }

    /// Removes the mark. Returns false if there is none or the id is known.
    pub(super) fn unmark_fixed(&mut self, now: Timestamp, id: EventDigest) -> bool {
        if self.fix(now).is_none() || !self.remediation().remember_id(now, id) {
            return false;
        }
        self.remediation().fix = None;
        true
    }

    pub(super) fn count_24h(&self, now: Timestamp) -> u64 {
        self.timeline.counts(now).day
    }

    pub(super) fn stats(&self, now: Timestamp) -> AnomalyStats {
        let span = self.timeline.span(now);
        AnomalyStats {
            counts: self.timeline.counts(now),
            is_approximate: self.timeline.is_approximate(now),
            first_seen: span.map(|(first, _)| first),
            last_seen: span.map(|(_, last)| last),
            repair_attempts: self.kept_repairs(now).map_or(0, |repairs| repairs.total),
            fixed_at: self.fix(now).map(|fix| fix.marked_at),
        }
    }

    /// Returns everything, without the signature if that is on disk.
    pub(super) fn details(&self, now: Timestamp) -> AnomalyDetails {
        AnomalyDetails {
            signature_json: self.new_signature_json.as_deref().map(str::to_owned),
            known_since: Some(self.known_since),
            stats: self.stats(now),
            fix: self.fix(now).cloned(),
            repairs: self.repairs(now),
        }
    }

    pub(super) fn repairs(&self, now: Timestamp) -> RepairHistory {
        self.kept_repairs(now).cloned().unwrap_or_default()
    }

    /// Returns the signature if it is not on disk yet.
    pub(super) fn new_signature_json(&self) -> Option<&str> {
        self.new_signature_json.as_deref()
    }

    /// Frees the memory of a signature that is on disk.
    pub(super) fn signature_is_written(&mut self) {
        self.new_signature_json = None;
    }

    pub(super) fn has_expired_events(&self, now: Timestamp) -> bool {
        self.timeline.has_expired(now)
    }

    /// Frees the memory of expired events, of an anomaly that is quiet.
    pub(super) fn forget_expired_events(&mut self, now: Timestamp) {
        self.timeline.forget_expired(now);
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
