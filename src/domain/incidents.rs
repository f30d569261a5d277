//! The rules by which an alert counts as an occurrence: the episodes of one anomaly, and how they
//! form incidents. Pure; `store/scripts/incidents.lua` does the same in Redis, and
//! `tests/it/incidents/` compares both with a naive reference.
//!
//! An *episode* is one alert that fires without a break. An *incident* is a run of overlapping
//! episodes of one anomaly: ten pods of one rollout, or one alert that two Prometheus servers
//! report. An episode counts if no other one was firing when it began.
//!
//! Deliveries arrive late, twice, and in any order. So the effect of an alert depends on the newest
//! delivery that was applied before, and applying any sequence of deliveries again changes nothing.
#![cfg_attr(doc, doc = include_str!("../../docs/design/incidents.md"))]

use serde::{Deserialize, Serialize};

use super::{
    Timestamp,
    alert::{AlertEpisode, AlertState, Fingerprint},
};

/// Maximum number of alerts of an anomaly that are remembered: 29 bytes each in Redis, and some 56
/// in memory.
pub const MAX_FINGERPRINTS: usize = 1_000;

/// Time after an end within which another instance of Alertmanager, or Grafana after a rule was
/// saved again, may still report the same episode.
pub const PEER_SECONDS: i64 = 600;

/// The unit in which alerts are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CountBy {
    /// An incident counts once, however many alerts it has.
    Incident,
    /// Each alert that begins to fire counts, however often it is delivered.
    Episode,
    /// Each delivery of a firing alert counts.
    Delivery,
}

/// The configuration of how alerts are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlertPolicy {
    /// The unit that is counted.
    pub count: CountBy,
    /// Time after which an alert without a delivery has ended, in seconds.
    pub stale_after_seconds: i64,
    /// Time after the last counted start of an incident after which a new episode begins a new
    /// incident, in seconds.
    pub incident_max_seconds: i64,
    /// True if an alert counts although only its end was delivered.
    pub count_missed: bool,
}

/// The episodes of an anomaly's alerts. The order of the fields is part of the format of the
/// embedded store's file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incidents {
    episodes: Vec<(Fingerprint, Episode)>,
    /// The start of the last episode that counted.
    counted_start: Option<Timestamp>,
    /// The time until which alerts fire that were too many to remember.
    overflow_until: Option<Timestamp>,
}

/// The newest episode of an alert. The order of the fields is part of the format of the embedded
/// store's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Episode {
    /// Its start in the last delivery.
    delivered_start: Timestamp,
    /// Its earliest start in any delivery.
    start: Timestamp,
    /// The time until which it is known to have fired.
    last: Timestamp,
    /// The time of the newest delivery that was applied.
    delivered_at: Timestamp,
    is_open: bool,
    /// False if only its end was delivered, which does not count.
    is_counted: bool,
    /// True if its end does not mean that its cause is gone ([`AlertState::Interrupted`]).
    is_interrupted: bool,
}

/// The firing alerts of an anomaly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Firing {
    /// The number of firing alerts.
    pub episodes: usize,
    /// The time at which the first of them began.
    pub since: Timestamp,
}

/// The decision about an alert of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The verdict on the alert.
    pub verdict: AlertVerdict,
    /// The change to the state of the incidents.
    pub change: IncidentChange,
}

/// The verdict on an alert of a delivery: it counts, or the reason why it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertVerdict {
    /// It counts, unless its id was counted before.
    Count,
    /// Its episode is already known.
    Ongoing,
    /// It is a new episode of an incident that was already counted.
    SameIncident,
    /// It has ended.
    Resolved,
    /// A later delivery was applied before.
    Stale,
}

/// The delivery that counted an alert, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertCounted {
    /// Its last delivery counted it.
    Now,
    /// Its id was counted before.
    Before,
    /// It is no occurrence.
    No,
}

/// The effect of an alert on the episodes of its anomaly. The order of the fields is part of the
/// format of the embedded store's file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentChange {
    /// The new state of an alert's episode.
    episode: Option<(Fingerprint, Episode)>,
    /// The alert that is forgotten to make space for it.
    forgotten: Option<Fingerprint>,
    /// The start of the episode if it counts, unless a later one has counted.
    counted_start: Option<Timestamp>,
    /// True if the alert was not known. If its id was counted before, that was its start.
    is_first: bool,
    /// The time until which alerts fire that are too many to remember.
    overflow_until: Option<Timestamp>,
}

impl IncidentChange {
    /// Returns true if it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Episode {
    fn begin(alert: &AlertEpisode) -> Self {
        let start = alert.start();
        Self {
            delivered_start: alert.starts_at.unwrap_or(start),
            start,
            last: alert.end().unwrap_or(alert.delivered_at),
            delivered_at: alert.delivered_at,
            is_open: alert.state == AlertState::Firing,
            is_counted: true,
            is_interrupted: matches!(alert.state, AlertState::Interrupted { .. }),
        }
    }

    /// Returns the episode without times after `now`: times that another instance applied with a
    /// clock that is ahead must not make the next deliveries look older.
    fn by(self, now: Timestamp) -> Self {
        let Self { start, last, delivered_at, .. } = self;
        let delivered_at = delivered_at.min(now);
        Self { start: start.min(now), last: last.min(now), delivered_at, ..self }
    }

    /// Returns true if it fires at a time, as far as is known.
    fn fires(&self, at: Timestamp, policy: AlertPolicy) -> bool {
        self.is_open && at <= self.last.plus_seconds(policy.stale_after_seconds)
    }

    /// Returns the time until which it is known to have fired, as of the time `at`.
    fn until(&self, at: Timestamp, policy: AlertPolicy) -> Timestamp {
        if self.fires(at, policy) { self.last.max(at) } else { self.last }
    }
}

impl Incidents {
    /// Decides about an alert at the time `now`. `fixed_at` is the time of a mark of a permanent
    /// fix that holds.
    pub fn decide(
        &self,
        now: Timestamp,
        alert: &AlertEpisode,
        fixed_at: Option<Timestamp>,
        policy: AlertPolicy,
    ) -> Decision {
        let stored = self.episode(alert.fingerprint);
        let known = stored.map(|stored| stored.by(now));
        let mut decision = match alert.end() {
            None => self.decide_firing(alert, known, fixed_at, policy),
            Some(end) => self.decide_ended(alert, known, end, fixed_at, policy),
        };
        let is_as_stored = |(_, episode): &(Fingerprint, Episode)| stored == Some(episode);
        decision.change.episode = decision.change.episode.filter(|it| !is_as_stored(it));
        if policy.count == CountBy::Delivery && alert.state == AlertState::Firing {
            decision.verdict = AlertVerdict::Count;
        }
        decision
    }

    fn decide_firing(
        &self,
        alert: &AlertEpisode,
        known: Option<Episode>,
        fixed_at: Option<Timestamp>,
        policy: AlertPolicy,
    ) -> Decision {
        let (at, delivered_at) = (alert.start(), alert.delivered_at);
        let Some(known) = known else {
            let mut decision = self.count(alert, at, fixed_at, policy);
            decision.change.is_first = true;
            self.put(&mut decision.change, alert, Episode::begin(alert), policy);
            return decision;
        };
        let mut now = Episode { is_open: known.fires(delivered_at, policy), ..known };
        let changed = |verdict, now: Episode| {
            let episode = Some((alert.fingerprint, now));
            Decision { verdict, change: IncidentChange { episode, ..IncidentChange::default() } }
        };
        let counted = |now: Episode| {
            let mut decision = self.count(alert, at, fixed_at, policy);
            decision.change.episode = Some((alert.fingerprint, now));
            decision
        };
        let Some(delivered_start) = alert.starts_at.or_else(|| {
            // Without a start, it belongs to the same episode while that is open.
            let is_new = !now.is_open && delivered_at > now.last;
            is_new.then_some(delivered_at)
        }) else {
            if !now.is_open {
                return changed(AlertVerdict::Stale, now);
            }
            now.last = now.last.max(delivered_at);
            now.delivered_at = now.delivered_at.max(delivered_at);
            return changed(AlertVerdict::Ongoing, now);
        };
        if delivered_at < known.delivered_at {
            let is_missed = !now.is_counted && now.start <= at && at <= now.last;
            now.is_counted |= is_missed;
            return if is_missed { counted(now) } else { changed(AlertVerdict::Stale, now) };
        }
        if !now.is_counted && at <= now.last {
            // Its end was delivered first.
            now.is_counted = true;
            return counted(now);
        }
        if now.is_open && (at <= now.last || delivered_start == now.delivered_start) {
            now.start = now.start.min(at);
            now.last = now.last.max(delivered_at);
            now.delivered_at = delivered_at;
            return changed(AlertVerdict::Ongoing, now);
        }
        if !now.is_open && at < now.last {
            if delivered_at <= now.delivered_at.plus_seconds(PEER_SECONDS) {
                return changed(AlertVerdict::Stale, now);
            }
            (now.is_open, now.last, now.delivered_at) = (true, delivered_at, delivered_at);
            return changed(AlertVerdict::Ongoing, now);
        }
        if now.is_interrupted && now.is_counted && at <= now.last.plus_seconds(PEER_SECONDS) {
            let begun = Episode::begin(alert);
            return changed(AlertVerdict::Ongoing, Episode { start: now.start, ..begun });
        }
        counted(Episode::begin(alert))
    }

    fn decide_ended(
        &self,
        alert: &AlertEpisode,
        known: Option<Episode>,
        end: Timestamp,
        fixed_at: Option<Timestamp>,
        policy: AlertPolicy,
    ) -> Decision {
        let ended = |verdict| Decision { verdict, change: IncidentChange::default() };
        let Some(known) = known else {
            let mut decision = ended(AlertVerdict::Resolved);
            if policy.count_missed {
                let counted = self.count(alert, alert.start(), fixed_at, policy);
                if counted.verdict == AlertVerdict::Count {
                    decision = counted;
                }
            }
            let is_counted = policy.count_missed;
            let episode = Episode { is_counted, ..Episode::begin(alert) };
            self.put(&mut decision.change, alert, episode, policy);
            return decision;
        };
        if alert.delivered_at < known.delivered_at || end < known.start {
            return ended(AlertVerdict::Stale);
        }
        let now = Episode {
            last: end,
            delivered_at: alert.delivered_at,
            is_open: false,
            is_interrupted: matches!(alert.state, AlertState::Interrupted { .. }),
            ..known
        };
        let mut decision = ended(AlertVerdict::Resolved);
        decision.change.episode = Some((alert.fingerprint, now));
        decision
    }

    /// Decides whether an episode that begins at `at` counts.
    fn count(
        &self,
        alert: &AlertEpisode,
        at: Timestamp,
        fixed_at: Option<Timestamp>,
        policy: AlertPolicy,
    ) -> Decision {
        let counted_start = self.counted_start.max(Some(at));
        let mut decision = Decision {
            verdict: AlertVerdict::Count,
            change: IncidentChange { counted_start, ..IncidentChange::default() },
        };
        let Some(counted) = self.counted_start else { return decision };
        let is_long = at >= counted.plus_seconds(policy.incident_max_seconds);
        // The mark has ended the incident, unless an episode after it has counted.
        let is_first_after_fix = fixed_at.is_some_and(|fixed| counted <= fixed && fixed < at);
        let is_same = policy.count != CountBy::Episode
            && !is_long
            && !is_first_after_fix
            && self.is_covered(alert, at, policy);
        if is_same {
            decision.verdict = AlertVerdict::SameIncident;
            decision.change.counted_start = None;
        }
        decision
    }

    /// Returns whether another alert was firing at a time.
    fn is_covered(&self, alert: &AlertEpisode, at: Timestamp, policy: AlertPolicy) -> bool {
        let fired = |(fingerprint, episode): &(Fingerprint, Episode)| {
            *fingerprint != alert.fingerprint
                && episode.start <= at
                && at <= episode.until(alert.delivered_at, policy)
        };
        Some(at) <= self.overflow_until || self.episodes.iter().any(fired)
    }

    /// Adds the episode of an unknown alert to a change. At the limit, the ended alert with the
    /// oldest delivery is forgotten; if all alerts fire, only the time is remembered.
    fn put(
        &self,
        change: &mut IncidentChange,
        alert: &AlertEpisode,
        episode: Episode,
        policy: AlertPolicy,
    ) {
        if self.episodes.len() >= MAX_FINGERPRINTS {
            let at = alert.delivered_at;
            let ended = self.episodes.iter().filter(|(_, known)| known.until(at, policy) < at);
            let Some((oldest, _)) =
                ended.min_by_key(|(fingerprint, known)| (known.delivered_at, *fingerprint))
            else {
                if episode.is_open {
                    change.overflow_until = self.overflow_until.max(Some(at));
                }
                return;
            };
            change.forgotten = Some(*oldest);
        }
        change.episode = Some((alert.fingerprint, episode));
    }

    /// Applies a change. `counted` says which delivery counted the alert.
    pub fn apply(&mut self, change: &IncidentChange, counted: AlertCounted) {
        let IncidentChange { episode, forgotten, counted_start, is_first, overflow_until } = change;
        if let Some(forgotten) = forgotten {
            self.episodes.retain(|(fingerprint, _)| fingerprint != forgotten);
        }
        if let Some((fingerprint, episode)) = episode {
            match self.episodes.iter_mut().find(|(known, _)| known == fingerprint) {
                Some((_, known)) => *known = *episode,
                None => {
                    if self.episodes.len() < 4 {
                        // Most anomalies have few alerts.
                        self.episodes.reserve_exact(1);
                    }
                    self.episodes.push((*fingerprint, *episode));
                }
            }
        }
        let starts = match counted {
            AlertCounted::Now => true,
            // Counted before alerts were tracked, or by a call that failed half-way.
            AlertCounted::Before => *is_first,
            AlertCounted::No => false,
        };
        if starts {
            self.counted_start = self.counted_start.max(*counted_start);
        }
        self.overflow_until = self.overflow_until.max(*overflow_until);
    }

    /// Returns the alerts that fire at a time; `None` if there are none.
    pub fn firing(&self, now: Timestamp, policy: AlertPolicy) -> Option<Firing> {
        let firing = self.episodes.iter().filter(|(_, episode)| episode.fires(now, policy));
        let starts = firing.map(|(_, episode)| episode.start);
        starts.fold(None, |firing: Option<Firing>, start| {
            let Firing { episodes, since } = firing.unwrap_or(Firing { episodes: 0, since: start });
            Some(Firing { episodes: episodes + 1, since: since.min(start) })
        })
    }

    /// Returns the number of remembered alerts.
    pub fn alerts(&self) -> usize {
        self.episodes.len()
    }

    fn episode(&self, fingerprint: Fingerprint) -> Option<&Episode> {
        self.episodes.iter().find(|(known, _)| *known == fingerprint).map(|(_, episode)| episode)
    }
}
