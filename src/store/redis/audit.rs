//! The entries of `anomaly:audit:<key>`.

use serde::{Deserialize, Serialize};

use super::time::{from_iso8601, to_iso8601};
use crate::domain::{AuditEntry, Deed, Origin};

/// An entry as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    timestamp: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(flatten)]
    deed: StoredDeed,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "deed", rename_all = "snake_case")]
enum StoredDeed {
    MarkedFixed { description: String },
    UnmarkedFixed,
    RepairAttempted { action: String, success: bool },
}

pub(super) fn to_json(entry: &AuditEntry) -> String {
    let Origin { by, request_id } = entry.origin.clone();
    let deed = match entry.deed.clone() {
        Deed::MarkedFixed { description } => StoredDeed::MarkedFixed { description },
        Deed::UnmarkedFixed => StoredDeed::UnmarkedFixed,
        Deed::RepairAttempted { action, success } => {
            StoredDeed::RepairAttempted { action, success }
        }
    };
    let entry = Entry { timestamp: to_iso8601(entry.at), by, request_id, deed };
    // Texts and a boolean always have a JSON form.
    serde_json::to_string(&entry).unwrap_or_default()
}

/// `None` for what is no entry.
pub(super) fn from_json(text: &str) -> Option<AuditEntry> {
    let Entry { timestamp, by, request_id, deed } = serde_json::from_str(text).ok()?;
    let deed = match deed {
        StoredDeed::MarkedFixed { description } => Deed::MarkedFixed { description },
        StoredDeed::UnmarkedFixed => Deed::UnmarkedFixed,
        StoredDeed::RepairAttempted { action, success } => {
            Deed::RepairAttempted { action, success }
        }
    };
    Some(AuditEntry { at: from_iso8601(&timestamp)?, origin: Origin { by, request_id }, deed })
}
