//! The rules themselves, without a store: against the naive reference, and against the real
//! episodes.

use std::collections::HashSet;

use anomaly_counter::domain::{
    AlertCounted, AlertPolicy, AlertVerdict, CountBy, EventId, Incidents, MAX_FINGERPRINTS,
    Timestamp,
};
use proptest::prelude::*;

use super::{
    histories::{History, Timed, alert, any_steps, at, episode, histories, order, timed},
    naive::{Delivery, Naive, State},
};
use crate::support::keeping;

pub(crate) fn policy() -> AlertPolicy {
    keeping(1).alerts
}

/// Returns the policies that a service may have.
pub(crate) fn policies() -> [AlertPolicy; 4] {
    let policy = policy();
    [
        policy,
        AlertPolicy { count: CountBy::Episode, ..policy },
        AlertPolicy { count: CountBy::Delivery, ..policy },
        AlertPolicy { count_missed: true, ..policy },
    ]
}

/// An anomaly as a store keeps it.
struct Anomaly {
    policy: AlertPolicy,
    incidents: Incidents,
    ids: HashSet<EventId>,
    fixed_at: Option<Timestamp>,
}

impl Anomaly {
    fn new(policy: AlertPolicy) -> Self {
        Self { policy, incidents: Incidents::default(), ids: HashSet::new(), fixed_at: None }
    }

    fn deliver(&mut self, delivery: Delivery) -> &'static str {
        self.deliver_at(Timestamp::MAX, delivery)
    }

    fn deliver_at(&mut self, now: Timestamp, delivery: Delivery) -> &'static str {
        let decision = self.incidents.decide(now, &episode(delivery), self.fixed_at, self.policy);
        let is_delivery = self.policy.count == CountBy::Delivery && delivery.state == State::Firing;
        let id = if is_delivery { EventId::unique() } else { alert(0, delivery).id };
        let answer = match decision.verdict {
            AlertVerdict::Count if self.ids.insert(id) => "counted",
            AlertVerdict::Count => "duplicate",
            AlertVerdict::Ongoing => "ongoing",
            AlertVerdict::SameIncident => "same_incident",
            AlertVerdict::Resolved => "resolved",
            AlertVerdict::Stale => "stale",
        };
        let counted = match answer {
            "counted" => AlertCounted::Now,
            "duplicate" => AlertCounted::Before,
            _ => AlertCounted::No,
        };
        self.incidents.apply(&decision.change, counted);
        answer
    }

    fn counted(deliveries: &[Delivery], policy: AlertPolicy) -> usize {
        let mut anomaly = Self::new(policy);
        for delivery in deliveries {
            anomaly.deliver(*delivery);
        }
        anomaly.ids.len()
    }
}

/// Returns a policy that does not end long incidents, so that incidents are overlapping episodes.
fn endless() -> AlertPolicy {
    AlertPolicy { incident_max_seconds: 35 * 86_400, ..policy() }
}

fn firing(alert: u16, starts: i64, delivered: i64) -> Delivery {
    Delivery { alert, starts: Some(starts), delivered, state: State::Firing }
}

fn resolved(alert: u16, starts: i64, ends: i64, delivered: i64) -> Delivery {
    let state = State::Resolved { ends: Some(ends) };
    Delivery { alert, starts: Some(starts), delivered, state }
}

fn answers(deliveries: &[Delivery]) -> Vec<&'static str> {
    let mut anomaly = Anomaly::new(policy());
    deliveries.iter().map(|delivery| anomaly.deliver(*delivery)).collect()
}

#[test]
fn ten_pods_of_one_rollout_are_one_incident() {
    let pods: Vec<Delivery> = (0..10).map(|pod| firing(pod, i64::from(pod) * 5, 60)).collect();
    let mut expected = vec!["counted"];
    expected.extend(["same_incident"; 9]);
    assert_eq!(answers(&pods), expected);
}

#[test]
fn an_end_that_comes_before_its_beginning_counts_the_beginning() {
    let deliveries = [
        resolved(0, 0, 20, 120),
        firing(0, 0, 121),
        resolved(0, 0, 60, 122),
        firing(0, 0, 123),
        firing(0, 100, 124),
    ];
    assert_eq!(answers(&deliveries), ["resolved", "counted", "resolved", "stale", "counted"]);
}

#[test]
fn a_start_that_moves_is_the_same_episode() {
    let deliveries =
        [firing(0, 100, 160), firing(0, 60, 161), firing(0, 40, 162), firing(0, 150, 163)];
    assert_eq!(answers(&deliveries), ["counted", "ongoing", "ongoing", "ongoing"]);
    // A flap within the group_interval is never delivered as resolved, but the alert has stopped.
    assert_eq!(answers(&[firing(0, 0, 10), firing(0, 200, 300)]), ["counted", "counted"]);
}

#[test]
fn an_episode_of_grafana_may_begin_at_the_end_of_the_one_before() {
    let deliveries =
        [firing(0, 0, 10), resolved(0, 0, 200, 210), firing(0, 200, 240), firing(0, 0, 250)];
    assert_eq!(answers(&deliveries), ["counted", "resolved", "counted", "ongoing"]);
}

#[test]
fn a_rule_that_is_saved_again_does_not_end_the_episode() {
    let interrupted = |starts, ends, delivered| Delivery {
        state: State::Interrupted { ends: Some(ends) },
        ..resolved(0, starts, ends, delivered)
    };
    let deliveries = [firing(0, 0, 10), interrupted(0, 100, 110), firing(0, 130, 140)];
    assert_eq!(answers(&deliveries), ["counted", "resolved", "ongoing"]);
    let much_later = [firing(0, 0, 10), interrupted(0, 100, 110), firing(0, 701, 710)];
    assert_eq!(answers(&much_later), ["counted", "resolved", "counted"]);
    let never_counted = [interrupted(0, 100, 110), firing(0, 130, 140)];
    assert_eq!(answers(&never_counted), ["resolved", "counted"]);
}

#[test]
fn an_alert_that_is_not_delivered_for_long_has_ended() {
    let stale = policy().stale_after_seconds;
    let in_time = [firing(0, 0, 10), firing(1, 10 + stale, 10 + stale)];
    assert_eq!(answers(&in_time), ["counted", "same_incident"]);
    let too_late = [firing(0, 0, 10), firing(1, 11 + stale, 11 + stale)];
    assert_eq!(answers(&too_late), ["counted", "counted"]);
}

#[test]
fn an_incident_of_days_does_not_hide_that_another_alert_fires_each_day() {
    let day = policy().incident_max_seconds;
    let hourly = |alert, from: i64, to: i64| {
        (from..to).step_by(3_600).map(move |at| firing(alert, from, at))
    };
    let mut deliveries: Vec<Delivery> = hourly(0, 0, 3 * day).collect();
    deliveries.extend(hourly(1, day - 1, day));
    deliveries.extend(hourly(2, day, day + 1));
    deliveries.extend(hourly(3, day + 7, day + 8));
    deliveries.sort_by_key(|delivery| delivery.delivered);
    let mut anomaly = Anomaly::new(policy());
    let answers: Vec<_> =
        deliveries.iter().map(|delivery| (delivery.alert, anomaly.deliver(*delivery))).collect();
    let first_of = |alert| answers.iter().find(|(of, _)| *of == alert).unwrap().1;
    assert_eq!(first_of(1), "same_incident");
    assert_eq!(first_of(2), "counted");
    assert_eq!(first_of(3), "same_incident");
}

#[test]
fn the_first_episode_after_a_mark_counts_also_while_others_fire() {
    let mut anomaly = Anomaly::new(policy());
    assert_eq!(anomaly.deliver(firing(0, 0, 10)), "counted");
    anomaly.fixed_at = Some(at(100));
    assert_eq!(anomaly.deliver(firing(1, 90, 110)), "same_incident");
    assert_eq!(anomaly.deliver(firing(2, 101, 111)), "counted");
    assert_eq!(anomaly.deliver(firing(3, 102, 112)), "same_incident");
    assert_eq!(anomaly.deliver(firing(0, 0, 120)), "ongoing");
}

#[test]
fn a_clock_that_was_ahead_does_not_make_later_deliveries_stale() {
    let day = 86_400;
    let mut anomaly = Anomaly::new(policy());
    assert_eq!(anomaly.deliver_at(at(day), firing(0, day - 5, day)), "counted");
    assert_eq!(anomaly.deliver_at(at(20), firing(0, 5, 20)), "ongoing");
    assert_eq!(anomaly.deliver_at(at(40), resolved(0, 5, 30, 40)), "resolved");
    assert_eq!(anomaly.deliver_at(at(60), firing(0, 50, 60)), "counted");
    // The clocks of two instances differ by some seconds.
    assert_eq!(anomaly.deliver_at(at(105), firing(0, 50, 105)), "ongoing");
    assert_eq!(anomaly.deliver_at(at(103), resolved(0, 50, 101, 103)), "resolved");
}

#[test]
fn an_alert_that_was_counted_without_a_known_episode_begins_the_incident() {
    let mut anomaly = Anomaly::new(policy());
    anomaly.ids.insert(alert(0, firing(0, 0, 10)).id);
    assert_eq!(anomaly.deliver(firing(0, 0, 10)), "duplicate");
    assert_eq!(anomaly.deliver(firing(1, 5, 10)), "same_incident");
}

#[test]
fn a_thousand_alerts_are_remembered_and_those_that_ended_are_forgotten_first() {
    let limit = MAX_FINGERPRINTS as u16;
    let mut naive = Naive::new(policy(), order);
    let mut anomaly = Anomaly::new(policy());
    let mut deliveries: Vec<Delivery> = (0..limit).map(|alert| firing(alert, 0, 10)).collect();
    // All of them fire: the time of further ones is remembered, and they belong to the incident.
    deliveries.extend((limit..limit + 50).map(|alert| firing(alert, 20, 30)));
    deliveries.extend([resolved(7, 0, 40, 50), resolved(5, 0, 40, 45)]);
    // Alerts that have ended are replaced, the one that was delivered first before the other.
    deliveries.extend((limit + 50..limit + 53).map(|alert| firing(alert, 60, 70)));
    deliveries.extend((0..limit + 60).map(|alert| resolved(alert, 0, 80, 90)));
    deliveries.extend([firing(2_000, 100, 110), firing(5, 100, 111), firing(5, 100, 112)]);
    for delivery in deliveries {
        assert_eq!(anomaly.deliver(delivery), naive.deliver(delivery), "{delivery:?}");
        let bytes = postcard::to_stdvec(&anomaly.incidents).unwrap().len();
        assert!(anomaly.incidents.alerts() <= MAX_FINGERPRINTS && bytes < 64_000, "{bytes}");
    }
    assert_eq!(naive.counted, 2);
}

#[test]
fn a_single_alert_takes_less_than_64_bytes() {
    let mut anomaly = Anomaly::new(policy());
    anomaly.deliver(firing(0, 0, 10));
    let bytes = postcard::to_stdvec(&anomaly.incidents).unwrap().len();
    assert!(bytes < 64, "{bytes}");
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(4_000))]

    #[test]
    fn the_rules_are_those_of_the_naive_reference(steps in any_steps(), policy in 0..4_usize) {
        let policy = policies()[policy];
        let (mut anomaly, mut naive) = (Anomaly::new(policy), Naive::new(policy, order));
        for (now, step) in timed(&steps) {
            match step {
                Timed::Deliver(delivery) => {
                    let answer = anomaly.deliver(delivery);
                    prop_assert_eq!(answer, naive.deliver(delivery), "{:?}", delivery);
                }
                Timed::Mark => {
                    anomaly.fixed_at = Some(at(now));
                    naive.fixed = Some(now);
                }
            }
            let firing = anomaly.incidents.firing(at(now), policy);
            let firing = firing.map(|firing| (firing.episodes, firing.since));
            prop_assert_eq!(firing, naive.firing(now).map(|(n, since)| (n, at(since))));
        }
        prop_assert_eq!(anomaly.ids.len(), naive.counted);
    }

    #[test]
    fn overlapping_episodes_count_once(history in histories()) {
        let counted = Anomaly::counted(&history.deliveries, endless());
        prop_assert!(counted >= 1 && counted <= history.episodes.len());
        if !history.is_ambiguous() {
            prop_assert_eq!(counted, history.incidents());
        }
    }

    #[test]
    fn any_page_of_deliveries_may_be_applied_twice(
        history in histories(),
        page in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
    ) {
        let History { deliveries, .. } = history;
        let (from, to) = (page.0.index(deliveries.len()), page.1.index(deliveries.len()));
        let (from, to) = (from.min(to), from.max(to));
        let twice = [&deliveries[..to], &deliveries[from..]].concat();
        let once = Anomaly::counted(&deliveries, endless());
        prop_assert_eq!(Anomaly::counted(&twice, endless()), once);
    }

    #[test]
    fn two_instances_in_any_order_count_no_more_than_the_episodes(
        history in histories(),
        to_second in prop::collection::vec(any::<bool>(), 1..100),
        order in prop::collection::vec(any::<bool>(), 200),
    ) {
        let goes = to_second.iter().cycle();
        let (first, second): (Vec<_>, Vec<_>) =
            history.deliveries.iter().copied().zip(goes).partition(|(_, second)| !**second);
        let (mut first, mut second) = (first.into_iter(), second.into_iter());
        let mut deliveries = Vec::new();
        for from_second in order {
            let next = if from_second { second.next() } else { first.next() };
            deliveries.extend(next.map(|(delivery, _)| delivery));
        }
        deliveries.extend(first.chain(second).map(|(delivery, _)| delivery));
        prop_assert!(Anomaly::counted(&deliveries, endless()) <= history.episodes.len());
    }
}
