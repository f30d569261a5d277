//! The journal of the embedded store: one row per batch, with the changes that had an effect. It is
//! written before the batch is answered. Replaying the rows in order reproduces the state.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::{
    AnomalyKey, AuditEntry, EventDigest, IncidentChange, Moment, PermanentFix, RecentAttempt,
    Timestamp,
};

/// The changes of one batch. The order of the fields is part of the file format.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct JournalRow {
    /// The time at which the batch was applied.
    now: Timestamp,
    /// The time up to which expired data may have been forgotten.
    horizon: Timestamp,
    pub(super) changes: Vec<Change>,
    /// The expected content of the file, which shows a recovery what is missing.
    pub(super) should_hold: ShouldHold,
}

/// The expected content of a file when a row of its journal was written.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct ShouldHold {
    /// The sequence of the oldest row of the journal.
    pub(super) oldest: u64,
    /// The number of anomalies after the row.
    pub(super) anomalies: u64,
}

/// A row of version 1, whose horizon was equal to its time.
#[derive(Debug, Deserialize)]
pub(super) struct JournalRowV1 {
    now: Timestamp,
    changes: Vec<Change>,
}

impl From<JournalRowV1> for JournalRow {
    fn from(JournalRowV1 { now, changes }: JournalRowV1) -> Self {
        Self::new(now.into(), changes, ShouldHold::default())
    }
}

impl JournalRow {
    pub(super) fn new(moment: Moment, changes: Vec<Change>, should_hold: ShouldHold) -> Self {
        let Moment { now, horizon, .. } = moment;
        Self { now, horizon, changes, should_hold }
    }

    /// Creates a row without changes.
    pub(super) fn empty(should_hold: ShouldHold) -> Self {
        Self::new(Timestamp::MIN.into(), Vec::new(), should_hold)
    }

    /// Returns the moment at which the batch was applied.
    pub(super) fn moment(&self) -> Moment {
        Moment { horizon: self.horizon, ..Moment::from(self.now) }
    }
}

/// The entries of one batch for the audits of its anomalies.
pub(super) type Audit = Vec<(AnomalyKey, AuditEntry)>;

/// One change of one anomaly. The order of the variants and fields is part of the file format.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Change {
    Occurred {
        key: AnomalyKey,
        /// The time of the occurrence. If it is older than 30 days at the horizon, the anomaly
        /// becomes known without an event.
        at: Timestamp,
        id: EventDigest,
        /// Present if this occurrence made the anomaly known.
        signature_json: Option<Arc<str>>,
    },
    RepairAttempted {
        key: AnomalyKey,
        id: EventDigest,
        attempt: RecentAttempt,
    },
    MarkedFixed {
        key: AnomalyKey,
        id: EventDigest,
        fix: PermanentFix,
    },
    UnmarkedFixed {
        key: AnomalyKey,
        id: EventDigest,
    },
    /// All of its events have expired.
    EventsExpired {
        key: AnomalyKey,
    },
    /// Everything about it is removed, including its rows in the other tables.
    Forgotten {
        key: AnomalyKey,
    },
    /// An alert was delivered. The journal has the alert's effect and not the alert, so that
    /// neither another configuration nor the rules of another version change the effect.
    Alerted {
        key: AnomalyKey,
        at: Timestamp,
        id: EventDigest,
        /// True if it is an occurrence, unless its id is known.
        counts: bool,
        /// Present if this alert made the anomaly known.
        signature_json: Option<Arc<str>>,
        incidents: IncidentChange,
    },
}

impl Change {
    pub(super) fn key(&self) -> AnomalyKey {
        match self {
            Self::Occurred { key, .. }
            | Self::RepairAttempted { key, .. }
            | Self::MarkedFixed { key, .. }
            | Self::UnmarkedFixed { key, .. }
            | Self::EventsExpired { key }
            | Self::Forgotten { key }
            | Self::Alerted { key, .. } => *key,
        }
    }

    /// Returns the anomaly that it removes, if it removes one.
    pub(super) fn forgotten(&self) -> Option<AnomalyKey> {
        matches!(self, Self::Forgotten { .. }).then(|| self.key())
    }
}
