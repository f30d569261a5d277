//! Reports that the store has lost writes: the count of an anomaly is lower than in an earlier
//! reply. Some of them may be too old to be sent again. All falls within a minute are one incident:
//! one line in the log with the number of anomalies, and one reason to send the remembered writes
//! again.

use parking_lot::Mutex;
use tokio::sync::watch;

use super::stale_entry::Fall;
use crate::{
    domain::{AnomalyKey, Timestamp},
    telemetry,
};

/// Time after the first fall in which further falls belong to the same incident, in seconds.
const INCIDENT_SECONDS: i64 = 60;
/// Time for which an incident is collected before it is logged, in seconds.
const COLLECTED_SECONDS: i64 = 1;

/// The last incident.
#[derive(Debug, Default)]
pub(crate) struct LostWrites {
    incident: Mutex<Option<Incident>>,
    /// Number of incidents so far.
    incidents: watch::Sender<u64>,
}

#[derive(Debug)]
struct Incident {
    began_at: Timestamp,
    anomalies: usize,
    first: (AnomalyKey, Fall),
    is_logged: bool,
}

impl Incident {
    /// Returns true if a fall at `now` belongs to this incident. A time before the incident does
    /// not: the clock was set back.
    fn lasts(&self, now: Timestamp) -> bool {
        (self.began_at..self.began_at.plus_seconds(INCIDENT_SECONDS)).contains(&now)
    }
}

impl LostWrites {
    /// Returns a receiver that changes with each incident.
    pub(crate) fn incidents(&self) -> watch::Receiver<u64> {
        self.incidents.subscribe()
    }

    /// Notes that the counts of anomalies fell.
    pub(crate) fn note(&self, now: Timestamp, falls: &[(AnomalyKey, Fall)]) {
        let Some(first) = falls.first() else { return };
        telemetry::lost_writes(falls.len() as u64);
        let mut incident = self.incident.lock();
        match &mut *incident {
            Some(current) if current.lasts(now) => {
                current.anomalies += falls.len();
            }
            _ => {
                let (anomalies, is_logged) = (falls.len(), false);
                *incident = Some(Incident { began_at: now, anomalies, first: *first, is_logged });
                drop(incident);
                self.incidents.send_modify(|incidents| *incidents += 1);
            }
        }
    }

    /// Logs an incident after it was collected for a second.
    pub(crate) fn report(&self, now: Timestamp) {
        let mut incident = self.incident.lock();
        let Some(incident) = incident.as_mut().filter(|incident| !incident.is_logged) else {
            return;
        };
        if now < incident.began_at.plus_seconds(COLLECTED_SECONDS) {
            return;
        }
        incident.is_logged = true;
        let (key, Fall { from, to }) = incident.first;
        let anomalies = incident.anomalies;
        tracing::error!(
            anomalies,
            %key,
            "the store has lost writes: the counts of {anomalies} anomalies fell (of {key} from \
             {from} to {to}). The writes of the last `degraded.remember_seconds` are sent again; \
             older ones are lost. Was Redis flushed, replaced, or restored from an older snapshot?"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_falls_of_a_minute_are_one_incident() {
        let begin = Timestamp::from_micros(1_774_799_738_000_000);
        let fall = (AnomalyKey::from_bits(1), Fall { from: 7, to: 1 });
        let lost = LostWrites::default();
        let incidents = lost.incidents();
        lost.note(begin, &[]);
        assert_eq!(*incidents.borrow(), 0);
        lost.note(begin, &[fall, fall]);
        lost.note(begin.plus_seconds(59), &[fall]);
        assert_eq!(*incidents.borrow(), 1);
        assert_eq!(lost.incident.lock().as_ref().map(|incident| incident.anomalies), Some(3));
        lost.note(begin.plus_seconds(60), &[fall]);
        assert_eq!(*incidents.borrow(), 2);
    }
}
