//! One occurrence of an anomaly, and the id that identifies a retry of it.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    AlertEpisode, AnomalyKey, RuleRef, SignatureJson, Timestamp, operation::OPERATION_BYTES,
};

/// The id of one occurrence or operation within its anomaly: 1 to 128 printable ASCII characters.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventId {
    text: Arc<str>,
    /// True if this process has generated it. Not part of its identity, and not serialised.
    is_made_up: bool,
}

impl PartialEq for EventId {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for EventId {}

impl Hash for EventId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl From<EventId> for String {
    fn from(id: EventId) -> Self {
        id.as_str().to_owned()
    }
}

/// The error for a text that is not an event id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 128 printable ASCII characters")]
pub struct InvalidEventId;

impl EventId {
    const MAX_LENGTH: usize = 128;

    /// Parses an id.
    ///
    /// # Errors
    /// Fails if it is empty, too long, or holds anything but printable ASCII.
    pub fn parse(text: &str) -> Result<Self, InvalidEventId> {
        let fits = (1..=Self::MAX_LENGTH).contains(&text.len());
        if fits && text.bytes().all(|b| matches!(b, b' '..=b'~')) {
            Ok(Self { text: text.into(), is_made_up: false })
        } else {
            Err(InvalidEventId)
        }
    }

    /// Returns a new id of 72 random bits: among ten million ids of one anomaly, two are equal with
    /// a probability of one in a hundred million. It is shorter than a UUID, because Redis keeps
    /// thousands of them for a busy anomaly.
    pub fn unique() -> Self {
        let mut text = [0; 12];
        // Nine bytes are exactly twelve characters.
        let encoded = URL_SAFE_NO_PAD.encode_slice(rand::random::<[u8; 9]>(), &mut text);
        debug_assert_eq!(encoded, Ok(text.len()));
        let text = str::from_utf8(&text).unwrap_or_default().into();
        Self { text, is_made_up: true }
    }

    /// Returns the id as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns true if this process has generated the id, so that no earlier call can have had it.
    pub fn is_made_up(&self) -> bool {
        self.is_made_up
    }

    /// Returns the digest that stands for the id.
    pub fn digest(&self) -> EventDigest {
        let mut head = [0; 16];
        head.copy_from_slice(&Sha256::digest(self.text.as_bytes())[..16]);
        EventDigest(head)
    }
}

impl TryFrom<String> for EventId {
    type Error = InvalidEventId;

    fn try_from(text: String) -> Result<Self, InvalidEventId> {
        Self::parse(&text)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The first 16 bytes of an event id's SHA-256. The embedded store keeps it instead of the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EventDigest([u8; 16]);

impl EventDigest {
    /// Returns 56 bits of it, for uses in which memory is short and a rare mistake does no harm.
    pub fn short(self) -> u64 {
        self.0[..7].iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte))
    }
}

/// Maximum time by which an occurrence may be ahead of the clock: larger differences between clocks
/// are not expected.
pub const MAX_AHEAD_SECONDS: i64 = 60;

/// One occurrence, ready to be recorded; or an alert of a delivery, for which the store decides
/// whether it is an occurrence. The order of the fields is part of the spool's format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occurrence {
    /// The anomaly that occurred.
    pub key: AnomalyKey,
    /// The id that identifies a retry.
    pub id: EventId,
    /// The time of the occurrence.
    pub at: Timestamp,
    /// The posted object, stored if it is the anomaly's first.
    pub signature_json: SignatureJson,
    /// The state of the alert; `None` if the caller reports an occurrence.
    pub episode: Option<Box<AlertEpisode>>,
    /// The rule that judges its anomaly, once it is known: the answer has the counts that the rule
    /// needs. It is not kept with a waiting write, because other rules may be in force when the
    /// write is applied.
    #[serde(skip)]
    pub rule: Option<RuleRef>,
}

impl Occurrence {
    /// Returns its approximate size in bytes, both in memory and in a call to the store.
    pub fn bytes(&self) -> usize {
        let episode = self.episode.as_ref().map_or(0, |_| size_of::<AlertEpisode>());
        OPERATION_BYTES + self.id.as_str().len() + self.signature_json.bytes() + episode
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_id_is_short_printable_ascii() {
        for good in ["a", "0190-x:y z~", &"x".repeat(128)] {
            assert_eq!(EventId::parse(good).unwrap().as_str(), good);
        }
        for wrong in ["", "é", "a\nb", "nul\0", "\u{7f}", &"x".repeat(129)] {
            assert_eq!(EventId::parse(wrong), Err(InvalidEventId), "{wrong:?}");
        }
    }
}
