//! What the embedded store writes down before it answers: one row a batch, holding just the
//! changes that had an effect. Replaying the rows in order gives the state again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::{AnomalyKey, AuditEntry, EventDigest, PermanentFix, RecentAttempt, Timestamp};

/// The changes of one batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct JournalRow {
    /// The time by which the batch was applied.
    pub(super) now: Timestamp,
    pub(super) changes: Vec<Change>,
}

/// What a batch has for the audits of its anomalies.
pub(super) type Audit = Vec<(AnomalyKey, AuditEntry)>;

/// One change of one anomaly. The order of the variants is part of the file format.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Change {
    Occurred {
        key: AnomalyKey,
        at: Timestamp,
        id: EventDigest,
        /// Present when this occurrence made the anomaly known.
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
}

impl Change {
    pub(super) fn key(&self) -> AnomalyKey {
        match self {
            Self::Occurred { key, .. }
            | Self::RepairAttempted { key, .. }
            | Self::MarkedFixed { key, .. }
            | Self::UnmarkedFixed { key, .. } => *key,
        }
    }
}
