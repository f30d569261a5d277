//! The stored form of the entries in `anomaly:audit:<key>`.

use serde::{Deserialize, Serialize};

use super::time::{from_iso8601, to_iso8601};
use crate::domain::{Actor, AuditEntry, AuditEvent};

/// The JSON form of an entry.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    timestamp: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    /// Absent in the entries of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(flatten)]
    event: StoredEvent,
}

/// The tag is `deed` rather than `event` as in the API, because deployments hold entries with it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "deed", rename_all = "snake_case")]
enum StoredEvent {
    MarkedFixed {
        description: String,
    },
    UnmarkedFixed {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    RepairAttempted {
        action: String,
        success: bool,
    },
}

/// Returns the JSON text of an entry.
pub(super) fn to_json(entry: &AuditEntry) -> String {
    let Actor { by, token, request_id } = entry.actor.clone();
    let event = match entry.event.clone() {
        AuditEvent::MarkedFixed { description } => StoredEvent::MarkedFixed { description },
        AuditEvent::UnmarkedFixed { reason } => StoredEvent::UnmarkedFixed { reason },
        AuditEvent::RepairAttempted { action, success } => {
            StoredEvent::RepairAttempted { action, success }
        }
    };
    let entry = Entry { timestamp: to_iso8601(entry.at), by, token, request_id, event };
    // Texts and a boolean always have a JSON form.
    serde_json::to_string(&entry).unwrap_or_default()
}

/// Returns the entry of a JSON text; `None` if the text is not an entry.
pub(super) fn from_json(text: &str) -> Option<AuditEntry> {
    let Entry { timestamp, by, token, request_id, event } = serde_json::from_str(text).ok()?;
    let event = match event {
        StoredEvent::MarkedFixed { description } => AuditEvent::MarkedFixed { description },
        StoredEvent::UnmarkedFixed { reason } => AuditEvent::UnmarkedFixed { reason },
        StoredEvent::RepairAttempted { action, success } => {
            AuditEvent::RepairAttempted { action, success }
        }
    };
    let actor = Actor { by, token, request_id };
    Some(AuditEntry { at: from_iso8601(&timestamp)?, actor, event })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_an_older_version_is_read() {
        let text = r#"{"timestamp":"2026-11-22T14:21:22.587413+00:00","by":"ana",
                       "request_id":"r-1","deed":"unmarked_fixed"}"#;
        let entry = from_json(text).unwrap();
        assert_eq!(entry.event, AuditEvent::UnmarkedFixed { reason: None });
        let Actor { by, token, request_id } = entry.actor;
        assert_eq!(by.as_deref(), Some("ana"));
        assert_eq!(token, None);
        assert_eq!(request_id.as_deref(), Some("r-1"));
    }
}
