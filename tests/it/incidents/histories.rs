//! Random histories of an anomaly's alerts: the episodes, and their deliveries.

use anomaly_counter::domain::{
    AlertEpisode, AlertState, EventId, Fingerprint, Occurrence, Timestamp,
};
use proptest::{collection::vec, prelude::*};

use super::naive::{Delivery, State};
use crate::support::{occurrence, start_of_tests};

pub(crate) fn at(second: i64) -> Timestamp {
    start_of_tests().plus_seconds(second)
}

pub(crate) fn fingerprint(alert: u16) -> Fingerprint {
    Fingerprint::of(&alert.to_string())
}

/// The order of an anomaly's alerts if nothing else decides.
pub(crate) fn order(alert: u16) -> [u8; 8] {
    fingerprint(alert).to_bytes()
}

pub(crate) fn episode(delivery: Delivery) -> AlertEpisode {
    let Delivery { alert, starts, delivered, state } = delivery;
    AlertEpisode {
        fingerprint: fingerprint(alert),
        starts_at: starts.map(at),
        delivered_at: at(delivered),
        state: match state {
            State::Firing => AlertState::Firing,
            State::Resolved { ends } => AlertState::Resolved { ends_at: ends.map(at) },
            State::Interrupted { ends } => AlertState::Interrupted { ends_at: ends.map(at) },
        },
    }
}

/// Returns the occurrence that the webhook makes of an alert.
pub(crate) fn alert(key: u64, delivery: Delivery) -> Occurrence {
    let episode = episode(delivery);
    let start = episode.start();
    let id = format!("{}@{}", delivery.alert, episode.starts_at.unwrap_or(start));
    Occurrence { episode: Some(Box::new(episode)), ..occurrence(key, &id, start) }
}

/// Returns the same if each delivery counts.
pub(crate) fn alert_of_delivery(key: u64, delivery: Delivery) -> Occurrence {
    let alert = alert(key, delivery);
    match delivery.state {
        State::Firing => Occurrence { id: EventId::unique(), at: at(delivery.delivered), ..alert },
        State::Resolved { .. } | State::Interrupted { .. } => alert,
    }
}

/// A step of an arbitrary history: any alert may be delivered at any time.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Deliver {
        wait: i64,
        delivery: AnyDelivery,
    },
    /// The same delivery as an earlier one.
    Again(prop::sample::Index),
    Mark,
}

#[derive(Clone, Debug)]
pub(crate) struct AnyDelivery {
    alert: u16,
    late: i64,
    starts_before: Option<i64>,
    state: AnyState,
}

#[derive(Clone, Debug)]
enum AnyState {
    Firing,
    Ended { before: Option<i64>, interrupted: bool },
}

pub(crate) fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    // Few different values, so that starts, ends and deliveries often coincide.
    let span = || {
        prop_oneof![
            4 => prop::sample::select(vec![0_i64, 1, 30, 60, 599, 600, 601]),
            3 => 0..4_000_i64,
            1 => prop::sample::select(vec![13 * 3_600, 13 * 3_600 + 1, 24 * 3_600]),
            1 => 0..100_000_i64,
        ]
    };
    let starts_before = prop_oneof![
        1 => Just(None),
        8 => span().prop_map(Some),
        // Ahead of the delivery.
        1 => (-4_000..0_i64).prop_map(Some),
    ];
    let ended = (prop_oneof![1 => Just(None), 6 => span().prop_map(Some)], any::<bool>())
        .prop_map(|(before, interrupted)| AnyState::Ended { before, interrupted });
    let state = prop_oneof![2 => Just(AnyState::Firing), 1 => ended];
    let late = prop_oneof![4 => Just(0), 1 => span()];
    let delivery =
        (0..4_u16, late, starts_before, state).prop_map(|(alert, late, starts_before, state)| {
            AnyDelivery { alert, late, starts_before, state }
        });
    let step = prop_oneof![
        12 => (span(), delivery).prop_map(|(wait, delivery)| Step::Deliver { wait, delivery }),
        2 => any::<prop::sample::Index>().prop_map(Step::Again),
        1 => Just(Step::Mark),
    ];
    vec(step, 1..30)
}

/// A step with its time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Timed {
    Deliver(Delivery),
    Mark,
}

/// Returns the steps with the time at which each is applied.
pub(crate) fn timed(steps: &[Step]) -> Vec<(i64, Timed)> {
    let mut now = 0;
    let mut earlier: Vec<Delivery> = Vec::new();
    let mut timed = Vec::new();
    for step in steps {
        match step {
            Step::Mark => timed.push((now, Timed::Mark)),
            Step::Again(_) if earlier.is_empty() => {}
            Step::Again(index) => timed.push((now, Timed::Deliver(*index.get(&earlier)))),
            Step::Deliver { wait, delivery } => {
                now += wait;
                let AnyDelivery { alert, late, starts_before, state } = delivery;
                let delivered = now - late;
                let delivery = Delivery {
                    alert: *alert,
                    starts: starts_before.map(|before| delivered - before),
                    delivered,
                    state: match *state {
                        AnyState::Firing => State::Firing,
                        AnyState::Ended { before, interrupted } => {
                            let ends = before.map(|before| delivered - before);
                            match interrupted {
                                true => State::Interrupted { ends },
                                false => State::Resolved { ends },
                            }
                        }
                    },
                };
                earlier.push(delivery);
                timed.push((now, Timed::Deliver(delivery)));
            }
        }
    }
    timed
}

/// The episodes of a few alerts, and their deliveries.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) episodes: Vec<(u16, i64, i64)>,
    /// The deliveries of Alertmanager about them, in order.
    pub(crate) deliveries: Vec<Delivery>,
}

pub(crate) fn histories() -> impl Strategy<Value = History> {
    // Each episode is longer than the delay of its first delivery, because an episode of which only
    // the end is delivered does not count.
    let of_alert = (0..4_000_i64, vec((31..6_000_i64, 40..6_000_i64), 1..=4));
    let noise = vec((1..=30_i64, any::<bool>(), 1..=30_i64), 40);
    (vec(of_alert, 1..=4), noise).prop_map(|(alerts, noise)| history(&alerts, &noise))
}

fn history(alerts: &[(i64, Vec<(i64, i64)>)], noise: &[(i64, bool, i64)]) -> History {
    let (mut episodes, mut deliveries) = (Vec::new(), Vec::new());
    let mut noise = noise.iter().cycle();
    for (alert, (first, lengths)) in (0..).zip(alerts) {
        let mut start = *first;
        for (length, pause) in lengths {
            let end = start + length;
            episodes.push((alert, start, end));
            let (begins_late, is_often, ends_late) = *noise.next().unwrap();
            let firing = |delivered| Delivery {
                alert,
                starts: Some(start),
                delivered,
                state: State::Firing,
            };
            let mut next = start + begins_late;
            if next < end {
                deliveries.push(firing(next));
            }
            next += 300;
            while next < end {
                deliveries.push(firing(next));
                next += if is_often { 300 } else { 1_800 };
            }
            let state = State::Resolved { ends: Some(end) };
            deliveries.push(Delivery { delivered: end + ends_late, state, ..firing(0) });
            start = end + pause;
        }
    }
    deliveries.sort_by_key(|delivery| delivery.delivered);
    History { episodes, deliveries }
}

impl History {
    /// Returns the number of incidents: runs of overlapping episodes.
    pub(crate) fn incidents(&self) -> usize {
        let mut by_start = self.episodes.clone();
        by_start.sort_by_key(|(_, start, _)| *start);
        let (mut incidents, mut until) = (0, i64::MIN);
        for (_, start, end) in by_start {
            incidents += usize::from(start > until);
            until = until.max(end);
        }
        incidents
    }

    /// Returns true if an episode begins in the seconds between another's beginning or end and the
    /// delivery of that, so that their order can't be known.
    pub(crate) fn is_ambiguous(&self) -> bool {
        let is_near = |start: i64, alert: u16| {
            self.episodes.iter().any(|(other, begin, end)| {
                *other != alert && ((start - begin).abs() <= 60 || (start - end).abs() <= 60)
            })
        };
        self.episodes.iter().any(|(alert, start, _)| is_near(*start, *alert))
    }
}
