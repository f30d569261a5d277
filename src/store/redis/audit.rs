//! The entries of `anomaly:audit:<key>`.

use serde::{Deserialize, Serialize};

use super::time::{from_iso8601, to_iso8601};
use crate::domain::{Actor, AuditEntry, AuditEvent};

/// An entry as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    timestamp: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(flatten)]
    event: StoredEvent,
}

/// The tag is `deed`, and not `event` as in the API, because deployments hold entries with it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "deed", rename_all = "snake_case")]
enum StoredEvent {
    MarkedFixed { description: String },
    UnmarkedFixed,
    RepairAttempted { action: String, success: bool },
}

/// Returns the JSON text of an entry.
pub(super) fn to_json(entry: &AuditEntry) -> String {
    let Actor { by, request_id } = entry.actor.clone();
    let event = match entry.event.clone() {
        AuditEvent::MarkedFixed { description } => StoredEvent::MarkedFixed { description },
        AuditEvent::UnmarkedFixed => StoredEvent::UnmarkedFixed,
        AuditEvent::RepairAttempted { action, success } => {
            StoredEvent::RepairAttempted { action, success }
        }
    };
    let entry = Entry { timestamp: to_iso8601(entry.at), by, request_id, event };
    // Texts and a boolean always have a JSON form.
    serde_json::to_string(&entry).unwrap_or_default()
}

/// Returns the entry of a JSON text; `None` if the text is not an entry.
pub(super) fn from_json(text: &str) -> Option<AuditEntry> {
    let Entry { timestamp, by, request_id, event } = serde_json::from_str(text).ok()?;
    let event = match event {
        StoredEvent::MarkedFixed { description } => AuditEvent::MarkedFixed { description },
        StoredEvent::UnmarkedFixed => AuditEvent::UnmarkedFixed,
        StoredEvent::RepairAttempted { action, success } => {
            AuditEvent::RepairAttempted { action, success }
        }
    };
    Some(AuditEntry { at: from_iso8601(&timestamp)?, actor: Actor { by, request_id }, event })
}
