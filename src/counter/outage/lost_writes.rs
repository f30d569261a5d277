//! Reports that the store has lost writes: the count of an anomaly is lower than earlier replies
//! allow. Some of the writes may be too old to be sent again. All falls within a minute are one
//! incident, with one line in the log; but each of them may be a new loss, so that the remembered
//! writes are sent again more than once.

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
/// Pause before the remembered writes are sent again for another fall of the same incident, in
/// seconds. It doubles each time, up to half of the time for which writes are remembered: each of
/// them is sent before it is forgotten, and only about twice if the store keeps losing writes.
const FIRST_PAUSE_SECONDS: i64 = 1;

/// The last incident.
#[derive(Debug)]
pub(crate) struct LostWrites {
    remember_seconds: i64,
    incident: Mutex<Option<Incident>>,
    /// Number of times that the remembered writes had to be sent again.
    losses: watch::Sender<u64>,
}

#[derive(Debug)]
struct Incident {
    began_at: Timestamp,
    anomalies: usize,
    /// The number of anomalies that is in the log.
    logged: usize,
    first: (AnomalyKey, Fall),
    /// The time from which another fall may have the remembered writes sent again.
    may_send_at: Timestamp,
    pause_seconds: i64,
    /// True if a fall waits for that time.
    must_send: bool,
}

impl Incident {
    /// Returns true if a fall at `now` belongs to this incident. A time before the incident does
    /// not: the clock was set back.
    fn lasts(&self, now: Timestamp) -> bool {
        (self.began_at..self.began_at.plus_seconds(INCIDENT_SECONDS)).contains(&now)
    }

    /// Returns true if the remembered writes must be sent again now.
    fn is_due(&mut self, now: Timestamp, longest_pause: i64) -> bool {
        if !self.must_send || now < self.may_send_at {
            return false;
        }
        self.must_send = false;
        self.may_send_at = now.plus_seconds(self.pause_seconds);
        self.pause_seconds = (self.pause_seconds * 2).min(longest_pause);
        true
    }

    /// Logs it after it was collected for a second, and what was added since at its end.
    fn log(&mut self, now: Timestamp) {
        let (key, Fall { expected, to, .. }) = self.first;
        let added = self.anomalies - self.logged;
        if added == 0 {
            return;
        }
        if self.logged > 0 && !self.lasts(now) {
            tracing::error!(
                anomalies = added,
                "the store has gone on losing writes: the counts of {added} more anomalies fell \
                 within the minute. What is still remembered was sent again"
            );
        } else if self.logged == 0 && now >= self.began_at.plus_seconds(COLLECTED_SECONDS) {
            tracing::error!(
                anomalies = added,
                %key,
                "the store has lost writes: the counts of {added} anomalies fell (of {key} to \
                 {to}, where {expected} are known). The writes of the last \
                 `degraded.remember_seconds` are sent again; older ones are lost. Was Redis \
                 flushed, replaced, or restored from an older snapshot?"
            );
        } else {
            return;
        }
        self.logged = self.anomalies;
    }
}

impl LostWrites {
    /// Creates an instance for a store whose writes are remembered for this time.
    pub(crate) fn new(remember_seconds: u32) -> Self {
        Self {
            remember_seconds: remember_seconds.into(),
            incident: Mutex::default(),
            losses: watch::Sender::default(),
        }
    }

    /// Returns a receiver that changes when the remembered writes must be sent again.
    pub(crate) fn losses(&self) -> watch::Receiver<u64> {
        self.losses.subscribe()
    }

    /// Notes that the counts of anomalies fell.
    pub(crate) fn note(&self, now: Timestamp, falls: &[(AnomalyKey, Fall)]) {
        let Some(first) = falls.first() else { return };
        telemetry::lost_writes(falls.len() as u64);
        // Of an anomaly that was quiet for longer, no write is remembered. A first fall counts all
        // the same, since others may have lost theirs.
        let oldest = now.minus_seconds(self.remember_seconds);
        let may_have_new_loss = falls.iter().any(|(_, fall)| fall.seen_at >= oldest);
        let mut incident = self.incident.lock();
        match &mut *incident {
            Some(current) if current.lasts(now) => {
                current.anomalies += falls.len();
                current.must_send |= may_have_new_loss;
            }
            earlier => {
                if let Some(earlier) = earlier {
                    earlier.log(now);
                }
                *earlier = Some(Incident {
                    began_at: now,
                    anomalies: falls.len(),
                    logged: 0,
                    first: *first,
                    may_send_at: now,
                    pause_seconds: FIRST_PAUSE_SECONDS,
                    must_send: true,
                });
            }
        }
        self.send_if_due(now, incident.as_mut());
    }

    /// Logs an incident, and has writes sent again whose pause is over. Must be called about once a
    /// second.
    pub(crate) fn maintain(&self, now: Timestamp) {
        let mut incident = self.incident.lock();
        if let Some(incident) = &mut *incident {
            incident.log(now);
        }
        self.send_if_due(now, incident.as_mut());
    }

    fn send_if_due(&self, now: Timestamp, incident: Option<&mut Incident>) {
        let longest_pause = (self.remember_seconds / 2).max(FIRST_PAUSE_SECONDS);
        if incident.is_some_and(|incident| incident.is_due(now, longest_pause)) {
            self.losses.send_modify(|losses| *losses += 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: Timestamp = Timestamp::from_micros(1_774_799_738_000_000);

    fn at(second: i64) -> Timestamp {
        BEGIN.plus_seconds(second)
    }

    /// Returns the fall of an anomaly whose higher count was seen at this second.
    fn fall(seen: i64) -> (AnomalyKey, Fall) {
        (AnomalyKey::from_bits(1), Fall { expected: 7, to: 1, seen_at: at(seen) })
    }

    #[test]
    fn the_falls_of_a_minute_are_one_incident() {
        let lost = LostWrites::new(10);
        let anomalies = || lost.incident.lock().as_ref().map(|incident| incident.anomalies);
        lost.note(at(0), &[]);
        assert_eq!(anomalies(), None);
        lost.note(at(0), &[fall(0), fall(0)]);
        lost.note(at(59), &[fall(0)]);
        assert_eq!(anomalies(), Some(3));
        lost.note(at(60), &[fall(0)]);
        assert_eq!(anomalies(), Some(1));
    }

    #[test]
    fn each_new_loss_has_the_remembered_writes_sent_again_after_a_growing_pause() {
        let lost = LostWrites::new(10);
        let losses = lost.losses();
        let mut sent_at = Vec::new();
        let mut sent = 0;
        for second in 0..30 {
            lost.note(at(second), &[fall(second)]);
            lost.maintain(at(second));
            if *losses.borrow() > sent {
                (sent, _) = (*losses.borrow(), sent_at.push(second));
            }
        }
        assert_eq!(sent_at, [0, 1, 3, 7, 12, 17, 22, 27]);
    }

    #[test]
    fn a_further_fall_of_what_was_quiet_is_no_reason_to_send_anything_again() {
        let lost = LostWrites::new(10);
        let losses = lost.losses();
        lost.note(at(0), &[fall(-3_600)]);
        assert_eq!(*losses.borrow(), 1, "others may have lost theirs");
        lost.note(at(5), &[fall(-6)]);
        assert_eq!(*losses.borrow(), 1);
        lost.note(at(5), &[fall(-5)]);
        assert_eq!(*losses.borrow(), 2);
    }
}
