//! A firing or resolved alert, as a delivery of Alertmanager or Grafana reports it.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Timestamp;

/// The id of an alert among those of its anomaly: the first 8 bytes of the SHA-256 of the
/// fingerprint in its delivery. Among a thousand alerts, two ids are equal with a probability of 3
/// in 10¹⁴.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint([u8; 8]);

impl Fingerprint {
    /// Creates the id of an alert with this fingerprint.
    pub fn of(text: &str) -> Self {
        let mut head = [0; 8];
        head.copy_from_slice(&Sha256::digest(text.as_bytes())[..8]);
        Self(head)
    }

    /// Returns the bytes that stores keep.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0
    }
}

/// An alert of a delivery: the episode that it belongs to, and the state that it reports. An
/// episode is one alert that fires without a break. The order of the fields is part of the spool's
/// format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertEpisode {
    /// The id of the alert.
    pub fingerprint: Fingerprint,
    /// The time at which it began to fire, as delivered; `None` if the delivery has none.
    pub starts_at: Option<Timestamp>,
    /// The time of the delivery.
    pub delivered_at: Timestamp,
    /// The state of the alert at the time of the delivery.
    pub state: AlertState,
}

/// The state of an alert. The order of the variants is part of the spool's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AlertState {
    /// It fires.
    Firing,
    /// It has ended.
    Resolved {
        /// The time of its end; `None` if the delivery has none.
        ends_at: Option<Timestamp>,
    },
    /// Its rule was saved again, paused or deleted in Grafana, which ends the alert but does not
    /// mean that its cause is gone.
    Interrupted {
        /// The time of its end; `None` if the delivery has none.
        ends_at: Option<Timestamp>,
    },
}

impl AlertEpisode {
    /// The latest start that is distinguished from a later one: 2200-01-01T00:00:00Z. Redis
    /// computes in doubles, which are exact for microseconds up to the year 2255.
    pub const LATEST_START: Timestamp = Timestamp::from_micros(7_258_118_400 * 1_000_000);

    /// Returns the time at which it began to fire, as far as that is possible: a start that is
    /// missing or later than the delivery is replaced by the time of the delivery, and the start of
    /// an alert that has ended is not after its end.
    pub fn start(&self) -> Timestamp {
        let latest = self.end().unwrap_or(self.delivered_at);
        self.starts_at.map_or(latest, |start| start.min(latest))
    }

    /// Returns the time of its end; `None` while it fires. An end that is missing or later than the
    /// delivery is replaced by the time of the delivery.
    pub fn end(&self) -> Option<Timestamp> {
        match self.state {
            AlertState::Firing => None,
            AlertState::Resolved { ends_at } | AlertState::Interrupted { ends_at } => {
                Some(ends_at.map_or(self.delivered_at, |end| end.min(self.delivered_at)))
            }
        }
    }
}
