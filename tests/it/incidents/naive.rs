//! A naive reference of the rules of incidents, with plain seconds and a set of counted ids: the
//! answer to each alert, and the number of those that count.

use std::collections::{BTreeMap, BTreeSet};

use anomaly_counter::domain::{AlertPolicy, CountBy, MAX_FINGERPRINTS};

const PEER: i64 = 600;

/// The delivery of an alert, with times in seconds after the beginning of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) alert: u16,
    /// `None` if it is unset.
    pub(crate) starts: Option<i64>,
    pub(crate) delivered: i64,
    pub(crate) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Firing,
    Resolved {
        ends: Option<i64>,
    },
    /// Grafana has saved its rule again.
    Interrupted {
        ends: Option<i64>,
    },
}

#[derive(Clone, Debug)]
struct Entry {
    raw: i64,
    start: i64,
    last: i64,
    heard: i64,
    open: bool,
    counted: bool,
    interrupted: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Naive {
    policy: AlertPolicy,
    entries: BTreeMap<u16, Entry>,
    /// The order of alerts that were delivered at the same time.
    order: fn(u16) -> [u8; 8],
    ids: BTreeSet<(u16, i64)>,
    pub(crate) counted: usize,
    overflow_until: i64,
    last_counted: Option<i64>,
    pub(crate) fixed: Option<i64>,
}

impl Naive {
    pub(crate) fn new(policy: AlertPolicy, order: fn(u16) -> [u8; 8]) -> Self {
        Self {
            policy,
            entries: BTreeMap::new(),
            order,
            ids: BTreeSet::new(),
            counted: 0,
            overflow_until: i64::MIN,
            last_counted: None,
            fixed: None,
        }
    }

    fn until(&self, entry: &Entry, at: i64) -> i64 {
        let fires = entry.open && at - entry.last <= self.policy.stale_after_seconds;
        if fires { entry.last.max(at) } else { entry.last }
    }

    fn is_same_incident(&self, alert: u16, start: i64, delivered: i64) -> bool {
        let others = self.entries.iter().filter(|(other, _)| **other != alert);
        let covers = |entry: &Entry| entry.start <= start && start <= self.until(entry, delivered);
        let is_covered =
            start <= self.overflow_until || others.into_iter().any(|(_, entry)| covers(entry));
        let Some(last) = self.last_counted else { return false };
        let is_fixed = self.fixed.is_some_and(|fixed| last <= fixed && start > fixed);
        is_covered
            && self.policy.count != CountBy::Episode
            && start - last < self.policy.incident_max_seconds
            && !is_fixed
    }

    fn count(&mut self, alert: u16, raw: i64, start: i64, delivered: i64) -> &'static str {
        if self.is_same_incident(alert, start, delivered) {
            return "same_incident";
        }
        if !self.ids.insert((alert, raw)) {
            return "duplicate";
        }
        self.counted += 1;
        self.last_counted = Some(self.last_counted.map_or(start, |last| last.max(start)));
        "counted"
    }

    fn put(&mut self, alert: u16, entry: Entry, delivered: i64) {
        if !self.entries.contains_key(&alert) && self.entries.len() >= MAX_FINGERPRINTS {
            let ended = self.entries.iter().filter(|(_, e)| self.until(e, delivered) < delivered);
            let oldest = ended.min_by_key(|(alert, e)| (e.heard, (self.order)(**alert)));
            let Some(oldest) = oldest.map(|(alert, _)| *alert) else {
                if entry.open {
                    self.overflow_until = self.overflow_until.max(delivered);
                }
                return;
            };
            self.entries.remove(&oldest);
        }
        self.entries.insert(alert, entry);
    }

    pub(crate) fn deliver(&mut self, delivery: Delivery) -> &'static str {
        let Delivery { alert, starts, delivered, state } = delivery;
        match state {
            State::Firing => {
                let answer = self.fires(alert, starts, delivered);
                match self.policy.count {
                    CountBy::Delivery if answer != "counted" => {
                        self.counted += 1;
                        "counted"
                    }
                    _ => answer,
                }
            }
            State::Resolved { ends } => self.ends(alert, starts, ends, delivered, false),
            State::Interrupted { ends } => self.ends(alert, starts, ends, delivered, true),
        }
    }

    fn fires(&mut self, alert: u16, starts: Option<i64>, d: i64) -> &'static str {
        if let Some(entry) = self.entries.get(&alert).cloned() {
            let open = entry.open && d - entry.last <= self.policy.stale_after_seconds;
            self.entries.get_mut(&alert).unwrap().open = open;
        }
        let known = self.entries.get(&alert).cloned();
        let raw = match (starts, &known) {
            (Some(starts), _) => starts,
            (None, Some(entry)) if entry.open => {
                let entry = self.entries.get_mut(&alert).unwrap();
                entry.last = entry.last.max(d);
                entry.heard = entry.heard.max(d);
                return "ongoing";
            }
            (None, Some(entry)) if d <= entry.last => return "stale",
            (None, _) => d,
        };
        let at = raw.min(d);
        let begun = Entry {
            raw,
            start: at,
            last: d,
            heard: d,
            open: true,
            counted: true,
            interrupted: false,
        };
        let Some(entry) = known else {
            let answer = self.count(alert, raw, at, d);
            if answer == "duplicate" {
                self.last_counted = self.last_counted.max(Some(at));
            }
            self.put(alert, begun, d);
            return answer;
        };
        if d < entry.heard {
            if entry.start <= at && at <= entry.last && !entry.counted {
                self.entries.get_mut(&alert).unwrap().counted = true;
                return self.count(alert, raw, at, d);
            }
            return "stale";
        }
        if !entry.counted && at <= entry.last {
            self.entries.get_mut(&alert).unwrap().counted = true;
            return self.count(alert, raw, at, d);
        }
        if entry.open && (at <= entry.last || raw == entry.raw) {
            let now =
                Entry { start: entry.start.min(at), last: entry.last.max(d), heard: d, ..entry };
            self.entries.insert(alert, now);
            return "ongoing";
        }
        if !entry.open && at < entry.last {
            if d - entry.heard <= PEER {
                return "stale";
            }
            self.entries.insert(alert, Entry { open: true, last: d, heard: d, ..entry });
            return "ongoing";
        }
        if entry.interrupted && entry.counted && at - entry.last <= PEER {
            self.entries.insert(alert, Entry { start: entry.start, ..begun });
            return "ongoing";
        }
        let answer = self.count(alert, raw, at, d);
        self.entries.insert(alert, begun);
        answer
    }

    fn ends(
        &mut self,
        alert: u16,
        starts: Option<i64>,
        ends: Option<i64>,
        d: i64,
        interrupted: bool,
    ) -> &'static str {
        let end = ends.unwrap_or(d).min(d);
        let Some(entry) = self.entries.get(&alert).cloned() else {
            let start = starts.unwrap_or(end).min(end);
            let raw = starts.unwrap_or(start);
            let mut answer = "resolved";
            if self.policy.count_missed && !self.is_same_incident(alert, start, d) {
                answer = self.count(alert, raw, start, d);
            }
            let counted = self.policy.count_missed;
            let ended =
                Entry { raw, start, last: end, heard: d, open: false, counted, interrupted };
            self.put(alert, ended, d);
            return answer;
        };
        if d < entry.heard || end < entry.start {
            return "stale";
        }
        let ended = Entry { open: false, last: end, heard: d, interrupted, ..entry };
        self.entries.insert(alert, ended);
        "resolved"
    }

    /// Returns the number of firing alerts, and the start of the first of them.
    pub(crate) fn firing(&self, now: i64) -> Option<(usize, i64)> {
        let stale = self.policy.stale_after_seconds;
        let firing: Vec<i64> = self
            .entries
            .values()
            .filter(|entry| entry.open && now - entry.last <= stale)
            .map(|entry| entry.start)
            .collect();
        Some((firing.len(), *firing.iter().min()?))
    }
}
