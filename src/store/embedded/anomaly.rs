//! One anomaly as the embedded store keeps it, and how each change alters it. Pure: the same
//! changes in the same order give the same anomaly, which is what the journal rests on.

use std::{collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    domain::{
        EventDigest, Insertion, PermanentFix, RecentAttempt, RepairHistory, Tally, Timeline,
        Timestamp,
    },
    store::{Dossier, KEPT_SECONDS},
};

/// All that is kept about one anomaly.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Anomaly {
    signature_json: Arc<str>,
    known_since: Timestamp,
    timeline: Timeline,
    repairs: RepairHistory,
    /// Ids of repairs, marks and removals, and when each came.
    operation_ids: HashMap<EventDigest, Timestamp>,
    repairs_kept_until: Timestamp,
    fix: Option<PermanentFix>,
    kept_until: Timestamp,
}

impl Anomaly {
    pub(super) fn new(signature_json: Arc<str>, known_since: Timestamp) -> Self {
        Self {
            signature_json,
            known_since,
            timeline: Timeline::default(),
            repairs: RepairHistory::default(),
            operation_ids: HashMap::new(),
            repairs_kept_until: Timestamp::MIN,
            fix: None,
            kept_until: Timestamp::MIN,
        }
    }

    pub(super) fn is_kept(&self, now: Timestamp) -> bool {
        now < self.kept_until
    }

    /// Adds an occurrence that lies inside 30 days.
    pub(super) fn occur(&mut self, now: Timestamp, at: Timestamp, id: EventDigest) -> Insertion {
        self.timeline.forget_expired(now);
        let insertion = self.timeline.insert(at, id);
        if insertion == Insertion::Inserted {
            self.keep_for(now, KEPT_SECONDS);
        }
        insertion
    }

    /// Adds a repair attempt, and says whether its id is a first.
    pub(super) fn attempt_repair(
        &mut self,
        now: Timestamp,
        id: EventDigest,
        attempt: RecentAttempt,
    ) -> bool {
        if now >= self.repairs_kept_until {
            self.repairs = RepairHistory::default();
        }
        if !self.is_first(now, id) {
            return false;
        }
        self.repairs.push(attempt);
        self.repairs_kept_until = now.plus_seconds(KEPT_SECONDS);
        self.keep_for(now, KEPT_SECONDS);
        true
    }

    /// Sets the mark, and says whether its id is a first.
    pub(super) fn mark_fixed(
        &mut self,
        now: Timestamp,
        id: EventDigest,
        fix: PermanentFix,
    ) -> bool {
        if !self.is_first(now, id) {
            return false;
        }
        self.kept_until = self.kept_until.max(fix.expires_at());
        self.keep_for(now, KEPT_SECONDS);
        self.fix = Some(fix);
        true
    }

    /// Takes the mark back, and says whether there was one.
    pub(super) fn unmark_fixed(&mut self, now: Timestamp, id: EventDigest) -> bool {
        if self.fix(now).is_none() || !self.is_first(now, id) {
            return false;
        }
        self.fix = None;
        true
    }

    pub(super) fn count_24h(&self, now: Timestamp) -> u64 {
        self.timeline.counts(now).day
    }

    pub(super) fn tally(&self, now: Timestamp) -> Tally {
        let span = self.timeline.span(now);
        Tally {
            counts: self.timeline.counts(now),
            first_seen: span.map(|(first, _)| first),
            last_seen: span.map(|(_, last)| last),
            repair_attempts: if now < self.repairs_kept_until { self.repairs.total } else { 0 },
            fixed_at: self.fix(now).map(|fix| fix.marked_at),
        }
    }

    pub(super) fn dossier(&self, now: Timestamp) -> Dossier {
        Dossier {
            signature_json: Some(self.signature_json.to_string()),
            known_since: Some(self.known_since),
            tally: self.tally(now),
            fix: self.fix(now).cloned(),
            repairs: self.repairs(now),
        }
    }

    pub(super) fn repairs(&self, now: Timestamp) -> RepairHistory {
        if now < self.repairs_kept_until { self.repairs.clone() } else { RepairHistory::default() }
    }

    pub(super) fn has_expired_events(&self, now: Timestamp) -> bool {
        self.timeline.has_expired(now)
    }

    /// Gives back the memory of events that have left, of an anomaly that is quiet.
    pub(super) fn forget_expired_events(&mut self, now: Timestamp) {
        self.timeline.forget_expired(now);
    }

    fn fix(&self, now: Timestamp) -> Option<&PermanentFix> {
        self.fix.as_ref().filter(|fix| now < fix.expires_at())
    }

    /// Notes an id, and says whether it is a first.
    fn is_first(&mut self, now: Timestamp, id: EventDigest) -> bool {
        self.operation_ids.retain(|_, at| at.plus_seconds(KEPT_SECONDS) > now);
        if self.operation_ids.contains_key(&id) {
            return false;
        }
        self.operation_ids.insert(id, now);
        true
    }

    fn keep_for(&mut self, now: Timestamp, seconds: i64) {
        self.kept_until = self.kept_until.max(now.plus_seconds(seconds));
    }
}
